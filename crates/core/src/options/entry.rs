use std::time::Duration;

use super::{EagerRefresh, FailSafe};
use crate::error::{Error, ErrorKind, Subject};

/// The upper limit of `l2_hard_timeout`. A delayed `set` is stamped when it is called, but its TTL
/// starts when it runs, up to [`settles_after`](crate::l2::deadline::settles_after) later. This
/// delay, plus a margin for clocks, must fit the hour by which
/// [`retention`](super::Settings::retention) outlives an entry.
pub(crate) const LONGEST_HARD_TIMEOUT: Duration = Duration::from_secs(600);

/// The shortest TTL and timeout.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

/// The fields of [`EntryOptions`] with their defaults, and one setter each.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$ty:ty> = $default:expr;)*) => {
        /// Configures one entry (TTLs, fail-safe) and one call (timeouts, levels). Plain data,
        /// cheap to clone.
        ///
        /// ```
        /// use crinkle_core::{EntryOptions, FailSafe};
        /// use std::time::Duration;
        ///
        /// let options = EntryOptions::new(Duration::from_secs(60))
        ///     .jitter(Duration::from_secs(5))
        ///     .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
        ///     .factory_soft_timeout(Duration::from_millis(100));
        /// ```
        #[derive(Clone, Debug, PartialEq)]
        pub struct EntryOptions {
            $(pub(crate) $name: options!(@field $kind $ty),)*
        }

        impl Default for EntryOptions {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl EntryOptions {
            $(options!(@setter $kind $(#[$doc])* $name: $ty);)*
        }

        /// One option that a call chooses for itself.
        #[derive(Clone, Debug)]
        #[expect(non_camel_case_types, reason = "they are the names of the options")]
        pub(crate) enum Choice {
            /// All options.
            all(Box<EntryOptions>),
            $($name($ty),)*
        }

        impl Choice {
            pub(super) fn apply(&self, options: &mut EntryOptions) {
                match self {
                    Self::all(all) => options.clone_from(all),
                    $(Self::$name(value) => options.$name = (*value).into(),)*
                }
            }
        }
    };
    (@field Plain $ty:ty) => { $ty };
    (@field Maybe $ty:ty) => { Option<$ty> };
    (@setter Plain $(#[$doc:meta])* $name:ident: $ty:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $ty) -> Self {
            self.$name = $name;
            self
        }
    };
    (@setter Maybe $(#[$doc:meta])* $name:ident: $ty:ty) => {
        $(#[$doc])*
        #[doc = "`None` turns it off."]
        #[must_use]
        pub fn $name(mut self, $name: impl Into<Option<$ty>>) -> Self {
            self.$name = $name.into();
            self
        }
    };
}

options! {
    /// Sets how long the entry is fresh in L1 and L2 (its TTL). The cache clamps it to its
    /// `max_lifetime`. Default: 30 s.
    duration: Plain<Duration> = Duration::from_secs(30);

    /// Sets how long the entry is fresh in L1, if not `duration`. If the entry is also in L2, it is
    /// never fresh in L1 for longer than there. For a copy from L2, this is the maximum TTL in L1.
    /// Default: none.
    l1_duration: Maybe<Duration> = None;

    /// Sets how long the entry is fresh in L2, if not `duration`. Default: none.
    l2_duration: Maybe<Duration> = None;

    /// Adds a random time between zero and this value to the TTL, drawn once per entry. Entries
    /// stored together then do not expire together. Default: 0.
    jitter: Plain<Duration> = Duration::ZERO;

    /// Sets whether a hit in L1 renews the TTL of the entry, up to `max_lifetime` in total. L1
    /// only: the record in L2 keeps its own expiry. Default: off.
    sliding: Plain<bool> = false;

    /// Keeps the entry after it expires, as a fallback for a factory that fails. Default: off.
    fail_safe: Maybe<FailSafe> = None;

    /// Reloads the entry in the background before it expires, when a call reads it. Default: off.
    eager_refresh: Maybe<EagerRefresh> = None;

    /// Answers with a fallback after this long, while the factory continues. Has no effect without
    /// a fallback. Like all limits, it counts from the start of the call. Default: none.
    factory_soft_timeout: Maybe<Duration> = None;

    /// Stops waiting after this long, even without a fallback. It also limits the wait for L2 and
    /// for other loads. Default: none.
    factory_hard_timeout: Maybe<Duration> = None;

    /// Limits how long a factory may run, in the background or not. The cache then drops it, and
    /// the key can be loaded again. Default: 5 min.
    factory_deadline: Plain<Duration> = Duration::from_secs(300);

    /// Sets whether a factory that timed out may finish and store its value. If off, the cache
    /// stops the factory once no waiting caller has this option on. Default: on.
    background_completion: Plain<bool> = true;

    /// Stops the factory when no caller waits for it any more: every call that started or joined
    /// the load was dropped (a client that disconnected, a `timeout` around the call). If off, the
    /// load continues and its value is stored. A call that reached one of its own timeouts does not
    /// count as dropped: `background_completion` decides for it. An eager refresh is never stopped.
    /// Default: off.
    cancel_when_abandoned: Plain<bool> = false;

    /// Limits how long a caller with a fallback waits for an L2 read. Default: 250 ms.
    l2_soft_timeout: Plain<Duration> = Duration::from_millis(250);

    /// Limits how long a caller waits for an L2 operation. Default: 1 s.
    l2_hard_timeout: Plain<Duration> = Duration::from_secs(1);

    /// Limits how long a call waits for another caller's load of the same key. It then serves
    /// stale, or fails with [`ErrorKind::WaitTimeout`]; it never starts a second factory. Default:
    /// none.
    wait_timeout: Maybe<Duration> = None;

    /// Sets whether one node loads a missing key while the other nodes wait for it. Costs nothing:
    /// the round trip of the miss acquires the load lock. Default: on.
    load_lock: Plain<bool> = true;

    /// Limits how long the call waits for loads of other nodes, all of them together. It then
    /// serves stale, or loads as well. Default: 2 s.
    load_lock_wait: Plain<Duration> = Duration::from_secs(2);

    /// Sets whether `get` may return a stale entry. Default: off.
    allow_stale: Plain<bool> = false;

    /// Sets whether L1 keeps the entry until it expires, even when L1 is full. Pinned entries take
    /// at most a quarter of the capacity; those beyond that are kept like any other entry. Default:
    /// off.
    pinned: Plain<bool> = false;

    /// Sets how much of the capacity of L1 the entry takes. Default: 1.
    weight: Plain<u32> = 1;

    /// Makes a write fail, instead of returning `Queued`, if it is not applied to L2 and announced.
    /// Such a write waits for both. Default: off.
    require_propagation: Plain<bool> = false;

    /// Makes a read fail with [`ErrorKind::L2`] if it needs L2 and L2 does not answer, instead of
    /// continuing without L2. Default: off.
    require_l2: Plain<bool> = false;

    /// Runs L2 operations and notifications of a `set`, `remove` or `expire` in the background. The
    /// write is applied on this node when the call returns. A `get_or_set` answers its callers
    /// before L2 has the value. Default: off.
    background_l2: Plain<bool> = false;

    /// Confirms a write to other nodes in the background, where the confirmation is a separate
    /// step. (An L2 that announces as it writes leaves nothing to wait for.) Default: on.
    background_backplane: Plain<bool> = true;

    /// Checks a hit in L1 against L2 and the ledger first (S16). A fresh value is then one that L2
    /// held during the call. No node had replaced it, removed it by tag or cleared it before the
    /// call began.
    ///
    /// The check costs a round trip, and another one if this node has not received the newest
    /// removal. If L2 or the ledger does not answer, nothing in L1 is a hit. The same applies where
    /// only the ledger is shared, because the ledger knows nothing of keys. Default: off.
    strict: Plain<bool> = false;

    /// Does not read L1. Default: off.
    skip_l1_read: Plain<bool> = false;

    /// Stores nothing in L1, and removes an older copy from it. Default: off.
    skip_l1_write: Plain<bool> = false;

    /// Uses no value from L2. A load still reads the record, to replace exactly that one. L1
    /// entries that need verification with L2 count as missing. Default: off.
    skip_l2_read: Plain<bool> = false;

    /// Writes nothing to L2, so that other nodes are not affected either. The entry is local to
    /// this node: it is never verified with L2, so the bounds on staleness do not apply to it.
    ///
    /// A `remove` or `expire` takes effect on this node: it ignores the record in L2 until L2 holds
    /// a newer one. This option covers keys only. A removal by tag and a clear need the ledger, and
    /// are sent there all the same. Default: off.
    skip_l2_write: Plain<bool> = false;

    /// Uses no value from L2 while L1 holds a stale one. Default: off.
    skip_l2_read_when_stale: Plain<bool> = false;

    /// Sends no notification of a write to other nodes. They keep their copy until it expires, or
    /// until they verify it for another reason. The bounds on staleness do not apply. This option
    /// covers keys only, as [`skip_l2_write`](Self::skip_l2_write) does. Default: off.
    skip_backplane: Plain<bool> = false;
}

impl EntryOptions {
    /// Creates options with a TTL of `duration` and the defaults for everything else.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self::default().duration(duration)
    }

    /// Turns fail-safe off, whatever the cache's default is.
    #[must_use]
    pub fn no_fail_safe(self) -> Self {
        self.fail_safe(None)
    }

    /// Skips L2 for reads and writes: [`skip_l2_read`](Self::skip_l2_read) and
    /// [`skip_l2_write`](Self::skip_l2_write).
    #[must_use]
    pub fn skip_l2(self, on: bool) -> Self {
        self.skip_l2_read(on).skip_l2_write(on)
    }

    /// Skips L1 for reads and writes: [`skip_l1_read`](Self::skip_l1_read) and
    /// [`skip_l1_write`](Self::skip_l1_write).
    #[must_use]
    pub fn skip_l1(self, on: bool) -> Self {
        self.skip_l1_read(on).skip_l1_write(on)
    }

    /// Whether a fresh value of L1 does not suffice as an answer.
    pub(crate) fn passes_l1(&self) -> bool {
        self.skip_l1_read || self.strict
    }

    /// Checks every field against its range.
    pub(crate) fn validate(&self, place: &Subject) -> Result<(), Error> {
        let refuse = |detail| Err(Error::new(ErrorKind::InvalidOptions, place.clone(), detail));
        let times = [
            ("duration", Some(self.duration)),
            ("l1_duration", self.l1_duration),
            ("l2_duration", self.l2_duration),
            ("factory_deadline", Some(self.factory_deadline)),
            ("l2_soft_timeout", Some(self.l2_soft_timeout)),
            ("l2_hard_timeout", Some(self.l2_hard_timeout)),
            ("factory_soft_timeout", self.factory_soft_timeout),
            ("factory_hard_timeout", self.factory_hard_timeout),
            ("wait_timeout", self.wait_timeout),
            ("fail_safe.max_duration", self.fail_safe.map(|f| f.max_duration)),
        ];
        for (name, time) in times {
            if let Some(time) = time.filter(|time| *time < SHORTEST) {
                return refuse(format!("{name} is {time:?}; it must be at least {SHORTEST:?}"));
            }
        }
        if self.l2_hard_timeout > LONGEST_HARD_TIMEOUT {
            return refuse(format!(
                "l2_hard_timeout is {:?}; it must be at most {LONGEST_HARD_TIMEOUT:?}: the value of \
                 a set delayed for that long must expire before the removals that hide it",
                self.l2_hard_timeout
            ));
        }
        if self.weight == 0 {
            return refuse("weight is 0; it must be at least 1".to_owned());
        }
        match self.eager_refresh.and_then(EagerRefresh::problem) {
            Some(what) => refuse(what),
            None => Ok(()),
        }
    }
}
