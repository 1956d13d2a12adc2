use std::time::Duration;

use crate::error::{Error, ErrorKind, Place};

/// How one entry lives and how one call behaves. Plain data, cheap to clone.
///
/// ```
/// use crinkle_core::{EntryOptions, FailSafe};
/// use std::time::Duration;
///
/// let options = EntryOptions::new(Duration::from_secs(60))
///     .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
///     .factory_soft_timeout(Duration::from_millis(100));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EntryOptions {
    pub(crate) duration: Duration,
    pub(crate) fail_safe: Option<FailSafe>,
    pub(crate) factory_soft_timeout: Option<Duration>,
    pub(crate) factory_hard_timeout: Option<Duration>,
    pub(crate) factory_deadline: Duration,
    pub(crate) background_completion: bool,
    pub(crate) l2_soft_timeout: Duration,
    pub(crate) l2_hard_timeout: Duration,
    pub(crate) flight_timeout: Option<Duration>,
    pub(crate) lease: bool,
    pub(crate) lease_wait: Duration,
    pub(crate) allow_stale: bool,
    pub(crate) weight: u32,
    pub(crate) require_propagation: bool,
}

impl Default for EntryOptions {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl EntryOptions {
    /// Options with a logical life of `duration` and the defaults for everything else.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self {
            duration,
            fail_safe: None,
            factory_soft_timeout: None,
            factory_hard_timeout: None,
            factory_deadline: Duration::from_secs(300),
            background_completion: true,
            l2_soft_timeout: Duration::from_millis(250),
            l2_hard_timeout: Duration::from_secs(1),
            flight_timeout: None,
            lease: true,
            lease_wait: Duration::from_secs(2),
            allow_stale: false,
            weight: 1,
            require_propagation: false,
        }
    }

    /// How long the entry is fresh, in L1 and L2; at most the cache's `max_lifetime`, to which longer
    /// ones are clamped. Default: 30 s.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Keeps the entry after its life as a fallback for a factory that fails. Default: off.
    #[must_use]
    pub fn fail_safe(mut self, fail_safe: FailSafe) -> Self {
        self.fail_safe = Some(fail_safe);
        self
    }

    /// No fallback, whatever the cache's default says.
    #[must_use]
    pub fn no_fail_safe(mut self) -> Self {
        self.fail_safe = None;
        self
    }

    /// With a fallback at hand, answer with it after this long; the factory goes on.
    /// Default: none.
    #[must_use]
    pub fn factory_soft_timeout(mut self, timeout: Duration) -> Self {
        self.factory_soft_timeout = Some(timeout);
        self
    }

    /// Give up waiting for the factory after this long, even with nothing to answer.
    /// Default: none.
    #[must_use]
    pub fn factory_hard_timeout(mut self, timeout: Duration) -> Self {
        self.factory_hard_timeout = Some(timeout);
        self
    }

    /// No factory runs longer than this, in the background or not: it is dropped and the key is free
    /// again. Default: 5 min.
    #[must_use]
    pub fn factory_deadline(mut self, deadline: Duration) -> Self {
        self.factory_deadline = deadline;
        self
    }

    /// Whether a factory that timed out may finish and store its value. Default: on.
    #[must_use]
    pub fn background_completion(mut self, on: bool) -> Self {
        self.background_completion = on;
        self
    }

    /// How long an L2 read may keep a caller waiting who has a fallback. Default: 250 ms.
    #[must_use]
    pub fn l2_soft_timeout(mut self, timeout: Duration) -> Self {
        self.l2_soft_timeout = timeout;
        self
    }

    /// How long an L2 operation may keep a caller waiting. Default: 1 s.
    #[must_use]
    pub fn l2_hard_timeout(mut self, timeout: Duration) -> Self {
        self.l2_hard_timeout = timeout;
        self
    }

    /// How long to wait for another caller's load of the same key before answering stale, or failing
    /// with [`ErrorKind::LockTimeout`]; it never starts a second factory. Default: none.
    #[must_use]
    pub fn flight_timeout(mut self, timeout: Duration) -> Self {
        self.flight_timeout = Some(timeout);
        self
    }

    /// Whether one node loads a missing key while the others wait for it. Costs nothing: the lease is
    /// taken in the round trip of the miss. Default: on.
    #[must_use]
    pub fn lease(mut self, on: bool) -> Self {
        self.lease = on;
        self
    }

    /// How long to wait for another node's load before answering stale, else loading too.
    /// Default: 2 s.
    #[must_use]
    pub fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// Whether `get` may answer with a stale entry. Default: off.
    #[must_use]
    pub fn allow_stale(mut self, on: bool) -> Self {
        self.allow_stale = on;
        self
    }

    /// What the entry counts for in L1's capacity. Default: 1.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Makes a write that is not applied to L2 and announced an error instead of `Queued`.
    /// Default: off.
    #[must_use]
    pub fn require_propagation(mut self, on: bool) -> Self {
        self.require_propagation = on;
        self
    }

    /// Checks every field against its range.
    pub(crate) fn validate(&self, place: &Place) -> Result<(), Error> {
        let some = |t: Duration| (Duration::from_millis(1), t);
        let mut bounds = vec![
            ("duration", some(self.duration)),
            ("factory_deadline", some(self.factory_deadline)),
            ("l2_soft_timeout", some(self.l2_soft_timeout)),
            ("l2_hard_timeout", some(self.l2_hard_timeout)),
            ("lease_wait", (Duration::ZERO, self.lease_wait)),
        ];
        bounds.extend(self.factory_soft_timeout.map(|t| ("factory_soft_timeout", some(t))));
        bounds.extend(self.factory_hard_timeout.map(|t| ("factory_hard_timeout", some(t))));
        bounds.extend(self.flight_timeout.map(|t| ("flight_timeout", some(t))));
        bounds.extend(self.fail_safe.map(|f| ("fail_safe.max_duration", some(f.max_duration))));
        bounds.extend(self.fail_safe.map(|f| ("fail_safe.throttle", some(f.throttle))));
        for (name, (least, value)) in bounds {
            if value < least {
                let detail = format!("{name} is {value:?}; it must be at least {least:?}");
                return Err(Error::new(ErrorKind::InvalidOptions, place.clone(), detail));
            }
        }
        if self.weight == 0 {
            let detail = "weight is 0; it must be at least 1";
            return Err(Error::new(ErrorKind::InvalidOptions, place.clone(), detail));
        }
        Ok(())
    }
}

/// How a stale entry may stand in for a factory that fails, panics or takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailSafe {
    /// How long after its creation an entry may be used as a fallback. Default: 1 day.
    pub max_duration: Duration,
    /// How long the factory is left alone after a failure. Default: 30 s.
    pub throttle: Duration,
}

impl Default for FailSafe {
    fn default() -> Self {
        Self::for_up_to(Duration::from_secs(86_400))
    }
}

impl FailSafe {
    /// Fallbacks up to this age, with a throttle of 30 s.
    #[must_use]
    pub fn for_up_to(max_duration: Duration) -> Self {
        Self { max_duration, throttle: Duration::from_secs(30) }
    }

    /// How long the factory is left alone after a failure. Default: 30 s.
    #[must_use]
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }
}
