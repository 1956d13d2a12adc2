//! The cache's notion of time: one injected monotonic clock per node.
//!
//! No decision reads a wall clock. The system clock counts time in suspend where the platform
//! offers it (`CLOCK_BOOTTIME` on Linux): a resumed machine must not rely on an expired coherence
//! TTL.

use std::fmt::Debug;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point in time on a [`Clock`], in nanoseconds since that clock's origin.
///
/// Moments of different clocks are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Creates the moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

/// Converts a duration to whole nanoseconds, saturating (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Converts a duration to whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A monotonic clock, the cache's only source of time.
///
/// # Contract
///
/// `now` never goes back and never blocks. Every hit reads `recent`, so it should cost nanoseconds.
/// It returns `now` or a slightly earlier moment; an entry may stay fresh longer by the difference
/// (10 ms with the system clock).
///
/// ```
/// use crinkle_core::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current moment.
    fn now(&self) -> Moment;

    /// Returns the current moment, or one shortly before.
    fn recent(&self) -> Moment {
        self.now()
    }
}

/// The system's monotonic clock, the default. It counts suspend on Linux and Android.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn now(&self) -> Moment {
        ticks::read(rustix::time::ClockId::Boottime)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[inline]
    fn recent(&self) -> Moment {
        ticks::recent()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Moment {
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Moment(nanos(ORIGIN.get_or_init(std::time::Instant::now).elapsed()))
    }
}

/// The moment with the precision of a kernel tick, for a fifth of the cost.
///
/// `CLOCK_MONOTONIC_COARSE` costs a few loads, but does not count suspend. It therefore only shows
/// whether a tick passed since this thread last read `CLOCK_BOOTTIME`. The result is that boot
/// time. No suspend fits between two ticks: the kernel advances all its clocks when it suspends and
/// when it resumes, so the coarse clock differs afterwards.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod ticks {
    use std::cell::Cell;

    use rustix::time::{ClockId, clock_gettime};

    use super::Moment;

    thread_local! {
        /// A tick, and the boot time when it was first seen.
        static LAST: Cell<(Moment, Moment)> = const { Cell::new((Moment(0), Moment(0))) };
    }

    #[inline]
    pub(super) fn recent() -> Moment {
        let tick = read(ClockId::MonotonicCoarse);
        let (last, boot) = LAST.get();
        if tick == last { boot } else { reread(tick) }
    }

    #[cold]
    fn reread(tick: Moment) -> Moment {
        let boot = read(ClockId::Boottime);
        LAST.set((tick, boot));
        boot
    }

    #[inline]
    pub(super) fn read(clock: ClockId) -> Moment {
        let time = clock_gettime(clock);
        let secs = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Moment(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

/// A clock for tests that moves only when [`advance`](Self::advance) is called. Share it through an
/// `Arc`.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Creates a clock at one hour after its origin.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(3_600_000_000_000))
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(nanos(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::SeqCst))
    }
}

impl<T: Clock + ?Sized> Clock for std::sync::Arc<T> {
    fn now(&self) -> Moment {
        (**self).now()
    }

    fn recent(&self) -> Moment {
        (**self).recent()
    }
}
