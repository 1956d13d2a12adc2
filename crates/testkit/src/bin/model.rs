//! Explores the models of the protocol:
//! `cargo run --release -p crinkle-testkit --bin model -- [--deep] [--threads N] [NAME]`.

use std::process::ExitCode;

use crinkle_testkit::model::{Expect, Job, Report, run_keys, run_ledger};

fn main() -> ExitCode {
    let mut job = Job { deep: false, filter: String::new(), threads: 2 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--deep" => job.deep = true,
            "--threads" => {
                let threads = arguments.next().and_then(|threads| threads.parse().ok());
                let Some(threads) = threads else {
                    eprintln!("model [--deep] [--threads N] [NAME]");
                    return ExitCode::from(2);
                };
                job.threads = threads;
            }
            _ => job.filter = argument,
        }
    }
    let mut failed = 0;
    let mut judge = |report: Report| {
        print(&report);
        failed += usize::from(!report.is_expected());
    };
    run_ledger(&job, &mut judge);
    run_keys(&job, &mut judge);
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{failed} not as expected");
    ExitCode::FAILURE
}

fn print(report: &Report) {
    let verdict = match (&report.violation, report.expect) {
        (None, Expect::Holds) if !report.reached => "VACUOUS".to_owned(),
        (None, Expect::Holds) if !report.complete => "DOES NOT END".to_owned(),
        (None, Expect::Holds) => "holds".to_owned(),
        (None, Expect::Caught) => "SURVIVES".to_owned(),
        (Some((property, steps)), Expect::Holds) => {
            format!("VIOLATED: {property}\n    {}", steps.join("\n    "))
        }
        (Some((property, steps)), Expect::Caught) => {
            format!("caught in {} steps: {property}", steps.len())
        }
    };
    println!(
        "{:<52} {:>9} states {:>6.1} s  {verdict}",
        report.name,
        report.states,
        report.time.as_secs_f64()
    );
}
