//! Time as the cache sees it: one monotonic clock per node, injected.
//!
//! No decision reads a wall clock. The system clock counts time spent in suspend where the platform
//! offers it (`CLOCK_BOOTTIME` on Linux), because a resumed machine must not think that its
//! coherence TTL still holds.

use std::fmt::Debug;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment on a [`Clock`], in nanoseconds since that clock's origin.
///
/// Moments of different clocks have nothing to do with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// A moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
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

/// A duration in whole nanoseconds, saturating (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A monotonic clock.
///
/// # Contract
///
/// `now` never goes back and never blocks. `recent` is read on every hit, so it should cost
/// nanoseconds; it is `now`, or a moment that is past by so little that nobody minds if an entry lives
/// longer by it (the system's clock: 10 ms).
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
    /// The current moment.
    fn now(&self) -> Moment;

    /// The current moment, or one shortly before.
    fn recent(&self) -> Moment {
        self.now()
    }
}

/// The system's monotonic clock; counts suspend on Linux and Android.
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

/// A moment that is right to a tick of the kernel, for a fifth of the price.
///
/// `CLOCK_MONOTONIC_COARSE` costs a few loads, but does not count suspend. So it only says whether there
/// was a tick since this thread has looked at `CLOCK_BOOTTIME`; what is answered is the boot time of
/// that look. A suspend cannot hide between two ticks: the kernel brings all its clocks forward when
/// it goes to sleep and when it wakes up, so that the coarse one is another afterwards.
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
        if tick == last { boot } else { look(tick) }
    }

    #[cold]
    fn look(tick: Moment) -> Moment {
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

/// A clock that moves only when told to, for tests. Clones share the same time through an `Arc`.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands one hour after its origin.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(3_600_000_000_000))
    }

    /// Moves the clock forward.
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
