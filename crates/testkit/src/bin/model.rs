//! Checks the protocol: `cargo run --release -p crinkle-testkit --bin model -- [--deep] [NAME]`.

use std::process::ExitCode;

use crinkle_testkit::model::{Expect, Report, run_keys, run_ledger};

fn main() -> ExitCode {
    let mut deep = false;
    let mut filter = String::new();
    for argument in std::env::args().skip(1) {
        if argument == "--deep" {
            deep = true;
        } else {
            filter = argument;
        }
    }
    let mut failed = 0;
    let mut judge = |report: Report| {
        print(&report);
        failed += usize::from(!report.is_expected());
    };
    run_ledger(deep, &filter, &mut judge);
    run_keys(deep, &filter, &mut judge);
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{failed} not as expected");
    ExitCode::FAILURE
}

fn print(report: &Report) {
    let verdict = match (&report.violation, report.expect) {
        (None, Expect::Holds) if !report.reached => "VACUOUS".to_owned(),
        (None, Expect::Holds) if !report.complete => {
            "holds as far as it came in its time".to_owned()
        }
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
