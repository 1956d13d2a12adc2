//! L2: the shared level. It stores records as bytes, and one barrier ledger.

// For authors of a store: the traits here, `error`, `deadline`, `record` (the bytes), and `slot`
// (the record operations over bytes). `memory` is such a store; `forward` implements `L2` for
// pointers to one.
//
// For the pipelines: `access` wraps every call with prefix, telemetry, timeout and `breaker`;
// `change` names the ways in which they change a record. `recent` names the keys that a replica may
// lack, `unread` why a record cannot be used. `codec` makes payloads.

pub(crate) mod access;
pub(crate) mod breaker;
pub(crate) mod change;
mod codec;
pub(crate) mod deadline;
mod forward;
mod memory;
pub(crate) mod recent;
pub mod record;
mod slot;
pub(crate) mod unread;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "messagepack")]
pub use codec::MessagePack;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
#[cfg(feature = "prost")]
pub use codec::Prost;
#[cfg(any(feature = "json", feature = "messagepack", feature = "postcard"))]
pub use codec::check_round_trip;
pub use codec::{Codec, NoCodec, Raw, Wire};
pub use deadline::{Deadline, ServerTime};
pub use memory::{MemoryL2, MemorySnapshot};
pub use slot::Slot;

pub use crate::announce::{Announce, AnnounceRemoval};
pub use crate::error::{L2Error, L2ErrorKind};
pub use crate::options::Compression;
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LoadLock, LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};
pub use crate::server::BusId;
use crate::server::ServerHealth;

