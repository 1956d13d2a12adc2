//! The scoreboard: Crinkle against its floors and its peers, in one run.
//!
//! `cargo run --release -p crinkle-benches --bin scoreboard -- [--json] [--quick] [--grow] [--trace FILE]
//! [--write] [--redis URL] [--only SUBSTRING]`

#![expect(
    clippy::cast_possible_truncation,
    clippy::future_not_send,
    reason = "counts and times that are printed; one thread drives everything"
)]

mod board;
mod docs;
mod env;
mod grow;
mod hits;
mod instructions;
mod measure;
#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "no_peers.rs"]
mod peers;
mod remote;
mod row;
mod rows;
mod server;
mod text;
mod trace;
mod worker;
mod workload;

use std::process::ExitCode;

use anyhow::Result;

use board::Board;
use env::{Arguments, Env};

const USAGE: &str = "scoreboard [--json] [--quick] [--grow] [--trace FILE] [--write] [--redis URL] \
                     [--only SUBSTRING]";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("scoreboard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("scoreboard: {wrong}\nusage: {USAGE}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some((kind, rest)) = arguments.worker.split_first() {
        rows::work(kind, rest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let env = Env::new(arguments)?;
    if env.arguments.grow {
        grow::run(&env)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut board = Board::new(&env);
    match env.arguments.trace {
        Some(_) => rows::trace_rows(&env, &mut board)?,
        None => rows::run(&env, &mut board),
    }
    board.print(&env)?;
    Ok(if board.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
