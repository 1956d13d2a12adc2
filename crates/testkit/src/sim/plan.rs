//! The plan of a simulated cluster: everything that follows from its seed before it begins.

use std::time::Duration;

use crinkle_core::{EagerRefresh, EntryOptions, FailSafe};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::pace::{HARD_MS, Pace, TRIP_MS};
use super::switches::Switches;
use crate::check::Terms;
use crate::history::Allows;

/// Keys that the actors use. Some look like internal names of the cache.
pub(crate) const KEYS: [&str; 4] = ["a", "v1:e:a", "b*\n", "v1:L"];

/// Keys of the final checks.
pub(super) const PROBES: [&str; 2] = ["probe", "probe that fails"];

/// Tags that the actors use.
pub(crate) const TAGS: [&str; 3] = ["t", "v1:L", "*"];

/// The longest delay of a message, in milliseconds.
pub(super) const LATE_MESSAGE_MS: u64 = 800;

/// The largest drift of a node's clock, in parts per million.
pub(super) const DRIFT_PPM: i64 = 30_000;

/// Everything that the seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) keys: u8,
    /// The tags of each key, as bits.
    pub(super) tags: [u8; 4],
    /// Whether the store announces its changes itself.
    pub(super) fused: bool,
    /// The slowest node's poll and coherence TTL.
    pub(super) poll_ms: u64,
    pub(super) coherence_ms: u64,
    /// The settings of each slot.
    pub(super) paces: [Pace; 4],
    pub(super) switches: Switches,
    /// The slots whose nodes use the next wire version, as bits.
    pub(super) next: u8,
    /// The allowed replica lag, if nodes read from replicas.
    pub(super) replica_lag_ms: Option<u64>,
    pub(super) ops: usize,
    /// The mean time between two calls.
    pub(super) gap_ms: u64,
    pub(super) faults: usize,
    /// Whether the store fails over; if not, it may be wiped.
    pub(super) fails_over: bool,
    /// Added to the origin of every node's clock; no outcome may depend on it.
    pub(super) skew_s: u64,
    /// Whether one node's subscription is silent during the last calls and a little longer.
    pub(super) ends_silent: bool,
}

/// Returns a random generator of its own for each part of a cluster.
pub(crate) fn rng(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xd134_2543_de82_ef95),
    )
}

impl Plan {
    pub(crate) fn new(seed: u64, skew_s: u64, switches: Switches) -> Self {
        let mut rng = rng(seed, 1);
        let usual = Pace::usual(&mut rng);
        // In the other half, every node has settings of its own.
        let alike = rng.random_bool(0.5);
        let paces =
            [usual; 4].map(|pace| if alike { pace } else { pace.drawn(&mut rng, switches) });
        let tags =
            [0; 4].map(|_: u8| if rng.random_bool(0.8) { rng.random_range(0..8) } else { 0 });
        // A generator of its own, so that older seeds still mean the same cluster.
        let mut newer = self::rng(seed, 10);
        let lag = newer.random_range(100..2000);
        let replica_lag_ms = (switches.replicas && newer.random_bool(0.2)).then_some(lag);
        let mixed = switches.versions && newer.random_bool(0.15);
        let next = if mixed { newer.random_range(1..4) } else { 0 };
        // Some clusters have few calls and take long.
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
            poll_ms: paces.iter().map(|pace| pace.poll_ms).max().unwrap_or(0),
            coherence_ms: paces.iter().map(|pace| pace.coherence_ms).max().unwrap_or(0),
            paces,
            switches,
            next,
            replica_lag_ms,
            ops: rng.random_range(60..120),
            gap_ms: if calm { rng.random_range(300..500) } else { rng.random_range(20..140) },
            faults: if rng.random_bool(0.1) { 0 } else { rng.random_range(3..14) },
            fails_over: rng.random_bool(0.5),
            skew_s,
            ends_silent: rng.random_bool(0.2),
        }
    }

    /// The shortest maximal TTL of all nodes.
    pub(super) fn max_lifetime(&self) -> Duration {
        self.paces.iter().map(|pace| pace.lifetime()).min().unwrap_or_default()
    }

    /// How long a healthy cluster needs to settle. Nodes announce their sequence every ten polls, a
    /// late `set` delays recovery for its limit and two seconds, and load locks of dead nodes must
    /// expire.
    pub(super) fn settles_ms(&self) -> u64 {
        let most = |of: fn(&Pace) -> u64| self.paces.iter().map(of).max().unwrap_or(0);
        let late_set = 2500 + 2 * most(|pace| pace.hard_ms);
        12 * self.poll_ms + late_set.max(most(|pace| pace.lock_ms))
    }

    /// The options of calls that draw none.
    pub(crate) fn defaults() -> EntryOptions {
        EntryOptions::new(Duration::from_secs(60))
            .l2_hard_timeout(Duration::from_millis(HARD_MS))
            .l2_soft_timeout(Duration::from_millis(100))
            .load_lock_wait(Duration::from_millis(600))
            .factory_deadline(Duration::from_secs(4))
    }

    /// Whether nodes use different wire versions.
    pub(super) fn is_mixed(&self) -> bool {
        self.next != 0
    }

    /// The terms that the judge needs.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            poll_ms: self.poll_ms,
            coherence_ms: self.coherence_ms + self.coherence_ms / 25 + 500,
            hard_ms: self.paces.iter().map(|pace| pace.hard_ms).max().unwrap_or(HARD_MS),
            late_ms: LATE_MESSAGE_MS,
            heals_ms: 500,
            late_set_ms: 1000,
            fused: self.fused,
            fails_over: self.fails_over,
            trip_ms: Some(TRIP_MS),
            strict: self.switches.strict,
            written: self.switches.written,
            options: self.switches.options,
            mixed: self.is_mixed(),
        }
    }
}

/// The options of one call, and what they allow.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) options: EntryOptions,
    pub(super) allows: Allows,
}

impl From<EntryOptions> for Chosen {
    /// For options without fail-safe and without `wait_timeout`.
    fn from(options: EntryOptions) -> Self {
        Self { options, allows: Allows::default() }
    }
}

/// The options of one call.
pub(crate) fn options(rng: &mut StdRng) -> EntryOptions {
    chosen(rng).options
}

/// The options of one call, and what they allow.
pub(super) fn chosen(rng: &mut StdRng) -> Chosen {
    let mut allows = Allows::default();
    let ttl = [300, 2_000, 10_000, 60_000, 60_000][rng.random_range(0..5)];
    let ms = Duration::from_millis;
    let mut options = Plan::defaults().duration(ms(ttl));
    if rng.random_bool(0.5) {
        allows.fail_safe = true;
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
        allows.wait_timeout = true;
        options = options.wait_timeout(ms(100));
    }
    if rng.random_bool(0.15) {
        options = options.load_lock(false);
    }
    if rng.random_bool(0.1) {
        options = options.jitter(ms(500));
    }
    Chosen { options, allows }
}
