//! Computes the deadlines of an entry in L1 and L2, and when its eager refresh is due. Pure.

use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::options::{EagerRefresh, EntryOptions};

/// Never.
const NEVER: u64 = u64::MAX;

/// A time in seconds that no entry reaches (136 years).
const TO_THE_END: u32 = u32::MAX;

/// The earliest start of a probabilistic refresh, as a multiple of the expected earliness.
///
/// Beyond that, the odds are below one in eight million per hit.
const EARLIEST: u64 = 16;

/// The deadlines of an entry on this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) created: Moment,
    pub(crate) logical: Moment,
    pub(crate) physical: Moment,
}

/// The TTLs of the entry's record, from creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordTtls {
    pub(crate) logical: Duration,
    pub(crate) physical: Duration,
}

/// Computes the deadlines of a new entry and the TTLs of its record.
///
/// `jitter` has been drawn. `shared` says whether the entry goes to L2: an L1 copy must not outlive
/// its record.
pub(crate) fn new(
    options: &EntryOptions,
    longest: Duration,
    jitter: Duration,
    now: Moment,
    shared: bool,
) -> (Deadlines, RecordTtls) {
    let cut =
        |ttl: Option<Duration>| ttl.unwrap_or(options.duration).saturating_add(jitter).min(longest);
    let kept = options.fail_safe.map_or(Duration::ZERO, |f| f.max_duration.min(longest));
    let record = cut(options.l2_duration);
    let mut fresh = cut(options.l1_duration);
    if shared && !options.sliding {
        fresh = fresh.min(record);
    }
    let most = if options.sliding { longest } else { fresh };
    let deadlines =
        Deadlines { created: now, logical: now + fresh, physical: now + most.max(kept) };
    (deadlines, RecordTtls { logical: record, physical: record.max(kept) })
}

/// The flags of an entry in L1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryFlags {
    /// The TTL that each hit restarts, in nanoseconds; 0 if the entry is not sliding.
    pub(crate) slide: u64,
    /// When the eager refresh is due, in nanoseconds on the node's clock.
    pub(crate) due: u64,
    /// The expected earliness of a probabilistic refresh, in nanoseconds; 0 for a fixed moment.
    pub(crate) early: u64,
    /// How many seconds after its creation it may be a fallback, if its physical end is not
    /// earlier.
    pub(crate) kept_secs: u32,
    /// Kept out of L1.
    pub(crate) skip_l1: bool,
    /// Local only: it is not in L2 and not verified against it.
    pub(crate) local_only: bool,
    /// L1 does not evict it.
    pub(crate) pinned: bool,
}

impl EntryFlags {
    /// Default flags: not sliding, not pinned, not local only, never refreshed early.
    pub(crate) const PLAIN: Self = Self {
        slide: 0,
        due: NEVER,
        early: 0,
        kept_secs: TO_THE_END,
        skip_l1: false,
        local_only: false,
        pinned: false,
    };

    /// The flags of an entry that a call with these options stores or copies from L2.
    pub(crate) fn new(
        options: &EntryOptions,
        deadlines: Deadlines,
        took: Duration,
        local_only: bool,
    ) -> Self {
        let (due, early) = due(options, deadlines, took);
        Self {
            slide: if options.sliding { nanos(options.duration) } else { 0 },
            due,
            early,
            kept_secs: options.fail_safe.map_or(0, |f| whole_secs(f.max_duration)),
            skip_l1: options.skip_l1_write,
            local_only,
            pinned: options.pinned,
        }
    }

    /// Lets the entry be a fallback until its physical end.
    pub(crate) fn keep_to_the_end(&mut self) {
        self.kept_secs = TO_THE_END;
    }
}

/// Rounds up to whole seconds.
fn whole_secs(time: Duration) -> u32 {
    let secs = time.as_secs().saturating_add(u64::from(time.subsec_nanos() != 0));
    u32::try_from(secs).unwrap_or(TO_THE_END)
}

/// When a refresh may be due first, and by how much it is early on average.
fn due(options: &EntryOptions, deadlines: Deadlines, took: Duration) -> (u64, u64) {
    let end = deadlines.logical.as_nanos();
    match options.eager_refresh {
        None => (NEVER, 0),
        Some(EagerRefresh::After(fraction)) => {
            let ttl = deadlines.logical.since(deadlines.created);
            ((deadlines.created + ttl.mul_f64(fraction)).as_nanos(), 0)
        }
        Some(EagerRefresh::Probabilistic(beta)) => {
            let early = nanos(took.min(Duration::from_secs(86_400)).mul_f64(beta)).max(1);
            (end.saturating_sub(early.saturating_mul(EARLIEST)), early)
        }
    }
}

/// Whether a probabilistic refresh is due: `now - early * ln(u) >= end`, u uniform in (0, 1].
#[expect(clippy::cast_precision_loss, reason = "an estimate of nanoseconds")]
pub(crate) fn is_due_early(now: u64, early: u64, end: u64, draw: u64) -> bool {
    let uniform = (draw as f64 + 1.0) / (u64::MAX as f64 + 1.0);
    -uniform.ln() * early as f64 >= end.saturating_sub(now) as f64
}