/// A shared store of records and of the barrier ledger.
///
/// # Contract
///
/// - A **record** is a string of bytes under a key, with a physical TTL after which it is absent.
///   It begins with a header ([`record`]). The store reads the header, and writes it for load locks
///   and `expire`. [`Slot`] implements every record operation over `Option<bytes>`: a store needs a
///   way to run one `Slot` operation atomically per key.
/// - The **ledger** is one value under its own key;
///   [`Authority`](crate::protocol::ledger::Authority) implements its operations. It must be lost
///   as a whole or not at all: a store that can lose part of it must not be an L2.
/// - Every operation is atomic on its key and idempotent. The caller chooses versions, load lock
///   ids and nonces, so a retry after a lost reply changes nothing.
/// - Keys are arbitrary UTF-8 up to about 33 KiB; the store must not normalise them.
///
/// # Ordering
///
/// A store whose [`bus`](L2::bus) equals the backplane's announces in the same step as it writes.
/// For records it *announces first, then writes*: an announcement without a write costs a miss, a
/// write without an announcement costs staleness. For the ledger it *writes first, then announces*:
/// the poll makes up for a lost announcement. Otherwise `announce` is always `None`, and the cache
/// announces before or after the call.
///
/// # Errors and time
///
/// A store returns an error as soon as it knows one. It needs no timeouts of its own: the cache
/// limits each call by the options of the operation. The error kind decides what happens next: see
/// [`L2ErrorKind`].
///
/// # Cancel safety
///
/// The cache drops the future of a call that exceeds its timeout. The call may still take effect;
/// since it is idempotent, a retry is safe.
///
/// # Wrappers
///
/// Forward every method, including those with a default. `clippy::missing_trait_methods` checks
/// this.
///
/// # Minimal implementation
///
/// For a store with compare-and-swap, implement `CasStore` and use `CasL2`. For a store with
/// transactions or scripts, keep a [`Slot`] per key and one `Authority` per ledger, as `MemoryL2`
/// does behind its lock. Check your store with `crinkle_testkit::contract::l2`.
#[async_trait]
pub trait L2: Debug + Send + Sync + 'static {
    /// The message bus on which this store can announce within its own atomic step, if any.
    fn bus(&self) -> Option<BusId>;

    /// How this store changes a record or the ledger. The cache's guarantees depend on it:
    /// see [`Cache::guarantees`](crate::Cache::guarantees).
    fn atomicity(&self) -> Atomicity;

    /// Reads a record. With `ask`, sets or reports a load lock in the same step.
    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error>;

    /// [`read`](L2::read) for several keys in one round trip; the results are in the order of
    /// `asks`. Each key is read atomically, not all of them together. If one key makes it fail, the
    /// cache reads the keys one by one. Default: one [`read`](L2::read) after the other.
    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        let mut reads = Vec::with_capacity(asks.len());
        for (key, ask) in asks {
            reads.push(self.read(key, *ask).await?);
        }
        Ok(reads)
    }

    /// The maximum lag of the replicas that [`read_replica`](L2::read_replica) uses. Default:
    /// `None`, no replica is used.
    fn replica_lag(&self) -> Option<Duration> {
        None
    }

    /// Reads a record from a replica of the store. The result includes every write that was
    /// acknowledged more than [`replica_lag`](L2::replica_lag) before the call. `None` if there is
    /// no record, no replica is known to be that close, or none answers: the cache then reads from
    /// the store itself. It does so directly if a replica might lack what this node knows. Default:
    /// `None`.
    async fn read_replica(&self, _key: &str) -> Option<Found> {
        None
    }

    /// The heads of several records or load locks, in the order of `keys`; `None` for an absent
    /// one. With this a reader verifies its copy without transferring the value. Default:
    /// [`read_many`](L2::read_many).
    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        let asks: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        let head = |read: Read| match (read.found, read.load_lock) {
            (Some(found), _) => record::head(&found.bytes),
            (None, LoadLock::HeldBy(by)) => Some(Head::LoadLock(by)),
            (None, _) => None,
        };
        Ok(self.read_many(&asks).await?.into_iter().map(head).collect())
    }

    /// Replaces exactly the version `expected` (a value's, or a load lock) with `record`.
    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error>;

    /// Replaces the record, if any. After the deadline, the command has been delayed: it removes
    /// the record instead, and fails with [`L2Error::late`].
    ///
    /// The deadline is a moment on the caller's clock. A command that runs on a server is judged by
    /// the server's own clock, which is compared only with itself: [`ServerTime`] does that. A
    /// `set` that is judged late by mistake costs a miss. One that runs after its deadline by more
    /// than [`ServerTime`] allows may show an older value over a newer one.
    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error>;

    /// Removes the record or load lock, if any.
    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error>;

    /// Marks a value as expired under a new version and keeps it as a fallback. Removes a load
    /// lock.
    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error>;

    /// Releases a load lock if the record still carries it.
    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error>;

    /// Extends a load lock to `ttl_ms` from now; false if the record no longer carries it.
    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error>;

    /// Numbers a removal in the ledger under `ledger`.
    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error>;

    /// Compares a replica with the ledger under `ledger`.
    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error>;

    /// The last number that the ledger under `ledger` has issued in this epoch. `None` if the epoch
    /// is another, if there is no ledger, or if only a `SYNC` can answer.
    ///
    /// The cache calls it concurrently with another call: always with strict reads and
    /// reservations; with loads and `set`s only if the ledger [is near](L2::is_ledger_near). A node
    /// that turns out to be behind syncs first. Default: `None`.
    async fn frontier(&self, _ledger: &str, _epoch: Epoch) -> Result<Option<u64>, L2Error> {
        Ok(None)
    }

    /// [`frontier`](L2::frontier) for a call that also writes, so that a demoted server refuses it.
    /// Concurrent calls may share one request, which was sent after each of them began. Default:
    /// [`frontier`](L2::frontier).
    async fn shared_frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.frontier(ledger, epoch).await
    }

    /// Whether [`frontier`](L2::frontier) is almost free beside a call on this key. This is so if
    /// the ledger is on the server that holds the record: no extra round trip is needed. Default:
    /// false.
    fn is_ledger_near(&self, _ledger: &str, _key: &str) -> bool {
        false
    }

    /// The replication id of a server: it changes once another server answers that may lack
    /// acknowledged writes, as after a failover. The cache then compares its recent writes with the
    /// records in L2.
    ///
    /// The cache asks each of [`servers`](L2::servers) by name, so that one without an answer does
    /// not delay the others. If there are no names, it asks once without one. Default: `None`: no
    /// acknowledged write is ever lost, or it is unknown whether one is.
    async fn replication_id(&self, _server: Option<&str>) -> Result<Option<u64>, L2Error> {
        Ok(None)
    }

    /// The name of the server that holds a key, if the store has several that can fail separately,
    /// such as the primaries of a cluster. The cache keeps a circuit breaker for each name: while
    /// one is open, it still uses the other servers. It passes record keys and the key of the
    /// ledger. The method must not wait, and the result may change once a key has moved. Default:
    /// `None`, the store is one server, or does not know.
    fn server_of(&self, _key: &str) -> Option<Arc<str>> {
        None
    }

    /// Every name that [`server_of`](L2::server_of) may currently return, for
    /// [`Health::l2_servers`](crate::Health::l2_servers) and
    /// [`replication_id`](L2::replication_id). Default: none.
    fn servers(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// The replicas that [`read_replica`](L2::read_replica) reads from, and whether each keeps up,
    /// for [`Health::l2_replicas`](crate::Health::l2_replicas). Must not wait. Default: none.
    fn replicas(&self) -> Vec<ServerHealth> {
        Vec::new()
    }
}

/// How a store changes its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "what a cache can promise follows from it")]
pub enum Atomicity {
    /// It runs a whole operation in one step, as a Redis script does.
    Atomic,
    /// It reads, and writes only if nothing has changed since, as `CasL2` does. The guarantees
    /// are the same, with more round trips under contention.
    CompareAndSwap,
    /// It reads, then writes without comparing, as `PlainL2` does. The guarantees are weaker.
    Plain,
}

/// What a store returns for a read: the record, if any, and whether the reader may load.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct Read {
    /// The value record, if there is one (a load lock is none).
    pub found: Option<Found>,
    /// The reader's right to load.
    pub load_lock: LoadLock,
}

/// An encoded entry as L2 returned it, with its remaining TTL.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct Found {
    /// Header and payload.
    pub bytes: Bytes,
    /// The remaining physical TTL, in milliseconds, by the store's clock.
    pub ttl_ms: u64,
}

/// An encoded entry to store, with the TTL after which the store drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Record {
    /// Header and payload.
    pub bytes: Bytes,
    /// The physical TTL, in milliseconds; never zero.
    pub ttl_ms: u64,
}
