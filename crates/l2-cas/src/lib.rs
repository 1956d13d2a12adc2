//! An L2 over a store that can compare and swap one value.

mod entropy;
mod ledger;
mod pieces;
mod plain;
mod records;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, L2, L2Error, L2ErrorKind, Read, Record,
};
pub use plain::{PlainL2, PlainStore};

use crinkle_core::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crinkle_core::protocol::record::{LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Version};
use entropy::Entropy;

/// How many swaps in a row may fail before a call returns an error.
const TRIES: u32 = 16;

/// How many barriers a ledger keeps exactly by default.
const MAX_BARRIERS: usize = 200_000;

/// A store with `get` and compare-and-swap: memcached, a table of an SQL database, an embedded
/// store. [`CasL2`] makes an [`L2`] of it with the full guarantees.
///
/// # Contract
///
/// - [`swap`](CasStore::swap) is atomic on its key. A token from before a change or a deletion
///   never matches again, **even if the key is created with the same bytes**. Take tokens from one
///   counter of the whole store, or at random, not from a counter per key.
/// - A reader sees the last swap that was acknowledged (no stale replica).
/// - Values of 64 KiB must fit: the ledger is kept in pieces no larger than that. Records are as
///   large as the cache's values. A record that does not fit is an error, and the value stays in
///   L1.
/// - Keys are arbitrary UTF-8 up to about 33 KiB; hash keys that do not fit.
/// - The store may drop a value at any time (eviction). A lost record is a miss. For a lost piece
///   of the ledger, the root still has its highest number, and everything stamped before that is
///   hidden.
///
/// # Time
///
/// [`now_us`](CasStore::now_us) should be the store's own clock, so that all nodes agree on it. The
/// TTLs of records and load locks use it, and removals take their numbers from it. No removal
/// depends on it: numbers rise, and versions are compared, whatever it shows. If it jumps back by
/// more than 5 minutes, the ledger begins a new epoch, and everything is loaded again.
///
/// # Cancel safety
///
/// A call that is dropped may still take effect. The token of a delayed swap no longer matches. For
/// that reason creating a value needs two swaps (a load lock first).
#[async_trait]
pub trait CasStore: Debug + Send + Sync + 'static {
    /// Identifies one state of one key.
    type Token: Send + Sync;

    /// Microseconds on the store's clock, not earlier than the last call that was answered.
    fn now_us(&self) -> u64;

    /// The value under a key; `None` if there is none.
    async fn get(&self, key: &str) -> Result<Option<CasEntry<Self::Token>>, L2Error>;

    /// [`get`](CasStore::get) for several keys, in the order of `keys`. Default: one after the
    /// other.
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

    /// Replaces the value that was read with `seen`; with `None`, creates a value. False if the key
    /// is in another state.
    async fn swap(
        &self,
        key: &str,
        seen: Option<Self::Token>,
        value: Stored,
    ) -> Result<bool, L2Error>;

    /// Deletes the value, if any.
    async fn delete(&self, key: &str) -> Result<(), L2Error>;
}

/// A value in a [`CasStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct CasEntry<T> {
    /// The value.
    pub bytes: Bytes,
    /// Identifies its state.
    pub token: T,
}

/// A value for a store to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Stored {
    /// The value.
    pub bytes: Bytes,
    /// The store may drop the value after this many milliseconds. The bytes contain their own
    /// expiry, so the drop may be late, and rounded to whole seconds.
    pub ttl_ms: u64,
    /// Whether it must survive a crash of the store, if the store has a choice. True for
    /// a caller's writes and the ledger, false for loads and load locks.
    pub lasting: bool,
}

/// An [`L2`] over a [`CasStore`], with the full guarantees. Every change is a compare-and-swap,
/// retried with jitter if another caller was faster.
///
/// | operation | round trips without contention |
/// |---|---|
/// | read of a value, `remove` | 1 |
/// | a miss that sets a load lock, fill, `expire`, `set` over a value | 2 |
/// | `set` without a value there | 4: a load lock first, since absence never authorises a write |
/// | removal by tag, clear | 2, of the ledger's root (up to about 50 KB) |
/// | poll | 1, of the ledger's root |
///
/// The root of the ledger holds its newest 1,024 barriers. Older ones are in chunks that the root
/// names; nodes read them when they start. The ledger keeps up to 200,000 barriers exactly (see
/// [`with_barriers`](CasL2::with_barriers)), and the oldest beyond that fold into registers by
/// hash. A chunk that the store has lost folds into a floor. Both hide more, never less. A lost
/// root is a new epoch: everything stamped before is invalid, and every node notices it with its
/// next poll.
///
/// ```
/// use crinkle_core::Cache;
/// use crinkle_l2_cas::{CasL2, CasStore};
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
    /// Serializes this process's changes of a ledger, so that they do not compete.
    changing: Mutex<()>,
}

impl<S: CasStore> CasL2<S> {
    /// Creates an L2 over this store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::assemble(store, Atomicity::CompareAndSwap)
    }

    pub(crate) fn assemble(store: S, atomicity: Atomicity) -> Self {
        let (entropy, changing) = (Entropy::new(), Mutex::default());
        Self { store, entropy, barriers: MAX_BARRIERS, atomicity, changing }
    }

    /// Sets how many barriers the ledger keeps exactly; beyond that, a quarter of them fold.
    /// Default: 200,000, which is about 5 MB in the store.
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

    /// Retries after a failed swap: waits for up to 1, 2, 4, .. 64 ms, or returns an error.
    async fn again(&self, tries: &mut u32) -> Result<(), L2Error> {
        *tries += 1;
        if *tries >= TRIES {
            let what = format!(
                "other callers changed the value {TRIES} times during this call; nothing was written"
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
            // If the swap is delayed from here on, its token no longer matches.
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
