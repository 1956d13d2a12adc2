//! L2: the shared level. Bytes in, bytes out, and one ledger.

pub(crate) mod access;
pub(crate) mod breaker;
mod cas;
mod codec;
pub(crate) mod compression;
pub(crate) mod deadline;
mod error;
mod forward;
mod memory;
mod plain;
pub(crate) mod recent;
pub mod record;
mod slot;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use cas::{CasEntry, CasL2, CasStore, Stored};
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
pub use compression::Compression;
pub use deadline::{Deadline, ServerTime};
pub use error::{L2Error, L2ErrorKind};
pub use memory::{MemoryL2, MemorySnapshot};
pub use plain::{PlainL2, PlainStore};
pub use slot::Slot;

use crate::cache::ServerHealth;
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LoadLock, LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};

/// A shared store of records and of the barrier ledger.
///
/// # Contract
///
/// - A **record** is a string of bytes under a key, with a physical life after which it is absent.
///   Its first bytes are a header ([`record`]) that the store reads and, for load locks and `expire`,
///   writes. [`Slot`] implements every record operation over `Option<bytes>`: a store needs a way to
///   run one `Slot` operation atomically per key.
/// - The **ledger** is one value under its own key; [`Authority`](crate::protocol::ledger::Authority)
///   implements its operations. It must be lost as a whole or not at all: a store that can lose part
///   of it must not be an L2.
/// - Every operation is atomic on its key and idempotent: versions, load lock ids and nonces are chosen
///   by the caller, so a retry after a lost reply changes nothing.
/// - Keys are arbitrary UTF-8 up to some 33 KiB; the store must not normalise them.
///
/// # Ordering
///
/// A store whose [`bus`](L2::bus) equals the backplane's announces in the same step as it writes:
/// for records *announce first, then write* (an announcement without a write costs a miss; a write
/// without an announcement costs staleness), for the ledger *write first, then announce* (a lost
/// announcement is healed by the poll). Otherwise `announce` is always `None` and the cache
/// announces around the call.
///
/// # Errors and time
///
/// A store returns an error as soon as it knows one; it need not have timeouts of its own, since the
/// cache bounds each call by the options of the operation. The error kind decides what happens next:
/// see [`L2ErrorKind`].
///
/// # Cancel safety
///
/// The cache drops the future of a call that exceeds its timeout. The call may then have happened or
/// not; idempotence makes a retry safe.
///
/// # Wrappers
///
/// Forward every method, also those with a default: `clippy::missing_trait_methods` says so.
///
/// # Minimal implementation
///
/// For a store with compare-and-swap, implement [`CasStore`] and use [`CasL2`]. For one that runs
/// transactions or scripts: a [`Slot`] per key and one `Authority` per ledger, as `MemoryL2` has
/// behind its lock. Check yours with `crinkle_testkit::contract::l2`.
#[async_trait]
pub trait L2: Debug + Send + Sync + 'static {
    /// The message bus this store can announce on within its own atomic step, if any.
    fn bus(&self) -> Option<BusId>;

    /// How this store changes a record or the ledger, which decides what a cache over it can promise:
    /// see [`Cache::guarantees`](crate::Cache::guarantees).
    fn atomicity(&self) -> Atomicity;

    /// Reads a record; with `ask`, leaves or reports a load lock in the same step.
    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error>;

    /// [`read`](L2::read) for several keys in one round trip, answered in the order asked. Each key is
    /// read atomically, not all of them together. A store without such a thing returns [`one_by_one`].
    /// If it fails because of one key, the cache reads the keys one by one.
    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error>;

    /// How far the replicas that [`read_replica`](L2::read_replica) asks may be behind. Default: `None`,
    /// none is ever asked.
    fn replica_lag(&self) -> Option<Duration> {
        None
    }

    /// Reads a record from a replica of the store. What it answers holds every write that was acknowledged
    /// more than [`replica_lag`](L2::replica_lag) before the call. `None` if nothing is there, no replica is
    /// known to be so close, or none answers: then the store itself is asked. The cache does so from
    /// the start where a replica might lack what this node knows. Default: `None`.
    async fn read_replica(&self, _key: &str) -> Option<Found> {
        None
    }

    /// The heads of several records, in the order asked, load locks too; `None` where there is none. For a reader
    /// who holds a copy and wants to know whether it is still that: no value need travel. Default:
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

    /// Replaces exactly the version `expected` (a value's, or a load lock) by `record`.
    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error>;

    /// Replaces whatever is there. If it runs after the deadline, the command was stuck on its way: the
    /// record is removed instead, and the call fails with [`L2Error::late`]. The deadline is a moment on a clock
    /// of the caller. Where the command runs on a server, that server has to judge it by its own clock,
    /// which is compared with nothing but itself: [`ServerTime`] does that. A `set` that is late by mistake
    /// costs a miss; one that runs after its deadline by more than [`ServerTime`] allows may show an older
    /// value over a newer one.
    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error>;

    /// Removes whatever is there, load locks included.
    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error>;

    /// Marks a value as expired under a new version and keeps it as a fallback; removes a load lock.
    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error>;

    /// Gives a load lock back, if it is still the asker's.
    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error>;

    /// Prolongs a load lock to `ttl_ms` from now, if it is still the asker's; false if it is not.
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

    /// The last number that the ledger under `ledger` has issued, if its epoch is this one; `None` if it is
    /// another, if there is no ledger, and if only a `SYNC` can emit. The cache asks this beside a call, at
    /// the same time: beside strict reads and reservations always, beside loads and `set`s where it
    /// [is near](L2::is_ledger_near). Who turns out to be behind compares first. Default: `None`.
    async fn frontier(&self, _ledger: &str, _epoch: Epoch) -> Result<Option<u64>, L2Error> {
        Ok(None)
    }

    /// Whether [`frontier`](L2::frontier) costs next to nothing beside a call on this key: the ledger is on
    /// the server that holds the record, so the question takes no round trip and no server of its own.
    /// Default: false.
    fn is_ledger_near(&self, _ledger: &str, _key: &str) -> bool {
        false
    }

    /// Names the history of writes that a server is in: another number once one answers that may lack writes
    /// which were acknowledged before, as after a failover. The cache then compares its last writes with
    /// what is there. Each of [`servers`](L2::servers) is asked by its name, so that one that does not answer
    /// keeps nothing of the others waiting; where there are none, it is asked once, without a name.
    /// Default: `None`, which says that no acknowledged write is ever lost, or that nobody knows.
    async fn replication_id(&self, _server: Option<&str>) -> Result<Option<u64>, L2Error> {
        Ok(None)
    }

    /// Names the server that holds what is under a key, where a store has several that can fail apart, such as
    /// the primaries of a cluster. The cache keeps a circuit breaker for each name: while one server is left
    /// alone, keys on the others are read and written as ever. It is asked with record keys and the key of the
    /// ledger, must not wait, and may answer differently once a key has moved. Default: `None`, the store
    /// is one server, or does not know.
    fn server_of(&self, _key: &str) -> Option<Arc<str>> {
        None
    }

    /// Every name that [`server_of`](L2::server_of) may give now, for
    /// [`Health::l2_servers`](crate::Health::l2_servers) and [`replication_id`](L2::replication_id). Default: none.
    fn servers(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// The replicas that [`read_replica`](L2::read_replica) reads from, and whether each is in step, for
    /// [`Health::l2_replicas`](crate::Health::l2_replicas). Must not wait. Default: none.
    fn replicas(&self) -> Vec<ServerHealth> {
        Vec::new()
    }
}

