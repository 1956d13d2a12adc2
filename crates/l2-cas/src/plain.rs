//! An L2 over a store that supports only get, set and delete.

use std::fmt::Debug;
use std::ops::Deref;

use async_trait::async_trait;
use bytes::Bytes;

use super::{CasEntry, CasL2, CasStore, Stored};
use crinkle_core::l2::{Atomicity, L2Error};

/// A store with `get`, `set` and `delete`, without compare-and-swap. [`PlainL2`] makes an
/// [`L2`](super::L2) of it, with weaker guarantees. If the store can compare and swap, implement
/// [`CasStore`] instead.
///
/// # Contract
///
/// As [`CasStore`], without tokens: a reader sees the last write that was acknowledged, values of
/// 64 KiB fit, and keys are arbitrary UTF-8. [`now_us`](PlainStore::now_us) is the store's own
/// clock if it has one.
#[async_trait]
pub trait PlainStore: Debug + Send + Sync + 'static {
    /// Microseconds on the store's clock; see [`CasStore`].
    fn now_us(&self) -> u64;

    /// The value under a key; `None` if there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, L2Error>;

    /// Replaces the value, if any.
    async fn set(&self, key: &str, value: Stored) -> Result<(), L2Error>;

    /// Deletes the value, if any.
    async fn delete(&self, key: &str) -> Result<(), L2Error>;
}

/// An [`L2`](super::L2) over a [`PlainStore`]: **weaker**, since another call can write between its
/// read and its write. `cache.guarantees()` reports this.
///
/// - A fill or an `expire` that overlaps a `remove` or `set` of the same key on *another node* can
///   restore the old value. It then stays until its TTL expires or the next removal. This cannot
///   happen on one node, nor with tags: a barrier hides the entry whatever the store holds.
/// - A `set` whose bytes were delayed in a socket may complete late, over a newer value.
/// - Two nodes may both hold the load lock of a key and both load it.
/// - Of two removals by tag at the same moment, the ledger may keep one. The node that issued the
///   other finds it missing with its next poll and issues it again. Until then (a poll, 1 s), nodes
///   that missed its announcement do not know it.
///
/// These guarantees remain. A read never returns bytes of another key, type or epoch. A lost ledger
/// hides everything stamped under it. A node's own removals are effective there from the first
/// poll.
///
/// ```
/// use crinkle_core::Cache;
/// use crinkle_l2_cas::{PlainL2, PlainStore};
///
/// # async fn example(store: impl PlainStore) -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").l2(PlainL2::new(store)).build()?;
/// println!("{}", cache.guarantees());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PlainL2<S> {
    inner: CasL2<Unguarded<S>>,
}

impl<S: PlainStore> PlainL2<S> {
    /// Creates an L2 over this store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { inner: CasL2::assemble(Unguarded(store), Atomicity::Plain) }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.inner.store().0
    }
}

impl<S> Deref for PlainL2<S> {
    type Target = CasL2<Unguarded<S>>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

/// Swaps without comparing.
#[derive(Debug)]
#[expect(unnameable_types, reason = "what is in a `PlainL2`")]
pub struct Unguarded<S>(S);

#[async_trait]
impl<S: PlainStore> CasStore for Unguarded<S> {
    type Token = ();

    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<()>>, L2Error> {
        Ok(self.0.get(key).await?.map(|bytes| CasEntry { bytes, token: () }))
    }

    async fn swap(&self, key: &str, _: Option<()>, value: Stored) -> Result<bool, L2Error> {
        self.0.set(key, value).await?;
        Ok(true)
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        self.0.delete(key).await
    }
}

crinkle_core::forward_l2!(PlainL2<T>, PlainStore);
