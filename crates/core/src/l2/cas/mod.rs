//! A whole L2 over a store that can compare and swap one value.

mod ledger;
mod pieces;
mod records;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, L2, L2Error, L2ErrorKind, Read, Record,
};
use crate::entropy::Entropy;
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};

/// How often in a row others may be faster before a call gives up.
const TRIES: u32 = 16;

/// How many barriers a ledger keeps exactly, unless told otherwise.
const MAX_BARRIERS: usize = 200_000;

/// A store with `get` and compare-and-swap: memcached, a table of an SQL database, an embedded
/// store. [`CasL2`] makes an [`L2`] of it that loses nothing.
///
/// # Contract
///
/// - [`swap`](CasStore::swap) is atomic on its key. A token that was read before the key changed or was
///   deleted never fits again, **even if the key is deleted and made anew with the same bytes**: take
///   tokens from one counter of the whole store, or at random, not from a counter per key.
/// - A reader sees the last swap that was answered (no stale replica).
/// - Values of 64 KiB must fit: the ledger is kept in pieces no larger than that. Records are as large
///   as the cache's values; one that does not fit is an error, and the value stays in L1.
/// - Keys are arbitrary UTF-8 up to some 33 KiB; hash what does not fit.
/// - A value may be dropped at any time (eviction). A lost record is a miss; of a lost piece of the
///   ledger it is known up to which number it went, and everything stamped before that is hidden.
///
/// # Time
///
/// [`now_us`](CasStore::now_us) should be the store's own clock, so that all nodes mean the same by
/// it. Lifetimes of records and load locks are counted on it, and numbers of removals are taken from it.
/// No removal depends on it: numbers rise and versions are compared whatever it says. If it
/// jumps back by more than 5 minutes, the ledger begins a new epoch: everything is loaded again.
///
/// # Cancel safety
///
/// A call that is dropped may have happened or not. A swap that arrives late finds that its token
/// does not fit any more, which is why creating a value needs two of them (a load lock first).
#[async_trait]
pub trait CasStore: Debug + Send + Sync + 'static {
    /// What identifies one state of one key.
    type Token: Send + Sync;

    /// Microseconds on the store's clock, as of the last call that was answered or later.
    fn now_us(&self) -> u64;

    /// What is under a key; `None` if nothing is there.
    async fn get(&self, key: &str) -> Result<Option<CasEntry<Self::Token>>, L2Error>;

    /// [`get`](CasStore::get) for several keys, in the order asked. Default: one after the other.
    async fn get_many(
        &self,
        keys: &[String],
    ) -> Result<Vec<Option<CasEntry<Self::Token>>>, L2Error> {
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            all.push(self.get(key).await?);
        }
        Ok(all)
    }

    /// Replaces what `seen` was read with; with `None`, creates what is not there. False if the key
    /// is in another state.
    async fn swap(
        &self,
        key: &str,
        seen: Option<Self::Token>,
        value: Stored,
    ) -> Result<bool, L2Error>;

    /// Deletes whatever is there.
    async fn delete(&self, key: &str) -> Result<(), L2Error>;
}

/// What a [`CasStore`] holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct CasEntry<T> {
    /// The value.
    pub bytes: Bytes,
    /// Its state.
    pub token: T,
}

/// What a store is to hold under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Stored {
    /// The value.
    pub bytes: Bytes,
    /// After this many milliseconds the store may forget it. The bytes say when they end, so that it
    /// may come late and by whole seconds.
    pub ttl_ms: u64,
    /// Whether it must outlive a crash of the store, where the store has a choice: true for what a
    /// caller wrote and for the ledger, false for loads and load locks.
    pub lasting: bool,
}