/// [`L2::read_many`] for stores that can read one key at a time.
///
/// # Errors
///
/// The first that a read meets.
///
/// # Cancel safety
///
/// Load locks that were granted before the drop end by themselves.
pub async fn one_by_one(
    store: &dyn L2,
    asks: &[(String, Option<LoadLockRequest>)],
) -> Result<Vec<Read>, L2Error> {
    let mut reads = Vec::with_capacity(asks.len());
    for (key, ask) in asks {
        reads.push(store.read(key, *ask).await?);
    }
    Ok(reads)
}

/// How a store changes what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "what a cache can promise follows from it")]
pub enum Atomicity {
    /// It runs a whole operation in one step, like a script in Redis.
    Atomic,
    /// It reads, and writes only if nothing has changed since, like [`CasL2`]. The same promises, for
    /// more round trips under contention.
    CompareAndSwap,
    /// It reads, then writes, whatever happened in between, like [`PlainL2`]. Weaker.
    Plain,
}

/// Names a message bus: a store and a backplane with equal names reach the same subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BusId(String);

impl BusId {
    /// A bus known by this address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a READ found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct Read {
    /// The value record, if there is one (a load lock is not).
    pub found: Option<Found>,
    /// Who may load.
    pub load_lock: LoadLock,
}

/// A value record and how long it still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store")]
pub struct Found {
    /// Header and payload.
    pub bytes: Bytes,
    /// What remains of its physical life, in milliseconds, by the store's clock.
    pub ttl_ms: u64,
}

/// A record to store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Record {
    /// Header and payload.
    pub bytes: Bytes,
    /// Its physical life, in milliseconds; never zero.
    pub ttl_ms: u64,
}

/// A message to publish in the same step as a record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Announce {
    /// The channel.
    pub channel: String,
    /// The message.
    pub message: Bytes,
}

/// A message to publish in the same step as a removal is numbered. The store puts the numbers in:
/// `head`, then epoch, previous id (0 for none) and number as big-endian `u64`s, then `tail`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct AnnounceRemoval {
    /// The channel.
    pub channel: String,
    /// What comes before the numbers.
    pub head: Bytes,
    /// What comes after them.
    pub tail: Bytes,
}
