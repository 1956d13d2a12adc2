//! Chaos runs against real servers:
//! `cargo run --release -p crinkle-testkit --bin storm -- [--topology standalone|sentinel|cluster] [--minutes M] [--json]`.
//!
//! Exit code 1 on a violation, or if a fault occurred less than twice in ten minutes; 2 if the run
//! could not start. `--mutant NAME` plants the bug of that name; 1 then means that the run did not
//! catch it. `--mutants` plants each bug that real servers can reveal, for the given time at most.
//! It prints the rows of a table for `docs/verification.md`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crinkle_core::sabotage::Sabotage;
use crinkle_testkit::storm::{self, Ahead, Job, Report, Topology};
use serde_json::json;
use tokio::runtime::Builder;

const USAGE: &str = "storm [--topology standalone|sentinel|cluster] [--minutes M] [--json] [--seed S] \
     [--skew-ms N[,N...]] [--mutant NAME | --mutants]";

struct Arguments {
    job: Job,
    json: bool,
    mutants: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--worker") {
        return match storm::work() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        };
    }
    let Some(Arguments { job, json, mutants }) = arguments() else { return failed(USAGE) };
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let run = |job| runtime.block_on(storm::run(job, |line| eprintln!("{line}")));
    if mutants {
        return plant_each(job, run);
    }
    let report = match run(job) {
        Ok(report) => report,
        Err(error) => return failed(&error.to_string()),
    };
    print_stories(&report);
    if json {
        print_json(&report, job.topology);
    } else {
        print(&report);
    }
    let rare = job.bug.is_none() && job.lasting >= storm::LONG && !report.rare().is_empty();
    if rare {
        eprintln!("occurred less than {} times: {}", storm::TWICE, report.rare().join("; "));
    }
    if report.violations.is_empty() == job.bug.is_none() && !rare {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plants each bug in turn and prints in which round and by which rule it was caught.
fn plant_each<E: Display>(job: Job, run: impl Fn(Job) -> Result<Report, E>) -> ExitCode {
    let mut survived = false;
    let began = today();
    println!("| planted bug | noticed in round | by |\n|---|---|---|");
    for name in storm::MUTANTS {
        let Some(bug) = Sabotage::ALL.iter().find(|bug| bug.name() == name) else {
            return failed(&format!("there is no planted bug `{name}`"));
        };
        eprintln!("planted: {name}");
        let report = match run(Job { bug: Some(*bug), ..job }) {
            Ok(report) => report,
            Err(error) => return failed(&error.to_string()),
        };
        survived |= report.violations.is_empty();
        println!("{}", row(name, &report, job));
    }
    println!("\n`storm -- --mutants --topology {}`, {began} to {}.", job.topology.name(), today());
    if survived { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One row of the table; it counts rounds from 1.
fn row(name: &str, report: &Report, job: Job) -> String {
    match report.violations.first() {
        Some(first) => format!("| {name} | {} | {} |", first.round + 1, first.rule),
        None => format!("| {name} | not within {} minutes | |", job.lasting.as_secs() / 60),
    }
}

/// The date in UTC, or an empty string if there is no `date` command.
fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F %R"]).output();
    let written = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    written.unwrap_or_default().trim().to_owned()
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn arguments() -> Option<Arguments> {
    let topology = Topology::Standalone;
    let seed = rand::random();
    let job = Job { topology, lasting: Duration::from_secs(60), bug: None, ahead: None, seed };
    let mut found = Arguments { job, json: false, mutants: false };
    let mut minutes = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--topology" => found.job.topology = arguments.next()?.parse().ok()?,
            "--minutes" => {
                let given: f64 = arguments.next()?.parse().ok()?;
                minutes = Some(Duration::try_from_secs_f64(given * 60.0).ok()?);
            }
            "--seed" => found.job.seed = arguments.next()?.parse().ok()?,
            "--mutant" => {
                let name = arguments.next()?;
                let bug = Sabotage::ALL.iter().find(|bug| bug.name() == name)?;
                found.job.bug = Some(*bug);
            }
            "--skew-ms" => found.job.ahead = Some(ahead(&arguments.next()?)?),
            "--mutants" => found.mutants = true,
            "--json" => found.json = true,
            _ => return None,
        }
    }
    // A planted bug is caught within the first rounds, or after many.
    let usual = if found.mutants { 600 } else { 60 };
    found.job.lasting = minutes.unwrap_or_else(|| Duration::from_secs(usual));
    Some(found)
}

/// Parses the clocks of the servers. One number is distributed so that no two primaries share a
/// clock, nor a replica and its primary. A list is distributed in turn, from the first number again
/// after the last.
fn ahead(list: &str) -> Option<Ahead> {
    let list: Vec<i64> = list.split(',').map(|ms| ms.parse().ok()).collect::<Option<_>>()?;
    let in_turn = |at: usize| match list[..] {
        [ms] => [ms, 0, -ms][(at + at / 3) % 3],
        _ => list[at % list.len()],
    };
    Some(std::array::from_fn(in_turn))
}

/// Prints the story of the first violation of each rule.
fn print_stories(report: &Report) {
    let mut printed = BTreeSet::new();
    for violation in report.violations.iter().filter(|v| printed.insert(v.rule)) {
        eprintln!("{}: {}\n{}", violation.rule, violation.what, violation.story);
    }
}

fn print_json(report: &Report, topology: Topology) {
    let violations = report.violations.iter();
    let violations: Vec<_> =
        violations.map(|v| json!({"round": v.round, "rule": v.rule, "what": v.what})).collect();
    let all = json!({
        "topology": topology.name(),
        "faults": report.faults,
        "ops": report.ops,
        "violations": violations,
        "worst_staleness_ms": report.worst_staleness_ms,
    });
    println!("{all}");
}

fn print(report: &Report) {
    for (name, count) in &report.faults {
        println!("{name:<28} {count:>6}");
    }
    for violation in report.violations.iter().take(20) {
        println!("VIOLATED {} in round {}: {}", violation.rule, violation.round, violation.what);
    }
    println!(
        "{} calls, {} violations, a fresh answer was {} ms old at most",
        report.ops,
        report.violations.len(),
        report.worst_staleness_ms
    );
}
