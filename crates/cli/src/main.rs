//! `crinkle`: what an operator needs at three in the morning. See `docs/cli.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    crinkle_cli::main()
}
