//! `crinkle`: the operator's command. See `docs/cli.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    crinkle_cli::main()
}
