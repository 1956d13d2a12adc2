use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads beyond this number share stripes.
const STRIPES: usize = 16;

/// The top bit of a count: whether each thing counted must be sampled. The add that counts also
/// reads it, at no further cost.
const WATCHED: u64 = 1 << 63;

/// A counter with a cache line for each thread. With a shared line, every hit would move the line
/// between processors.
#[derive(Debug, Default)]
pub(crate) struct Striped([Line; STRIPES]);

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

impl Striped {
    /// Adds one. The result says which one it was, and whether watching is on.
    #[inline]
    pub(crate) fn add(&self) -> Nth {
        // The thread-local is gone while a thread ends.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.0[stripe].0.fetch_add(1, Ordering::Relaxed).into()
    }

    /// Turns watching on: the caller of each `add` is to emit an event.
    pub(crate) fn watch(&self) {
        for line in &self.0 {
            line.0.fetch_or(WATCHED, Ordering::SeqCst);
        }
    }

    /// Turns watching off.
    pub(crate) fn unwatch(&self) {
        for line in &self.0 {
            line.0.fetch_and(!WATCHED, Ordering::SeqCst);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed) & !WATCHED).sum()
    }
}

/// The position of one count on its stripe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nth(u64);

impl From<u64> for Nth {
    #[inline]
    fn from(before: u64) -> Self {
        Self(before)
    }
}

impl Nth {
    /// Whether watching is on.
    #[inline]
    pub(crate) fn is_watched(self) -> bool {
        self.0 >= WATCHED
    }

    /// True for one in `n`. Multiples of the golden ratio are spread evenly, so no pattern of calls
    /// can bias the sample.
    #[inline]
    pub(crate) fn is_one_in(self, n: u64) -> bool {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let drawn = (self.0 & !WATCHED).wrapping_mul(GOLDEN);
        (u128::from(drawn) * u128::from(n)) >> 64 == 0
    }
}