/// An [`L2`] over a [`CasStore`]. Nothing is lost: every change is a compare-and-swap, repeated, with
/// jitter, while others are faster.
///
/// | operation | round trips, undisturbed |
/// |---|---|
/// | read of a value, `remove` | 1 |
/// | a miss that leaves a load lock, fill, `expire`, `set` over something | 2 |
/// | `set` where nothing is | 4: a load lock first, since absence never authorises a write |
/// | removal by tag, clear | 2, of the ledger's root (up to some 50 KB) |
/// | poll | 1, of the ledger's root |
///
/// The ledger's newest 1,024 barriers are in its root; older ones are in pieces that the root names, and
/// that are read by nodes that come up. It keeps up to 200,000 barriers exactly (see
/// [`with_barriers`](CasL2::with_barriers)); the oldest beyond that fold into registers by hash, and a
/// piece that the store has lost folds into a floor: both hide more, never less. A lost root is another epoch: everything
/// stamped before is invalid, and every node notices with its next poll.
///
/// ```
/// use crinkle_core::Cache;
/// use crinkle_core::l2::{CasL2, CasStore};
///
/// # async fn example(store: impl CasStore) -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").l2(CasL2::new(store)).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CasL2<S> {
    store: S,
    entropy: Entropy,
    barriers: usize,
    atomicity: Atomicity,
    /// CasEntry while this process changes a ledger: it need not race with itself.
    changing: Mutex<()>,
}

impl<S: CasStore> CasL2<S> {
    /// An L2 over this store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::assemble(store, Atomicity::CompareAndSwap)
    }

    pub(super) fn assemble(store: S, atomicity: Atomicity) -> Self {
        let (entropy, changing) = (Entropy::new(None), Mutex::default());
        Self { store, entropy, barriers: MAX_BARRIERS, atomicity, changing }
    }

    /// How many barriers the ledger keeps exactly at most; when there are more, a quarter of it folds.
    /// Default: 200,000, which is some 5 MB in the store.
    #[must_use]
    pub fn with_barriers(mut self, barriers: usize) -> Self {
        self.barriers = barriers;
        self
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    fn now_ms(&self) -> u64 {
        self.store.now_us() / 1000
    }

    /// Whether the store compares before it swaps.
    fn guards(&self) -> bool {
        self.atomicity != Atomicity::Plain
    }

    /// Others were faster: waits for up to 1, 2, 4, .. 64 ms, or gives up.
    async fn again(&self, tries: &mut u32) -> Result<(), L2Error> {
        *tries += 1;
        if *tries >= TRIES {
            let what = format!(
                "others changed it {TRIES} times while this call tried to; nothing was written"
            );
            return Err(L2Error::new(L2ErrorKind::Other, what));
        }
        let most = 1000_u64 << (*tries - 1).min(6);
        sleep(Duration::from_micros(self.entropy.below(most))).await;
        Ok(())
    }
}

#[async_trait]
impl<S: CasStore> L2 for CasL2<S> {
    fn bus(&self) -> Option<BusId> {
        None
    }

    fn atomicity(&self) -> Atomicity {
        self.atomicity
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        let held = self.store.get(key).await?;
        self.update_from(held, key, false, |slot, now| slot.read(ask, now)).await
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        self.read_all(asks).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        _: Option<Announce>,
    ) -> Result<Put, L2Error> {
        self.update(key, false, |slot, now| slot.put(expected, record.clone(), now)).await
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        _: Option<Announce>,
    ) -> Result<(), L2Error> {
        let stored = self.update(key, true, |slot, now| {
            // What is stuck from here on finds that its token does not fit any more.
            let late = deadline.as_ref().is_some_and(Deadline::is_over);
            if late {
                slot.remove()
            } else {
                slot.set(record.clone(), now)
            }
            !late
        });
        if stored.await? { Ok(()) } else { Err(L2Error::late()) }
    }

    async fn remove(&self, key: &str, _: Option<Announce>) -> Result<(), L2Error> {
        self.store.delete(key).await
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        _: Option<Announce>,
    ) -> Result<(), L2Error> {
        self.update(key, true, |slot, now| slot.expire(version, now)).await
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.update(key, false, |slot, now| slot.release(load_lock, now)).await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        self.update(key, false, |slot, now| slot.renew(load_lock, ttl_ms, now)).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        _: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        self.number(ledger, ask).await
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        self.compare(ledger, ask).await
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.issued(ledger, epoch).await
    }
}
