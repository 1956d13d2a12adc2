//! Injected randomness for versions, load lock ids, nonces and epochs.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::protocol::{Epoch, Nonce, PublisherId, Version};

/// Generates the random identities of a node. The operating system or a test provides the seed.
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

    /// Returns a uniform number below `bound`, which counts as 1 if it is 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.lock().random_range(0..bound.max(1))
    }

    fn nonzero(&self) -> u64 {
        self.0.lock().random_range(1..=u64::MAX)
    }
}
