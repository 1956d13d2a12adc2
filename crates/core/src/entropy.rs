//! Randomness, injected: versions, load lock ids, nonces, epochs.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::protocol::{Epoch, Nonce, PublisherId, Version};

/// A node's source of identities. Seeded by the operating system, or by a test.
#[derive(Debug)]
pub(crate) struct Entropy(Mutex<StdRng>);

impl Entropy {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64)))
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.nonzero())
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.nonzero())
    }

    pub(crate) fn nonce(&self) -> Nonce {
        Nonce(self.nonzero())
    }

    pub(crate) fn publisher(&self) -> PublisherId {
        PublisherId(self.0.lock().random())
    }

    /// A uniform number below `bound`, at least 1.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.lock().random_range(0..bound.max(1))
    }

    fn nonzero(&self) -> u64 {
        self.0.lock().random_range(1..=u64::MAX)
    }
}
