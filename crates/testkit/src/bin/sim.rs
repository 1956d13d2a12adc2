//! Simulates: `cargo run --release -p crinkle-testkit --bin sim -- --seeds N [--seed S] [--json] [--mutants]`.
//!
//! With `--seed S` alone, one universe is run and told line by line.

use std::process::ExitCode;
use std::time::Instant;

use crinkle_core::sabotage::Sabotage;
use crinkle_testkit::sim::{self, Job, Report};
use mimalloc::MiMalloc;
use serde_json::{Map, Value, json};

/// A universe is many small allocations of one thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// From this many seeds on, everything must have occurred.
const ENOUGH: u64 = 2000;

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    seed: Option<u64>,
    json: bool,
    mutants: bool,
    mutant: Option<String>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("sim [--seeds N] [--seed S] [--json] [--mutants | --mutant NAME]");
        return ExitCode::FAILURE;
    };
    sim::hush();
    let default = if arguments.seed.is_some() { 1 } else { ENOUGH };
    let seeds = arguments.seeds.unwrap_or(default);
    if arguments.mutants || arguments.mutant.is_some() {
        return mutants(seeds, arguments.mutant.as_deref(), arguments.seed);
    }
    if let (Some(seed), 1, false) = (arguments.seed, seeds, arguments.json) {
        println!("{}", sim::timeline(seed));
    }
    let begun = now();
    let first = arguments.seed.unwrap_or(1);
    let report = sim::run(Job { first, seeds, bug: None });
    let seconds = begun.elapsed().as_secs_f64();
    if arguments.json {
        print_json(&report, seconds)
    } else {
        print(&report, seconds)
    }
    let uncovered = seeds >= ENOUGH && !report.coverage.zeros().is_empty();
    if report.violations.is_empty() && !uncovered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => found.seeds = Some(arguments.next()?.parse().ok()?),
            "--seed" => found.seed = Some(arguments.next()?.parse().ok()?),
            "--json" => found.json = true,
            "--mutants" => found.mutants = true,
            "--mutant" => found.mutant = Some(arguments.next()?),
            _ => return None,
        }
    }
    Some(found)
}

#[expect(clippy::disallowed_methods, reason = "a simulator is timed by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

fn print_json(report: &Report, seconds: f64) {
    let coverage: Map<_, _> =
        report.coverage.iter().map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
    let violations = report.violations.iter();
    let violations = violations.map(|v| json!({"seed": v.seed, "rule": v.rule, "what": v.what}));
    let violations: Vec<_> = violations.collect();
    let all = json!({
        "seeds": report.seeds,
        "ops": report.ops,
        "violations": violations,
        "coverage": coverage,
        "seconds": seconds,
    });
    println!("{all}");
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn print(report: &Report, seconds: f64) {
    for (name, count) in report.coverage.iter() {
        println!("{name:<24} {count:>10}");
    }
    let mut last = None;
    for violation in
        report.violations.iter().filter(|v| last.replace(v.seed) != Some(v.seed)).take(20)
    {
        println!("VIOLATED {}: {}", violation.rule, violation.what);
        println!("  cargo run --release -p crinkle-testkit --bin sim -- --seed {}", violation.seed);
    }
    for name in report.coverage.zeros() {
        println!("never occurred: {name}");
    }
    let (seeds, ops) = (report.seeds, report.ops);
    let rate = seeds as f64 / seconds;
    println!(
        "{seeds} seeds, {ops} calls, {} violations, {seconds:.1} s, {rate:.0} seeds/s",
        report.violations.len()
    );
}

/// Every planted bug must be found.
fn mutants(seeds: u64, only: Option<&str>, seed: Option<u64>) -> ExitCode {
    let mut survivors = 0;
    for bug in Sabotage::ALL.iter().filter(|bug| only.is_none_or(|only| bug.name() == only)) {
        if let (Some(seed), Some(_)) = (seed, only) {
            println!("{}", sim::timeline_with(seed, Some(*bug)));
            continue;
        }
        let report = sim::run(Job { first: 1, seeds, bug: Some(*bug) });
        match report.violations.first() {
            Some(violation) => {
                println!(
                    "{:<42} caught after {:>5} seeds, {}",
                    bug.name(),
                    violation.seed,
                    violation.rule
                );
            }
            None => {
                survivors += 1;
                println!("{:<42} SURVIVED {:>5} seeds", bug.name(), report.seeds);
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
