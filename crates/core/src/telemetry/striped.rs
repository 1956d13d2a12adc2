use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads beyond this many share.
const STRIPES: usize = 16;

/// The top bit of a count: whether somebody wants to see each thing counted. The add that counts says
/// so, and costs nothing more.
const WATCHED: u64 = 1 << 63;

/// A counter that each thread adds to on a line of memory of its own: what all threads write at
/// every hit would travel between their processors at every hit.
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
    /// Counts.
    #[inline]
    pub(crate) fn add(&self) -> Nth {
        // A thread that is ending has no stripe any more.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.0[stripe].0.fetch_add(1, Ordering::Relaxed).into()
    }

    /// From now on everything counted is looked at.
    pub(crate) fn watch(&self) {
        for line in &self.0 {
            line.0.fetch_or(WATCHED, Ordering::SeqCst);
        }
    }

    /// Nothing counted needs to be looked at any more.
    pub(crate) fn unwatch(&self) {
        for line in &self.0 {
            line.0.fetch_and(!WATCHED, Ordering::SeqCst);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed) & !WATCHED).sum()
    }
}

/// Which of the things counted by its thread one was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nth(u64);

impl From<u64> for Nth {
    #[inline]
    fn from(before: u64) -> Self {
        Self(before)
    }
}

impl Nth {
    /// Whether somebody wants to see each of them.
    #[inline]
    pub(crate) fn is_watched(self) -> bool {
        self.0 >= WATCHED
    }

    /// True for one in `n`, in an order that no pattern of calls keeps step with: multiples of the
    /// golden ratio are spread evenly, whichever are picked.
    #[inline]
    pub(crate) fn is_one_in(self, n: u64) -> bool {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let drawn = (self.0 & !WATCHED).wrapping_mul(GOLDEN);
        (u128::from(drawn) * u128::from(n)) >> 64 == 0
    }
}
