//! Runs simulated clusters:
//! `cargo run --release -p crinkle-testkit --bin sim -- --from S --seeds N [--jobs J] [--json] [--mutants]`.
//!
//! `--seed S` alone runs one cluster and prints its timeline. With `--seeds`, `--seed` is the first
//! seed, as with `--from`.

use std::process::ExitCode;
use std::time::Instant;

use crinkle_core::sabotage::Sabotage;
use crinkle_testkit::sim::{self, Job, Report, Switches};
use mimalloc::MiMalloc;
use serde_json::{Map, Value, json};

/// A simulated cluster makes many small allocations on one thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// From this many seeds on, every counter must be above zero, unless a switch is off.
const ENOUGH: u64 = 2000;

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    seed: Option<u64>,
    from: Option<u64>,
    jobs: Option<usize>,
    switches: Switches,
    json: bool,
    mutants: bool,
    mutant: Option<String>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!(
            "sim [--from S] [--seeds N] [--jobs J] [--seed S] [--with SWITCH,..] \
             [--without SWITCH,..] [--json] [--mutants | --mutant NAME]\nswitches: all {}",
            Switches::NAMES.join(" ")
        );
        return ExitCode::FAILURE;
    };
    sim::hush();
    let default = if arguments.seed.is_some() { 1 } else { ENOUGH };
    let seeds = arguments.seeds.unwrap_or(default);
    if arguments.mutants || arguments.mutant.is_some() {
        return mutants(&arguments, seeds);
    }
    if let (Some(seed), 1, false) = (arguments.seed, seeds, arguments.json) {
        println!("{}", sim::timeline(seed, arguments.switches));
    }
    let begun = now();
    let first = arguments.from.or(arguments.seed).unwrap_or(1);
    let report = sim::run(Job {
        first,
        seeds,
        jobs: arguments.jobs,
        switches: arguments.switches,
        bug: None,
    });
    let seconds = begun.elapsed().as_secs_f64();
    if arguments.json {
        print_json(&report, first, seconds)
    } else {
        print(&report, first, seconds)
    }
    let all = arguments.switches == Switches::ON;
    let uncovered = all && seeds >= ENOUGH && !report.coverage.zeros().is_empty();
    if report.violations.is_empty() && !uncovered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<Arguments> {
    let mut found = Arguments { switches: Switches::ON, ..Arguments::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => found.seeds = Some(arguments.next()?.parse().ok()?),
            "--seed" => found.seed = Some(arguments.next()?.parse().ok()?),
            "--from" => found.from = Some(arguments.next()?.parse().ok()?),
            "--jobs" => found.jobs = Some(arguments.next()?.parse().ok().filter(|jobs| *jobs > 0)?),
            "--with" => found.switches = found.switches.switched(&arguments.next()?, true)?,
            "--without" => found.switches = found.switches.switched(&arguments.next()?, false)?,
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

fn print_json(report: &Report, from: u64, seconds: f64) {
    let coverage: Map<_, _> =
        report.coverage.iter().map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
    let violations = report.violations.iter();
    let violations = violations.map(|v| json!({"seed": v.seed, "rule": v.rule, "what": v.what}));
    let violations: Vec<_> = violations.collect();
    let excuses: Map<_, _> =
        excuses(report).map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
    let all = json!({
        "from": from,
        "seeds": report.seeds,
        "ops": report.ops,
        "violations": violations,
        "coverage": coverage,
        "excuses": excuses,
        "seconds": seconds,
    });
    println!("{all}");
}

/// Every excuse and how often it was used.
fn excuses(report: &Report) -> impl Iterator<Item = (&'static str, u64)> {
    sim::excuses().map(|name| (name, report.excuses.get(name).copied().unwrap_or(0)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn print(report: &Report, from: u64, seconds: f64) {
    for (name, count) in report.coverage.iter() {
        println!("{name:<24} {count:>10}");
    }
    for (name, count) in excuses(report) {
        println!("excused: {name:<70} {count:>10}");
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
        "{seeds} seeds from {from}, {ops} calls, {} violations, {seconds:.1} s, {rate:.0} seeds/s",
        report.violations.len()
    );
}

/// Planted bugs that the simulator does not catch, with the tests that do. They cost loads but not
/// correctness, or need a race that no simulated cluster has met.
const HELD_BY_TESTS: [(&str, &str); 3] = [
    ("retention of the caller", "coherence::retention"),
    ("a lock that is not needed is kept", "coherence::late_reads"),
    ("the same load lock is asked for twice", "coherence::late_reads"),
];

/// The largest number of seeds to catch a planted bug, in the middle one of three ranges.
const SOON: u64 = 500;

/// The distance between the ranges.
const APART: u64 = 100_000;

/// Plants each bug and prints a table. Every other bug must be caught within [`SOON`] seeds.
fn mutants(arguments: &Arguments, seeds: u64) -> ExitCode {
    let only = arguments.mutant.as_deref();
    let first = arguments.from.unwrap_or(1);
    let ranges = [first, first + APART, first + 2 * APART];
    let mut survivors = 0;
    let bugs = || Sabotage::ALL.iter().filter(|bug| only.is_none_or(|only| bug.name() == only));
    if let (Some(seed), Some(_)) = (arguments.seed, only) {
        for bug in bugs() {
            println!("{}", sim::timeline_with(seed, arguments.switches, Some(*bug)));
        }
        return ExitCode::SUCCESS;
    }
    println!(
        "| planted bug | from {} | from {} | from {} | median | by |",
        ranges[0], ranges[1], ranges[2]
    );
    println!("|---|---:|---:|---:|---:|---|");
    for bug in bugs() {
        let caught = ranges.map(|first| caught(arguments, *bug, first, seeds));
        let after = caught.map(|caught| caught.map(|(after, _)| after));
        let rule = caught.iter().flatten().map(|(_, rule)| *rule).next();
        let shown =
            after.map(|after| after.map_or_else(|| format!("> {seeds}"), |n| n.to_string()));
        let mut sorted = after.map(|after| after.unwrap_or(u64::MAX));
        sorted.sort_unstable();
        let held = HELD_BY_TESTS.iter().find(|(name, _)| *name == bug.name());
        let by = match (rule, held) {
            (Some(rule), _) => rule.to_owned(),
            (None, Some((_, tests))) => format!("held by {tests}"),
            (None, None) => "SURVIVED".to_owned(),
        };
        let median =
            if sorted[1] == u64::MAX { format!("> {seeds}") } else { sorted[1].to_string() };
        survivors += u32::from(sorted[1] > SOON && held.is_none());
        println!(
            "| {} | {} | {} | {} | {median} | {by} |",
            bug.name(),
            shown[0],
            shown[1],
            shown[2]
        );
    }
    if survivors == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{survivors} were not noticed within {SOON} seeds");
    ExitCode::FAILURE
}

/// Returns after how many seeds of a range a planted bug is caught, and by which rule.
fn caught(
    arguments: &Arguments,
    bug: Sabotage,
    first: u64,
    seeds: u64,
) -> Option<(u64, &'static str)> {
    let (jobs, switches) = (arguments.jobs, arguments.switches);
    let report = sim::run(Job { first, seeds, jobs, switches, bug: Some(bug) });
    report.violations.first().map(|violation| (violation.seed - first + 1, violation.rule))
}
