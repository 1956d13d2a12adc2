//! The locks and atomics of the code that is tested under many interleavings. That is the node and
//! its tags, the memo of an entry, flights, and the recovery queue.
//!
//! They are those of `std`, `parking_lot` and `dashmap`. The tests in `interleaved` are built with
//! `--cfg crinkle_shuttle`: then a scheduler decides at each lock and atomic which thread
//! continues.
//!
//! `shuttled` holds the locks and atomics of that scheduler.

#[cfg(crinkle_shuttle)]
mod shuttled;

#[cfg(not(crinkle_shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

#[cfg(not(crinkle_shuttle))]
pub(crate) use dashmap::{DashMap, mapref::entry::Entry};
#[cfg(not(crinkle_shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(crinkle_shuttle)]
pub(crate) use shuttled::*;

/// Whether a test puts this step out of order, to show that it notices. Always false outside of the
/// tests.
macro_rules! misordered {
    ($step:ident) => {
        cfg!(crinkle_shuttle) && $crate::sync::is_misordered($crate::sync::Step::$step)
    };
}

/// A step whose place in the order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The generation is bumped before the levels are raised.
    GenerationFirst,
    /// A verdict is not repeated if the seqlock has moved.
    SeqlockUnchecked,
    /// The memo holds the generation after the check.
    MemoLate,
    /// The result of a flight is stored after the key's lock is released.
    SettleUnlocked,
    /// The length of the recovery queue is stored after its lock is released.
    LengthUnlocked,
    /// A leader is put back even if a caller has joined meanwhile.
    PutBackBlindly,
    /// A hit extends a TTL even if the TTL was shortened meanwhile.
    SlideBlindly,
}

#[cfg(not(crinkle_shuttle))]
pub(crate) const fn is_misordered(_: Step) -> bool {
    false
}
