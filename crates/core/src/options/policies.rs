use std::time::Duration;

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

/// When an entry that is still fresh is loaded anew.
///
/// The caller that finds it due has its answer at once; one refresh runs in the background. It asks
/// L2 first, where another node may have stored a newer value, and takes the refresh lock there, so
/// that one node refreshes. One that fails is not tried again for the throttle of fail-safe (30 s
/// without).
///
/// ```
/// use crinkle_core::{EagerRefresh, EntryOptions};
/// use std::time::Duration;
///
/// // From second 48 on, whoever asks first has it loaded anew.
/// let steady = EntryOptions::new(Duration::from_secs(60)).eager_refresh(EagerRefresh::after(0.8));
/// // The slower the factory, the earlier; different callers at different times.
/// let spread = steady.eager_refresh(EagerRefresh::probabilistic(1.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EagerRefresh {
    /// After this fraction of its life, between 0 and 1.
    After(f64),
    /// With a probability that grows towards the end of its life, the earlier the longer its factory
    /// took; larger numbers are earlier, 1 is optimal. XFetch: Vattani, Chierichetti and Lowenstein,
    /// *Optimal Probabilistic Cache Stampede Prevention*, VLDB 2015.
    Probabilistic(f64),
}

impl EagerRefresh {
    /// Due after this fraction of the life: above 0, below 1.
    #[must_use]
    pub fn after(fraction: f64) -> Self {
        Self::After(fraction)
    }

    /// `XFetch` with this beta: above 0, at most 1000.
    #[must_use]
    pub fn probabilistic(beta: f64) -> Self {
        Self::Probabilistic(beta)
    }

    /// What is wrong with it, if anything.
    pub(super) fn problem(self) -> Option<String> {
        match self {
            Self::After(fraction) if !(fraction > 0.0 && fraction < 1.0) => Some(format!(
                "eager_refresh is after {fraction} of the life; it must be between 0 and 1"
            )),
            Self::Probabilistic(beta) if !(beta > 0.0 && beta <= 1000.0) => Some(format!(
                "eager_refresh is probabilistic with beta {beta}; it must be above 0 and at most 1000"
            )),
            _ => None,
        }
    }
}

/// Which entries L1 lets go when it is full.
///
/// ```
/// use crinkle_core::{Cache, Eviction};
///
/// let cache = Cache::builder("shop").eviction(Eviction::Lru).build()?;
/// # Ok::<(), crinkle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// What was not read again soon after it came, and of the rest what has not been read for long. A scan
    /// over many keys costs the hot ones nothing. The fastest, and the default. In quick_cache.
    ///
    /// Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache eviction" (SOSP 2023).
    #[default]
    S3Fifo,
    /// What has not been read for longest. In moka.
    Lru,
    /// What is read most seldom, even if it is new: once L1 is full of hot entries, most new ones are
    /// not kept at all. In moka.
    ///
    /// Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (2017).
    TinyLfu,
}
