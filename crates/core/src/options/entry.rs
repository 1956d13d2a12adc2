use std::time::Duration;

use super::{EagerRefresh, FailSafe};
use crate::error::{Error, ErrorKind, Place};

/// A `set` that is stuck is stamped when it is called and begins its life when it runs, up to
/// [`settles_after`](crate::l2::deadline::settles_after) later. That has to fit the hour by which
/// [`retention`](super::Settings::retention) outlives an entry, beside a margin for clocks.
pub(crate) const LONGEST_HARD_TIMEOUT: Duration = Duration::from_secs(600);

/// The fields of [`EntryOptions`] with their defaults, and one setter each.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$ty:ty> = $default:expr;)*) => {
        /// How one entry lives and how one call behaves. Plain data, cheap to clone.
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

        /// What one call chooses for itself.
        #[derive(Clone, Debug)]
        #[expect(non_camel_case_types, reason = "they are the names of the options")]
        pub(crate) enum Choice {
            /// Everything.
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
        #[doc = "`None` takes it off again."]
        #[must_use]
        pub fn $name(mut self, $name: impl Into<Option<$ty>>) -> Self {
            self.$name = $name.into();
            self
        }
    };
}

options! {
    /// How long the entry is fresh, in L1 and L2; at most the cache's `max_lifetime`, to which longer
    /// ones are clamped. Default: 30 s.
    duration: Plain<Duration> = Duration::from_secs(30);

    /// How long it is fresh in L1, if not `duration`; never longer than in L2, where it is stored
    /// there. For a copy from L2: the most it may live here. Default: none.
    l1_duration: Maybe<Duration> = None;

    /// How long it is fresh in L2, if not `duration`. Default: none.
    l2_duration: Maybe<Duration> = None;

    /// Adds a random time between zero and this to the life, drawn once per entry, so that entries
    /// stored together do not expire together. Default: 0.
    jitter: Plain<Duration> = Duration::ZERO;

    /// Whether a hit in L1 gives the entry another `duration`, up to `max_lifetime` in all. L1 only:
    /// the record in L2 keeps its own end. Default: off.
    sliding: Plain<bool> = false;

    /// Keeps the entry after its life as a fallback for a factory that fails. Default: off.
    fail_safe: Maybe<FailSafe> = None;

    /// Loads the entry anew before its life is over, in the background, when it is asked for.
    /// Default: off.
    eager_refresh: Maybe<EagerRefresh> = None;

    /// With a fallback at hand, answer with it after this long; the factory goes on. Without one it is
    /// nothing. As all limits it counts from the start of the call. Default: none.
    factory_soft_timeout: Maybe<Duration> = None;

    /// Give up waiting after this long, for L2 and for other loads too, even with nothing to answer.
    /// Default: none.
    factory_hard_timeout: Maybe<Duration> = None;

    /// No factory runs longer than this, in the background or not: it is dropped and the key is free
    /// again. Default: 5 min.
    factory_deadline: Plain<Duration> = Duration::from_secs(300);

    /// Whether a factory that timed out may finish and store its value. Off, it is stopped once nobody
    /// waits for it whose options let it go on. Default: on.
    background_completion: Plain<bool> = true;

    /// Stops the factory when nobody waits for it any more: the call that started the load was dropped, and
    /// so were all that had joined it (a client that went away, a `timeout` around the call). Off, the load
    /// goes on and its value is stored. A call that has run into one of its own timeouts is not dropped:
    /// `background_completion` decides for it. An eager refresh is never stopped. Default: off.
    cancel_when_abandoned: Plain<bool> = false;

    /// How long an L2 read may keep a caller waiting who has a fallback. Default: 250 ms.
    l2_soft_timeout: Plain<Duration> = Duration::from_millis(250);

    /// How long an L2 operation may keep a caller waiting. Default: 1 s.
    l2_hard_timeout: Plain<Duration> = Duration::from_secs(1);

    /// How long to wait for another caller's load of the same key before answering stale, or failing
    /// with [`ErrorKind::WaitTimeout`]; it never starts a second factory. Default: none.
    wait_timeout: Maybe<Duration> = None;

    /// Whether one node loads a missing key while the others wait for it. Costs nothing: the load lock is
    /// taken in the round trip of the miss. Default: on.
    load_lock: Plain<bool> = true;

    /// How long the call waits for loads of other nodes, all of them together, before answering stale,
    /// else loading too. Default: 2 s.
    load_lock_wait: Plain<Duration> = Duration::from_secs(2);

    /// Whether `get` may answer with a stale entry. Default: off.
    allow_stale: Plain<bool> = false;

    /// Whether L1 keeps the entry, while it lives, however full it is. Pinned entries take at most a
    /// quarter of the capacity; what is over that is kept like any other. Default: off.
    pinned: Plain<bool> = false;

    /// What the entry counts for in L1's capacity. Default: 1.
    weight: Plain<u32> = 1;

    /// Makes a write that is not applied to L2 and announced an error instead of `Queued`; such a
    /// write waits for both. Default: off.
    require_propagation: Plain<bool> = false;

    /// Makes it an error ([`ErrorKind::L2`]) if a read needs L2 and L2 does not answer, instead of going
    /// on without it. Default: off.
    require_l2: Plain<bool> = false;

    /// Does not wait for L2 in a `set`, `remove` or `expire`, nor for the notification: the write
    /// holds on this node when the call returns, and goes on in the background. A `get_or_set`
    /// answers its callers before L2 has the value. Default: off.
    background_l2: Plain<bool> = false;

    /// Does not wait for the confirmation to other nodes, where it is a step of its own (an L2 that
    /// announces as it writes leaves nothing to wait for). Default: on.
    background_backplane: Plain<bool> = true;

    /// Has a hit in L1 checked against L2 and the ledger first: what is fresh is what L2 held during the
    /// call, and nothing that any node had replaced, removed by tag or cleared before it began (S16). It
    /// costs a round trip, and another if this node has not heard of the newest removal. Without an
    /// answer of L2, or of the ledger, nothing in L1 is a hit; nor where the ledger alone is shared, which knows nothing
    /// of keys. Default: off.
    strict: Plain<bool> = false;

    /// Does not look in L1. Default: off.
    skip_l1_read: Plain<bool> = false;

    /// Keeps nothing in L1; an older copy goes. Default: off.
    skip_l1_write: Plain<bool> = false;

    /// Uses no value of L2. A load still reads the record, to replace exactly that. Entries of L1
    /// that would need a check in L2 count as missing. Default: off.
    skip_l2_read: Plain<bool> = false;

    /// Leaves L2 as it is, and so the other nodes. The entry is this node's own: it is never checked
    /// against L2, so the bounds on staleness do not hold for it. A `remove` or `expire` holds on this node:
    /// what L2 held of the key then does not count here until L2 holds something newer. Of keys: a removal
    /// by tag and a clear are nothing without the ledger, and go there all the same. Default: off.
    skip_l2_write: Plain<bool> = false;

    /// Uses no value of L2 while there is a stale one in L1. Default: off.
    skip_l2_read_when_stale: Plain<bool> = false;

    /// Tells the other nodes nothing of a write: they keep what they have until it ends, or until
    /// they check it for another reason. The bounds on staleness do not hold. Of keys, as
    /// [`skip_l2_write`](Self::skip_l2_write). Default: off.
    skip_backplane: Plain<bool> = false;
}

