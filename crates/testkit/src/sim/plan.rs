//! What one universe is like: everything that follows from its seed before it begins.

use std::time::Duration;

use crinkle_core::{EagerRefresh, EntryOptions, FailSafe, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::Terms;

/// Keys that the actors use. Some look like what the cache uses inside.
pub(crate) const KEYS: [&str; 4] = ["a", "v1:e:a", "b*\n", "v1:L"];

/// Keys of the last probes.
pub(super) const PROBES: [&str; 2] = ["probe", "probe that fails"];

/// Tags that the actors use.
pub(crate) const TAGS: [&str; 3] = ["t", "v1:L", "*"];

/// The limit of every L2 call, in milliseconds.
pub(crate) const HARD_MS: u64 = 400;

/// The longest that a message is kept back, in milliseconds.
pub(super) const LATE_MESSAGE_MS: u64 = 800;

/// How much faster or slower than the others a clock runs at most, in parts per million.
pub(super) const DRIFT_PPM: i64 = 30_000;

/// What the seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) keys: u8,
    /// The tags of each key, as bits.
    pub(super) tags: [u8; 4],
    /// Whether the store announces by itself.
    pub(super) fused: bool,
    pub(super) poll_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) ops: usize,
    /// The mean time between two calls.
    pub(super) gap_ms: u64,
    pub(super) faults: usize,
    /// Whether the store fails over; if not, it may be wiped.
    pub(super) fails_over: bool,
    pub(super) recovery_keys: usize,
    pub(super) max_lifetime: Duration,
    /// Added to the origin of every node's clock: nothing may depend on it.
    pub(super) skew_s: u64,
    /// Whether a node is deaf while the last calls are made, and a little longer.
    pub(super) ends_deaf: bool,
}

/// A stream of random numbers of its own for each part of a universe.
pub(crate) fn rng(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xd134_2543_de82_ef95),
    )
}

impl Plan {
    pub(crate) fn new(seed: u64, skew_s: u64) -> Self {
        let mut rng = rng(seed, 1);
        let poll_ms = if rng.random_bool(0.8) { 500 } else { 1000 };
        let tags =
            [0; 4].map(|_: u8| if rng.random_bool(0.8) { rng.random_range(0..8) } else { 0 });
        // Some universes have few calls and last long.
        let calm = rng.random_bool(0.15);
        Self {
            seed,
            nodes: match rng.random_range(0..10) {
                0..6 => 2,
                6..9 => 3,
                _ => 4,
            },
            keys: rng.random_range(1..=4),
            tags,
            fused: rng.random_bool(0.65),
            poll_ms,
            lease_ms: 5000 + 10 * poll_ms,
            ops: rng.random_range(60..120),
            gap_ms: if calm { rng.random_range(300..500) } else { rng.random_range(20..140) },
            faults: if rng.random_bool(0.1) { 0 } else { rng.random_range(3..14) },
            fails_over: rng.random_bool(0.5),
            recovery_keys: if rng.random_bool(0.2) { 1 } else { 10_000 },
            max_lifetime: Duration::from_secs(if rng.random_bool(0.2) { 5 } else { 3600 }),
            skew_s,
            ends_deaf: rng.random_bool(0.2),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings::default()
            .capacity(1000)
            .poll(Duration::from_millis(self.poll_ms))
            .coherence_lease(Duration::from_millis(self.lease_ms))
            .lease(Duration::from_secs(3))
            .breaker_failures(3)
            .recovery_keys(self.recovery_keys)
            .max_lifetime(self.max_lifetime)
    }

    /// The options of calls that choose none.
    pub(crate) fn defaults() -> EntryOptions {
        EntryOptions::new(Duration::from_secs(60))
            .l2_hard_timeout(Duration::from_millis(HARD_MS))
            .l2_soft_timeout(Duration::from_millis(100))
            .lease_wait(Duration::from_millis(600))
            .factory_deadline(Duration::from_secs(4))
    }

    /// What the judge has to know.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            poll_ms: self.poll_ms,
            lease_ms: self.lease_ms + self.lease_ms / 25 + 500,
            hard_ms: HARD_MS,
            late_ms: LATE_MESSAGE_MS,
            heals_ms: 500,
            straggles_ms: 1000,
            fused: self.fused,
            fails_over: self.fails_over,
        }
    }
}

/// The options of one call.
pub(crate) fn options(rng: &mut StdRng) -> EntryOptions {
    let life = [300, 2_000, 10_000, 60_000, 60_000][rng.random_range(0..5)];
    let ms = Duration::from_millis;
    let mut options = Plan::defaults().duration(ms(life));
    if rng.random_bool(0.5) {
        let throttle = ms([300, 2_000][rng.random_range(0..2)]);
        options = options.fail_safe(FailSafe::for_up_to(ms(60_000)).throttle(throttle));
    }
    if rng.random_bool(0.2) {
        options = options.eager_refresh(EagerRefresh::after(0.3));
    }
    if rng.random_bool(0.25) {
        options = options.factory_soft_timeout(ms(40));
    }
    if rng.random_bool(0.2) {
        options = options.factory_hard_timeout(ms(150)).background_completion(rng.random_bool(0.7));
    }
    if rng.random_bool(0.1) {
        options = options.flight_timeout(ms(100));
    }
    if rng.random_bool(0.15) {
        options = options.lease(false);
    }
    if rng.random_bool(0.1) {
        options = options.jitter(ms(500));
    }
    options
}
