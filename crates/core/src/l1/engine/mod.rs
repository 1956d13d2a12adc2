//! The evicting map: quick_cache or moka, by the configured policy.

#[cfg(feature = "moka")]
mod moka;
mod quick;

use std::sync::Arc;

#[cfg(feature = "moka")]
use self::moka::Moka;
use self::quick::Quick;
use crate::entry::ErasedEntry;
use crate::options::{Eviction, Settings};
use crate::protocol::KeyHash;
use crate::telemetry::Telemetry;

/// A bounded map. Both kinds are plain stores, without expiry, validity or single-flight.
pub(super) enum Engine {
    Quick(Quick),
    #[cfg(feature = "moka")]
    Moka(Moka),
}

/// Calls the same method on either engine.
macro_rules! on {
    ($self:expr, $engine:ident => $call:expr) => {
        match $self {
            Self::Quick($engine) => $call,
            #[cfg(feature = "moka")]
            Self::Moka($engine) => $call,
        }
    };
}

impl Engine {
    pub(super) fn new(settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        match settings.eviction {
            Eviction::S3Fifo => Self::Quick(Quick::new(settings, telemetry)),
            #[cfg(feature = "moka")]
            policy => Self::Moka(Moka::new(policy, settings, telemetry)),
        }
    }

    #[inline]
    pub(super) fn get(&self, hash: KeyHash) -> Option<ErasedEntry> {
        on!(self, engine => engine.get(hash))
    }

    pub(super) fn insert(&self, hash: KeyHash, erased: ErasedEntry) {
        on!(self, engine => engine.insert(hash, erased));
    }

    pub(super) fn remove(&self, hash: KeyHash) {
        on!(self, engine => engine.remove(hash));
    }

    pub(super) fn clear(&self) {
        on!(self, engine => engine.clear());
    }

    pub(super) fn all(&self) -> Vec<ErasedEntry> {
        on!(self, engine => engine.all())
    }

    /// Iterates over the entries that stay until the scan ends. It holds no lock between two steps.
    pub(super) fn scan(&self) -> Box<dyn Iterator<Item = (KeyHash, ErasedEntry)> + Send + '_> {
        on!(self, engine => Box::new(engine.scan()))
    }

    /// Frees removed entries, if the engine has deferred that. True if there may be more to do.
    pub(super) fn run_pending(&self) -> bool {
        match self {
            Self::Quick(_) => false,
            #[cfg(feature = "moka")]
            Self::Moka(engine) => engine.run_pending(),
        }
    }

    /// The number of entries, less exact but at no cost.
    pub(super) fn about_len(&self) -> u64 {
        on!(self, engine => engine.about_len())
    }

    /// The number of entries, after pending removals.
    pub(super) fn len(&self) -> u64 {
        on!(self, engine => engine.len())
    }
}
