use std::time::Duration;

use super::{Compression, Eviction};
use crate::error::{Error, ErrorKind, Subject};

/// Configures a cache, as data: everything but its components (L2, backplane, codec, clock).
///
/// ```
/// use crinkle_core::{Cache, Settings};
/// use std::time::Duration;
///
/// let settings = Settings::default().max_lifetime(Duration::from_secs(3600));
/// let cache = Cache::builder("shop").settings(settings).build()?;
/// # Ok::<(), crinkle_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(crate) capacity: u64,
    pub(crate) capacity_in_bytes: bool,
    pub(crate) eviction: Eviction,
    pub(crate) max_lifetime: Duration,
    pub(crate) max_tags: usize,
    pub(crate) max_tag_len: usize,
    pub(crate) max_value_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) breaker_failures: u32,
    pub(crate) recovery_keys: usize,
    pub(crate) poll: Duration,
    pub(crate) coherence_ttl: Duration,
    pub(crate) load_lock_ttl: Duration,
    pub(crate) redact_keys: bool,
    pub(crate) ignore_incoming: bool,
    pub(crate) shadow_verify: u64,
    pub(crate) trace_hits: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 100_000,
            capacity_in_bytes: false,
            eviction: Eviction::S3Fifo,
            max_lifetime: Duration::from_secs(7 * 86_400),
            max_tags: 32,
            max_tag_len: 255,
            max_value_bytes: 16 << 20,
            compression: Compression::none(),
            breaker_failures: 5,
            recovery_keys: 10_000,
            poll: Duration::from_secs(1),
            coherence_ttl: Duration::from_secs(30),
            load_lock_ttl: Duration::from_secs(10),
            redact_keys: false,
            ignore_incoming: false,
            shadow_verify: 0,
            trace_hits: false,
        }
    }
}

impl Settings {
    /// The longest key, in bytes.
    pub(crate) const MAX_KEY_LEN: usize = 32 * 1024;

