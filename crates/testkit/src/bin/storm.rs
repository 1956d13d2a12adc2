//! Real servers in trouble:
//! `cargo run --release -p crinkle-testkit --bin storm -- [--topology standalone|sentinel|cluster] [--minutes M] [--json]`.
//!
//! Exit code 1 on a violation, 2 if it could not be run. With `--mutant NAME` the bug of that name is planted,
//! and 1 means that nothing was found.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use crinkle_core::sabotage::Sabotage;
use crinkle_testkit::storm::{self, Job, Report, Topology};
use serde_json::json;
use tokio::runtime::Builder;

const USAGE: &str = "storm [--topology standalone|sentinel|cluster] [--minutes M] [--json] [--seed S] [--mutant NAME]";

struct Arguments {
    job: Job,
    json: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--worker") {
        return match storm::work() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        };
    }
    let Some(Arguments { job, json }) = arguments() else { return failed(USAGE) };
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let report = match runtime.block_on(storm::run(job, |line| eprintln!("{line}"))) {
        Ok(report) => report,
        Err(error) => return failed(&error.to_string()),
    };
    tell(&report);
    if json {
        print_json(&report, job.topology);
    } else {
        print(&report);
    }
    if report.violations.is_empty() == job.bug.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn arguments() -> Option<Arguments> {
    let topology = Topology::Standalone;
    let seed = rand::random();
    let job = Job { topology, lasting: Duration::from_secs(60), bug: None, seed };
    let mut found = Arguments { job, json: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--topology" => found.job.topology = arguments.next()?.parse().ok()?,
            "--minutes" => {
                let minutes: f64 = arguments.next()?.parse().ok()?;
                found.job.lasting = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
            }
            "--seed" => found.job.seed = arguments.next()?.parse().ok()?,
            "--mutant" => {
                let name = arguments.next()?;
                let bug = Sabotage::ALL.iter().find(|bug| bug.name() == name)?;
                found.job.bug = Some(*bug);
            }
            "--json" => found.json = true,
            _ => return None,
        }
    }
    Some(found)
}

/// The story of the first violation of each rule.
fn tell(report: &Report) {
    let mut told = BTreeSet::new();
    for violation in report.violations.iter().filter(|v| told.insert(v.rule)) {
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
