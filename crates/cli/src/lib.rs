//! The command `crinkle`, and its [doctor] as a library: an application can examine its servers as
//! `crinkle doctor` does. The rest is not for other programs.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `tls` | no | servers at `rediss://`; needs a C compiler |
//! | `testing` | no | unstable: what Crinkle's own fuzz targets need |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod args;
#[cfg(feature = "testing")]
pub mod arguments;
mod commands;
pub mod doctor;
mod failure;
mod output;
mod server;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Args, Command};
use crate::commands::{change, inspect, keys, stats, tags, watch};
use crate::failure::{Failure, OK};
use crate::output::Out;

/// Runs the command that the process arguments name, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Failure::from).and_then(|runtime| {
        let ended = runtime.block_on(run(&args));
        // Does not wait for a name server that does not answer.
        runtime.shutdown_background();
        ended
    });
    ExitCode::from(ended.unwrap_or_else(|failure| failure.report()))
}

async fn run(args: &Args) -> Result<u8, Failure> {
    let global = &args.global;
    let out = Out::new(global.json);
    match &args.command {
        Command::Doctor { user } => commands::doctor::run(global, user.as_deref(), out).await,
        Command::Watch(what) => watch::run(global, what, out).await,
        Command::Inspect { key } => inspect::run(global, key, out).await,
        Command::Keys(what) => keys::run(global, what, out).await,
        Command::Tags { tag } => tags::run(global, tag, out).await,
        Command::Stats => stats::run(global, out).await,
        Command::Remove { .. } | Command::RemoveByTag { .. } | Command::Clear { .. } => {
            change::run(global, &args.command, out).await
        }
        Command::Completions { shell } => {
            // Written to memory first: the generator does not expect a pipe that closes.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "crinkle", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(OK)
        }
    }
}
