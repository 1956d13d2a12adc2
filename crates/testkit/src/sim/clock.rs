//! The clock of one node or of one server.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crinkle_core::{Clock, Moment};
use tokio::time::Instant;

/// A clock with an offset, a drift and jumps.
#[derive(Debug)]
pub(super) struct SimClock {
    pub(super) origin: Instant,
    pub(super) offset: u64,
    pub(super) ppm: i64,
    pub(super) jumped: AtomicI64,
}

impl Clock for SimClock {
    fn now(&self) -> Moment {
        let elapsed = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let drift = i64::try_from(elapsed / 1_000_000).unwrap_or(0) * self.ppm;
        let jumped = self.jumped.load(Ordering::Relaxed);
        Moment::from_nanos((self.offset + elapsed).saturating_add_signed(drift + jumped))
    }
}

impl SimClock {
    /// Returns another clock that shows the same time.
    pub(super) fn fork(&self) -> Self {
        let (Self { origin, offset, ppm, .. }, now) = (self, self.jumped.load(Ordering::Relaxed));
        Self { origin: *origin, offset: *offset, ppm: *ppm, jumped: AtomicI64::new(now) }
    }

    pub(super) fn jump(&self, by: Duration) {
        self.step(i64::try_from(by.as_nanos()).unwrap_or(0));
    }

    /// Steps forward or back.
    pub(super) fn step(&self, by_ns: i64) {
        self.jumped.fetch_add(by_ns, Ordering::Relaxed);
    }
}
