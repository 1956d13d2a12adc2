//! Records: one [`Slot`] per key, after the time at which it expires.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::try_join_all;

use super::{CasEntry, CasL2, CasStore, Stored};
use crinkle_core::l2::{L2Error, Read, Slot, record};
use crinkle_core::protocol::record::{Head, LoadLockRequest};

/// The TTL of the load lock that a `set` writes before its value, in milliseconds.
const CREATE_LOCK_MS: u64 = 10_000;

/// How long the marker of a released load lock is kept, in milliseconds.
const VOID_MS: u64 = 1_000;

impl<S: CasStore> CasL2<S> {
    /// Runs one operation on a key's slot, atomically.
    pub(crate) async fn update<R: Send>(
        &self,
        key: &str,
        lasting: bool,
        op: impl FnMut(&mut Slot, u64) -> R + Send,
    ) -> Result<R, L2Error> {
        let held = self.store.get(key).await?;
        self.update_from(held, key, lasting, op).await
    }

    /// As [`update`](Self::update), from a value that has been read already.
    pub(crate) async fn update_from<R: Send>(
        &self,
        mut held: Option<CasEntry<S::Token>>,
        key: &str,
        lasting: bool,
        mut op: impl FnMut(&mut Slot, u64) -> R + Send,
    ) -> Result<R, L2Error> {
        let mut tries = 0;
        loop {
            let (before, token) =
                held.map_or((Slot::default(), None), |held| (slot(&held.bytes), Some(held.token)));
            let (mut after, now) = (before.clone(), self.now_ms());
            let result = op(&mut after, now);
            if after == before {
                return Ok(result);
            }
            let lock_first = token.is_none() && self.guards() && !is_load_lock(&after);
            if lock_first {
                // Absence has no version, so the first write may only create a load lock. A delayed
                // create of a value would restore what was removed in the meantime.
                let load_lock = record::load_lock(self.entropy.version());
                after = Slot::new(load_lock, now.saturating_add(CREATE_LOCK_MS));
            }
            let stored = stored(after, now, lasting && !lock_first);
            if !self.store.swap(key, token, stored).await? {
                self.again(&mut tries).await?;
            } else if !lock_first {
                return Ok(result);
            }
            held = self.store.get(key).await?;
        }
    }

    pub(crate) async fn read_all(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        let keys: Vec<_> = asks.iter().map(|(key, _)| key.clone()).collect();
        let held = self.store.get_many(&keys).await?;
        let reads = asks.iter().zip(held).map(|((key, ask), held)| {
            self.update_from(held, key, false, |slot, now| slot.read(*ask, now))
        });
        try_join_all(reads).await
    }
}

fn is_load_lock(slot: &Slot) -> bool {
    let stored = slot.clone().into_stored();
    stored.is_none_or(|(bytes, _)| matches!(record::head(&bytes), Some(Head::LoadLock(_))))
}

/// Decodes a stored value: when it expires (ms on the store's clock, 8 bytes), then the record.
fn slot(bytes: &Bytes) -> Slot {
    match bytes.split_first_chunk() {
        Some((ends, _)) => Slot::new(bytes.slice(8..), u64::from_be_bytes(*ends)),
        None => Slot::new(Bytes::new(), 0),
    }
}

fn stored(slot: Slot, now_ms: u64, lasting: bool) -> Stored {
    let (record, ends_ms) = slot.into_stored().unwrap_or((Bytes::new(), 0));
    let mut bytes = BytesMut::with_capacity(8 + record.len());
    bytes.put_u64(ends_ms);
    bytes.put_slice(&record);
    let ttl_ms = ends_ms.saturating_sub(now_ms).max(VOID_MS);
    Stored { bytes: bytes.freeze(), ttl_ms, lasting }
}
