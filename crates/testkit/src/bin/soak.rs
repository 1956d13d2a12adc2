//! Measures resource use in long runs:
//! `cargo run --release -p crinkle-testkit --bin soak -- [--minutes M | --idle CACHES]`.
//!
//! Three processes use one cache over a real server. Meanwhile the command kills connections,
//! restarts the server, and kills and replaces one process. Exit code 1 if memory, tasks,
//! descriptors, entries or the keys of the server grow by more than 5 %; 2 if the run could not
//! start. `--idle` measures this many idle caches on one client.

use std::process::ExitCode;
use std::time::Duration;

use crinkle_testkit::soak::{self, Report, Row};
use tokio::runtime::Builder;

const USAGE: &str = "soak [--minutes M | --idle CACHES]";

enum Job {
    Worker { url: String, number: u64 },
    Soak(Duration),
    Idle(usize),
}

fn main() -> ExitCode {
    let Some(job) = job() else { return failed(USAGE) };
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let done = match job {
        Job::Worker { url, number } => soak::work(&url, number).map(|()| ExitCode::SUCCESS),
        Job::Soak(lasting) => runtime.block_on(soak::run(lasting)).map(|report| print(&report)),
        Job::Idle(caches) => runtime.block_on(soak::idle(caches)).map(|rows| {
            print_rows(&rows, "in all", "per cache");
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|error| failed(&error.to_string()))
}

fn job() -> Option<Job> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--worker", url, number] => {
            Some(Job::Worker { url: url.to_owned(), number: number.parse().ok()? })
        }
        ["--idle", caches] => Some(Job::Idle(caches.parse().ok().filter(|caches| *caches > 0)?)),
        ["--minutes", minutes] => {
            let minutes: f64 = minutes.parse().ok()?;
            Duration::try_from_secs_f64(minutes * 60.0).ok().map(Job::Soak)
        }
        [] => Some(Job::Soak(Duration::from_secs(600))),
        _ => None,
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn print(report: &Report) -> ExitCode {
    print_rows(&report.rows, "first half", "second half");
    println!("\n{} calls, {} troubles", report.calls, report.troubles);
    if report.is_flat() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_rows(rows: &[Row], before: &str, after: &str) {
    println!("| of | what | {before} | {after} | |\n|---|---|---:|---:|---|");
    for Row { of, what, before, after, flat, .. } in rows {
        let verdict = match flat {
            Some(true) => "flat",
            Some(false) => "GROWS",
            None => "",
        };
        println!("| {of} | {what} | {before:.3} | {after:.3} | {verdict} |");
    }
}
