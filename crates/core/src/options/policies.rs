use std::time::Duration;

/// Configures fail-safe: serve a stale entry when the factory fails, panics or takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailSafe {
    /// How long after its creation an entry may serve as a fallback. Default: 1 day.
    pub max_duration: Duration,
    /// Sets how long no new factory runs for the key after a failure. Default: 30 s.
    pub throttle: Duration,
}

impl Default for FailSafe {
    fn default() -> Self {
        Self::for_up_to(Duration::from_secs(86_400))
    }
}

impl FailSafe {
    /// Allows fallbacks up to this age, with a throttle of 30 s.
    #[must_use]
    pub fn for_up_to(max_duration: Duration) -> Self {
        Self { max_duration, throttle: Duration::from_secs(30) }
    }

    /// How long no new factory runs for the key after a failure. Default: 30 s.
    #[must_use]
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }
}

/// Configures eager refresh: reload an entry in the background while it is still fresh.
///
/// The caller that finds the refresh due gets its answer at once, and one refresh runs in the
/// background. The refresh first reads L2, where another node may have stored a newer value. It
/// takes the refresh lock there, so that one node refreshes. After a failed refresh, none starts
/// for the throttle of fail-safe (30 s without fail-safe).
///
/// ```
/// use crinkle_core::{EagerRefresh, EntryOptions};
/// use std::time::Duration;
///
/// // From second 48 on, the first call starts a refresh.
/// let steady = EntryOptions::new(Duration::from_secs(60)).eager_refresh(EagerRefresh::after(0.8));
/// // The slower the factory, the earlier the refresh; callers refresh at different times.
/// let spread = steady.eager_refresh(EagerRefresh::probabilistic(1.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EagerRefresh {
    /// After this fraction of the TTL, between 0 and 1.
    After(f64),
    /// With a probability that grows towards the end of the TTL, the earlier the longer the factory
    /// took. Larger numbers refresh earlier; 1 is optimal. XFetch: Vattani, Chierichetti and
    /// Lowenstein, *Optimal Probabilistic Cache Stampede Prevention*, VLDB 2015.
    Probabilistic(f64),
}

impl EagerRefresh {
    /// Refreshes with the first hit after this fraction of the TTL: above 0, below 1.
    #[must_use]
    pub fn after(fraction: f64) -> Self {
        Self::After(fraction)
    }

    /// Refreshes at a random time before expiry (`XFetch`), so that callers do not all reload at
    /// once. `beta`: above 0, at most 1000.
    #[must_use]
    pub fn probabilistic(beta: f64) -> Self {
        Self::Probabilistic(beta)
    }

    /// Describes what is wrong with the value, if anything.
    pub(super) fn problem(self) -> Option<String> {
        match self {
            Self::After(fraction) if !(fraction > 0.0 && fraction < 1.0) => Some(format!(
                "eager_refresh is after {fraction} of the TTL; it must be between 0 and 1"
            )),
            Self::Probabilistic(beta) if !(beta > 0.0 && beta <= 1000.0) => Some(format!(
                "eager_refresh is probabilistic with beta {beta}; it must be above 0 and at most 1000"
            )),
            _ => None,
        }
    }
}

/// Selects which entries L1 evicts when it is full.
///
/// ```
/// use crinkle_core::{Cache, Eviction};
///
/// # #[cfg(feature = "moka")]
/// let cache = Cache::builder("shop").eviction(Eviction::Lru).build()?;
/// # Ok::<(), crinkle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// Evicts entries that were not re-read soon after insertion, then the least recently read. A
    /// scan over many keys evicts no hot ones. The fastest policy, and the default. Implemented by
    /// quick_cache.
    ///
    /// Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache eviction" (SOSP
    /// 2023).
    #[default]
    S3Fifo,
    /// Evicts the least recently read entry. Implemented by moka, with the feature `moka`.
    #[cfg(feature = "moka")]
    Lru,
    /// Evicts the least frequently read entry, even if it is new: once hot entries fill L1, it does
    /// not keep most new ones. Implemented by moka, with the feature `moka`.
    ///
    /// Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (2017).
    #[cfg(feature = "moka")]
    TinyLfu,
}
