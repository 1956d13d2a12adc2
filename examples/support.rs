//! Shared code of the examples: a clock, readable durations, percentiles, and a list of
//! expectations.

use std::time::Duration;

use crinkle::{Clock, Moment, SystemClock};

/// Reads the machine's monotonic clock. On Linux, all processes share it.
#[must_use]
pub fn now() -> Moment {
    SystemClock.now()
}

/// Formats a duration with three digits and a unit.
#[must_use]
pub fn human(duration: Duration) -> String {
    let nanos = duration.as_secs_f64() * 1e9;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}

/// Returns the smallest measurement that `percent` of all do not exceed; zero if there is none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Expectations of the example, and those that did not hold.
#[derive(Debug, Default)]
pub struct Expectations {
    broken: Vec<String>,
}

impl Expectations {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Prints an expectation, and records it if it does not hold.
    pub fn expect(&mut self, holds: bool, what: &str) {
        println!("     {} {what}", if holds { "✓" } else { "✗ NOT" });
        if !holds {
            self.broken.push(what.to_owned());
        }
    }

    /// Ends the example; an error names the expectations that did not hold.
    ///
    /// # Errors
    ///
    /// If an expectation did not hold.
    pub fn conclude(self) -> anyhow::Result<()> {
        anyhow::ensure!(self.broken.is_empty(), "did not hold: {}", self.broken.join("; "));
        Ok(())
    }
}
