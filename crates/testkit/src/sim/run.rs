//! How a factory runs: how long, and how it ends.

use rand::Rng;
use rand::rngs::StdRng;

/// How a factory runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// How long it takes before and after it reads the source, in milliseconds.
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) ends: Ends,
    /// A tag that it adds, as a bit.
    pub(crate) adds: u8,
}

/// How a factory ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Well,
    /// Succeeds, or reports "not modified" if that is true.
    Confirming,
    Badly,
    Panicking,
}

/// Draws how a factory runs.
pub(crate) fn draw(rng: &mut StdRng) -> Run {
    let time = |rng: &mut StdRng| match rng.random_range(0..10) {
        0..3 => 0,
        3..8 => rng.random_range(1..40),
        8 => rng.random_range(40..400),
        _ => rng.random_range(400..1500),
    };
    let ends = match rng.random_range(0..100) {
        0..70 => Ends::Well,
        70..85 => Ends::Confirming,
        85..97 => Ends::Badly,
        _ => Ends::Panicking,
    };
    let adds = if rng.random_bool(0.1) { 1 << rng.random_range(0..3_u8) } else { 0 };
    Run { before: time(rng), after: time(rng), ends, adds }
}