impl EntryOptions {
    /// Options with a logical life of `duration` and the defaults for everything else.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self::default().duration(duration)
    }

    /// No fallback, whatever the cache's default says.
    #[must_use]
    pub fn no_fail_safe(self) -> Self {
        self.fail_safe(None)
    }

    /// Leaves L2 out altogether: [`skip_l2_read`](Self::skip_l2_read) and
    /// [`skip_l2_write`](Self::skip_l2_write).
    #[must_use]
    pub fn skip_l2(self, on: bool) -> Self {
        self.skip_l2_read(on).skip_l2_write(on)
    }

    /// Leaves L1 out altogether: [`skip_l1_read`](Self::skip_l1_read) and
    /// [`skip_l1_write`](Self::skip_l1_write).
    #[must_use]
    pub fn skip_l1(self, on: bool) -> Self {
        self.skip_l1_read(on).skip_l1_write(on)
    }

    /// Whether a fresh value of L1 is not an answer by itself.
    pub(crate) fn passes_l1(&self) -> bool {
        self.skip_l1_read || self.strict
    }

    /// Checks every field against its range.
    pub(crate) fn validate(&self, place: &Place) -> Result<(), Error> {
        let refuse = |detail| Err(Error::new(ErrorKind::InvalidOptions, place.clone(), detail));
        let least = Duration::from_millis(1);
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
            ("fail_safe.throttle", self.fail_safe.map(|f| f.throttle)),
        ];
        for (name, time) in times {
            if let Some(time) = time.filter(|time| *time < least) {
                return refuse(format!("{name} is {time:?}; it must be at least {least:?}"));
            }
        }
        if self.l2_hard_timeout > LONGEST_HARD_TIMEOUT {
            return refuse(format!(
                "l2_hard_timeout is {:?}; it must be at most {LONGEST_HARD_TIMEOUT:?}: what a set stores \
                 that was on its way for so long must end before the removals that hide it do",
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
