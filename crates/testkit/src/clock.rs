//! Clocks for tests. The one moved by hand is [`crinkle_core::ManualClock`].

use crinkle_core::{Clock, Moment};
use tokio::time::Instant;

/// A clock on Tokio's time: under `start_paused` it moves with the timers, and only with them.
///
/// ```
/// use std::time::Duration;
///
/// use crinkle_core::Clock;
/// use crinkle_testkit::clock::TokioClock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let clock = TokioClock::new();
/// let before = clock.now();
/// tokio::time::sleep(Duration::from_millis(5)).await;
/// assert!(clock.now().since(before) >= Duration::from_millis(5));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: Instant,
}

impl TokioClock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
