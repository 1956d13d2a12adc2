//! The locks and atomics of what is tested under many interleavings: the node and its tags, the memo of
//! an entry, flights, and the recovery queue.
//!
//! They are those of `std`, `parking_lot` and `dashmap`, but under `--cfg crinkle_shuttle`, which the
//! tests in `interleaved` are built with: then a scheduler decides who goes on at each of them.

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

/// Whether this step is out of order, to show that the tests notice. Never, outside of them.
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
    /// A verdict is not made again if the seqlock has moved.
    SeqlockUnchecked,
    /// The memo is of the generation after the check.
    MemoLate,
    /// What a flight brought is stored after the key's lock is released.
    SettleUnlocked,
    /// The length of the recovery queue is told after its lock is released.
    LengthUnlocked,
    /// A leader is put back whoever has joined meanwhile.
    PutBackBlindly,
    /// A hit prolongs a life whatever has become of it meanwhile.
    SlideBlindly,
}

#[cfg(not(crinkle_shuttle))]
pub(crate) const fn is_misordered(_: Step) -> bool {
    false
}
