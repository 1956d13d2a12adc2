use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Leaves a failing L2 alone.
///
/// ```text
///          N outages in a row                a poll is answered
///  closed ───────────────────▶ open ─────────────────────────────▶ closed
///    ▲  any answer resets the count  │ calls fail at once, nobody waits
/// ```
///
/// The ledger poll is the probe: it goes out every P whatever the breaker says, so callers never
/// pay for finding out whether L2 is back.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    pub(crate) fn new(threshold: u32) -> Self {
        Self { threshold, failures: AtomicU32::new(0), open: AtomicBool::new(false) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The store answered, if only with a refusal. True if the breaker was open.
    pub(crate) fn answered(&self) -> bool {
        self.failures.store(0, Ordering::Release);
        self.open.swap(false, Ordering::AcqRel)
    }

    /// The store did not answer. True if this opened the breaker.
    pub(crate) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        failures >= self.threshold && !self.open.swap(true, Ordering::AcqRel)
    }
}
