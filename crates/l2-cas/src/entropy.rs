use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crinkle_core::protocol::Version;

/// Generates versions and names of pieces, under a seed of the operating system.
#[derive(Debug)]
pub(crate) struct Entropy(Mutex<StdRng>);

impl Entropy {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.0.lock().random_range(1..=u64::MAX))
    }

    /// Returns a uniform number below `bound`, which counts as 1 if it is 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.lock().random_range(0..bound.max(1))
    }
}
