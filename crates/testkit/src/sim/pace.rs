//! The settings of one node: the usual ones, or random legal ones.

use std::time::Duration;

use crinkle_core::{EntryOptions, Settings};
use rand::Rng;
use rand::rngs::StdRng;

use super::switches::Switches;

/// The limit of every L2 call, in milliseconds.
pub(crate) const HARD_MS: u64 = 400;

/// The longest round trip of a healthy L2, in milliseconds.
pub(super) const TRIP_MS: u64 = 30;

/// Times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) poll_ms: u64,
    /// The coherence TTL.
    pub(crate) coherence_ms: u64,
    /// The limits of an L2 call.
    pub(crate) hard_ms: u64,
    pub(crate) soft_ms: u64,
    /// The TTL of a load lock, and how long other nodes wait for it.
    pub(crate) lock_ms: u64,
    wait_ms: u64,
    breaker: u32,
    recovery_keys: usize,
    max_lifetime_ms: u64,
}

impl Pace {
    /// The settings of clusters in which all nodes are alike.
    pub(crate) fn usual(rng: &mut StdRng) -> Self {
        let poll_ms = if rng.random_bool(0.8) { 500 } else { 1000 };
        Self {
            poll_ms,
            coherence_ms: 5000 + 10 * poll_ms,
            hard_ms: HARD_MS,
            soft_ms: 100,
            lock_ms: 3000,
            wait_ms: 600,
            breaker: 3,
            recovery_keys: if rng.random_bool(0.2) { 1 } else { 10_000 },
            max_lifetime_ms: if rng.random_bool(0.2) { 5000 } else { 3_600_000 },
        }
    }

    /// Draws legal settings that fit the duration of a cluster. Values that are not drawn come from
    /// `self`.
    pub(crate) fn drawn(self, rng: &mut StdRng, switches: Switches) -> Self {
        let mut between = |least: u64, most: u64| {
            // Logarithmic, so that small values are as likely as large ones.
            let ratio = u32::try_from(most / least).unwrap_or(u32::MAX);
            let steps = rng.random_range(0.0..=1.0_f64);
            let times = f64::from(ratio).powf(steps);
            u64::try_from(Duration::from_millis(least).mul_f64(times).as_millis()).unwrap_or(most)
        };
        let poll_ms = between(100, 2000);
        let hard_ms = between(2 * TRIP_MS.max(25), 3000);
        // At least two polls with their answers, as the builder demands, and at least three polls.
        let least = (3 * poll_ms).max(2 * (poll_ms + hard_ms)) + 2;
        Self {
            poll_ms,
            hard_ms,
            soft_ms: between(10, 500).min(hard_ms),
            coherence_ms: between(least, 3 * least),
            lock_ms: between(500, 6000),
            wait_ms: between(1, 3000),
            breaker: u32::try_from(between(1, 10)).unwrap_or(1),
            recovery_keys: usize::try_from(between(1, 10_000)).unwrap_or(1),
            max_lifetime_ms: match switches.lifetimes {
                true => between(1000, 3_600_000),
                false => self.max_lifetime_ms,
            },
        }
    }

    pub(crate) fn settings(self) -> Settings {
        let ms = Duration::from_millis;
        Settings::default()
            .capacity(1000)
            .poll(ms(self.poll_ms))
            .coherence_ttl(ms(self.coherence_ms))
            .load_lock_ttl(ms(self.lock_ms))
            .breaker_failures(self.breaker)
            .recovery_keys(self.recovery_keys)
            .max_lifetime(ms(self.max_lifetime_ms))
    }

    /// Adds this node's limits to the options.
    pub(crate) fn limits(self, options: EntryOptions) -> EntryOptions {
        let ms = Duration::from_millis;
        options
            .l2_hard_timeout(ms(self.hard_ms))
            .l2_soft_timeout(ms(self.soft_ms))
            .load_lock_wait(ms(self.wait_ms))
    }

    pub(crate) fn lifetime(self) -> Duration {
        Duration::from_millis(self.max_lifetime_ms)
    }
}