    /// Sets the capacity of L1 in units of `EntryOptions::weight`: with the default weight of 1,
    /// entries. L1 may have no room for an entry that weighs more than 1,024, because it is split
    /// into parts of at least that size. Default: 100,000.
    #[must_use]
    pub fn capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self.capacity_in_bytes = false;
        self
    }

    /// Sets the approximate capacity of L1 in bytes. An entry counts for its own size, its key and,
    /// where it goes through L2, its encoded value. Otherwise the heap memory of a value does not
    /// count. L1 may have no room for an entry of more than `max_value_bytes`. Replaces
    /// [`capacity`](Settings::capacity). Default: off.
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self.capacity_in_bytes = true;
        self
    }

    /// Sets which entries L1 evicts when it is full. Default: [`Eviction::S3Fifo`].
    #[must_use]
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Limits every TTL, fail-safe included. Barriers are kept longer, so that each outlives the
    /// entries that it hides. Default: 7 days.
    #[must_use]
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// Sets how many tags an entry may carry. Default: 32.
    #[must_use]
    pub fn max_tags(mut self, max_tags: usize) -> Self {
        self.max_tags = max_tags;
        self
    }

    /// Sets the maximum length of a tag, in bytes. Default: 255.
    #[must_use]
    pub fn max_tag_len(mut self, max_tag_len: usize) -> Self {
        self.max_tag_len = max_tag_len;
        self
    }

    /// Sets the maximum size of an encoded value before compression, in bytes; larger ones stay in
    /// L1. Default: 16 MiB.
    #[must_use]
    pub fn max_value_bytes(mut self, max_value_bytes: usize) -> Self {
        self.max_value_bytes = max_value_bytes;
        self
    }

    /// Sets how values are compressed for L2. Default: no compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets after how many failures in a row the circuit breaker of L2 opens. It closes when L2
    /// answers a poll. Default: 5.
    #[must_use]
    pub fn breaker_failures(mut self, failures: u32) -> Self {
        self.breaker_failures = failures;
        self
    }

    /// Sets how many keys the queue of unconfirmed invalidations for L2 may hold; more become a
    /// clear. Default: 10,000.
    #[must_use]
    pub fn recovery_keys(mut self, keys: usize) -> Self {
        self.recovery_keys = keys;
        self
    }

    /// Sets how often the cache polls the ledger and sends its heartbeat (P): 10 ms to a day.
    /// Default: 1 s.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets the coherence TTL (X): how long a node that is cut off from L2 or the backplane may
    /// serve L1 as fresh. At least 3 polls. Default: 30 s.
    #[must_use]
    pub fn coherence_ttl(mut self, ttl: Duration) -> Self {
        self.coherence_ttl = ttl;
        self
    }

    /// Sets the TTL of a load lock in L2 unless renewed: 100 ms to a day. Default: 10 s.
    #[must_use]
    pub fn load_lock_ttl(mut self, ttl: Duration) -> Self {
        self.load_lock_ttl = ttl;
        self
    }

    /// Omits keys and tags from errors, events, spans and logs. Default: off.
    #[must_use]
    pub fn redact_keys(mut self, on: bool) -> Self {
        self.redact_keys = on;
        self
    }

    /// Compares one of `one_in` L1 hits with L2, in the background, at most 64 per poll.
    /// [`Stats`](crate::Stats) counts the illegal ones: copies that L2 replaced longer ago than a
    /// notification may take. 0 turns it off. Default: 0.
    #[must_use]
    pub fn shadow_verify(mut self, one_in: u64) -> Self {
        self.shadow_verify = one_in;
        self
    }

    /// Ignores notifications from other nodes, but still sends them. This node learns of removals
    /// from the ledger. It learns of changed keys when it verifies them, or not before they expire.
    /// Default: off.
    #[must_use]
    pub fn ignore_incoming(mut self, on: bool) -> Self {
        self.ignore_incoming = on;
        self
    }

    /// Creates a `tracing` span for fresh answers from L1, too. Default: off, so that a hit has no
    /// extra cost.
    #[must_use]
    pub fn trace_hits(mut self, on: bool) -> Self {
        self.trace_hits = on;
        self
    }

    /// Returns how long barriers are kept: `max_lifetime`, the longest factory (a year at most),
    /// and a margin.
    pub(crate) fn retention(&self, factory_deadline: Duration) -> Duration {
        let factory = factory_deadline.min(Duration::from_secs(366 * 86_400));
        self.max_lifetime + factory + self.poll + Duration::from_secs(3600)
    }

    pub(crate) fn validate(&self, place: &Subject) -> Result<(), Error> {
        let (least, day) = (Duration::from_millis(10), Duration::from_secs(86_400));
        let problems = [
            (self.capacity == 0, "capacity is 0; it must be at least 1".to_owned()),
            (self.max_tags == 0 || self.max_tags > 1024, {
                format!("max_tags is {}; it must be 1 to 1024", self.max_tags)
            }),
            (self.max_tag_len == 0 || self.max_tag_len > 65_535, {
                format!("max_tag_len is {}; it must be 1 to 65535", self.max_tag_len)
            }),
            (self.max_value_bytes == 0 || self.max_value_bytes > 512 << 20, {
                format!("max_value_bytes is {}; it must be 1 to 512 MiB", self.max_value_bytes)
            }),
            (self.breaker_failures == 0, "breaker_failures is 0; it must be at least 1".to_owned()),
            (self.poll < least, format!("poll is {:?}; it must be at least 10ms", self.poll)),
            (self.poll > day, format!("poll is {:?}; it must be at most a day", self.poll)),
            (self.coherence_ttl < self.poll.saturating_mul(3), {
                let (ttl, poll) = (self.coherence_ttl, self.poll);
                format!("coherence_ttl is {ttl:?} and poll {poll:?}; it must be at least 3 polls")
            }),
            (self.load_lock_ttl < Duration::from_millis(100), {
                format!("load_lock_ttl is {:?}; it must be at least 100ms", self.load_lock_ttl)
            }),
            (
                self.load_lock_ttl > day,
                format!("load_lock_ttl is {:?}; it must be at most a day", self.load_lock_ttl),
            ),
            (self.max_lifetime < Duration::from_secs(1), {
                format!("max_lifetime is {:?}; it must be at least 1s", self.max_lifetime)
            }),
            (self.max_lifetime > Duration::from_secs(366 * 86_400), {
                format!("max_lifetime is {:?}; it must be at most 366 days", self.max_lifetime)
            }),
        ];
        match problems.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Error::new(ErrorKind::InvalidOptions, place.clone(), what)),
            None => Ok(()),
        }
    }
}
