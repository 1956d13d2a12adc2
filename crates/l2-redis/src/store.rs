//! `RedisL2`: the store over a client. Every operation is one script or plain command on one key.
//!
//! `reads` holds READ, of one key and of many, and the ledger's number beside it.

mod reads;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::ServerHealth;
use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, L2ErrorKind, Read,
    Record, record,
};
use crinkle_core::protocol::ledger::{Advance, Advanced, RECENT_IDS, SyncAsk, SyncReply};
use crinkle_core::protocol::record::{Head, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Version};
use crinkle_redis_client::error::l2_error;
use crinkle_redis_client::{RedisClient, server_name, slot};
use redis::{FromRedisValue, Pipeline, RedisResult, ScriptInvocation};

use crate::ledger::{Keeping, ttl};
use crate::replicas::Replicas;
use crate::rights::{self, Rights};
use crate::scripts::{id, id_or_none};
use crate::set::{Set, refresh_clocks};
use crate::tag_index::TagIndex;
use crate::{ledger, replication_id, scripts};
use reads::Reads;

/// Default of [`RedisL2::with_barriers`].
const MAX_BARRIERS: usize = 200_000;

/// Of 256 removed tags, how many make their removal tidy up the ledger: it folds and drops what is
/// too old. More often costs calls; more seldom, barriers above the limit.
const TIDYING: usize = 8;

/// An L2 in Redis.
///
/// The store uses keys as they are: the cache has added its prefix. Clones share the connection.
///
/// ```no_run
/// use crinkle_core::Cache;
/// use crinkle_l2_redis::RedisL2;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::builder("shop").l2(RedisL2::connect("redis://localhost").await?).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisL2 {
    client: RedisClient,
    barriers: usize,
    /// See [`TIDYING`].
    tidying: usize,
    keeping: Keeping,
    reads: Reads,
    index: Option<TagIndex>,
    replicas: Option<Arc<Replicas>>,
    rights: Arc<Rights>,
}

impl RedisL2 {
    /// Creates a store on the server at this URL, with its own connection. See
    /// [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// If the URL is invalid; never because of the server, which may be down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        Ok(Self::new(RedisClient::connect(url).await?))
    }

    /// Creates a store on the primary that these sentinels know by this name, with its own
    /// connection. See [`RedisClient::sentinel`].
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, L2Error> {
        Ok(Self::new(RedisClient::sentinel(urls, name).await?))
    }

    /// Creates a store in the cluster that these servers belong to, with its own connections. See
    /// [`RedisClient::cluster`].
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, L2Error> {
        Ok(Self::new(RedisClient::cluster(urls).await?))
    }

    /// Creates a store on a client, which others may share.
    #[must_use]
    pub fn new(client: RedisClient) -> Self {
        client.add_scripts(scripts::all());
        let (barriers, keeping, rights) = (MAX_BARRIERS, Keeping::AsAsked, Arc::default());
        let reads = Reads::new(client.clone(), Arc::clone(&rights));
        let (tidying, index, replicas) = (TIDYING, None, None);
        Self { client, barriers, tidying, keeping, reads, index, replicas, rights }
    }

    /// Requests no retention from the ledger: it keeps barriers as long as the cache's nodes need
    /// them. For tools that remove entries of other nodes.
    #[must_use]
    pub fn visiting(mut self) -> Self {
        self.keeping = Keeping::AsOthersDo;
        self
    }

    /// Sets how many barriers of tags the ledger keeps exactly. It folds older ones into registers
    /// by hash, which hide more, never less. Default: 200,000; a node keeps at most 524,288
    /// exactly. Use the same value on all nodes.
    #[must_use]
    pub fn with_barriers(mut self, barriers: usize) -> Self {
        self.barriers = barriers;
        self
    }

    /// Keeps an index of keys by tag in Redis, with at most `most` keys per tag. With it,
    /// `remove_by_tag` frees the memory of hidden entries at once, in the background. Off by
    /// default. Only memory depends on it: without it, removed entries are hidden as well, and
    /// Redis frees them when their TTL ends. Every write with tags costs one more command per tag,
    /// and the sets take memory. Use the same setting on all nodes.
    #[must_use]
    pub fn with_tag_index(mut self, most: usize) -> Self {
        self.index = Some(TagIndex { most });
        self
    }

    /// Reads records from replicas that are known to be behind by no more than `lag`; one or two
    /// seconds are a good choice. A node reads a key from a replica only if it knows of nothing
    /// newer: for `lag` it has not written the key, received a message about it, or read it from
    /// the primary. Load locks, writes, batches, strict reads, version checks and the ledger use
    /// the primary. Default: off.
    ///
    /// The user needs `info` on replicas and primary, and `readonly` in a cluster. Sentinels and
    /// clusters report their replicas; for a single server, name them with
    /// [`RedisClientBuilder::replicas`](crate::RedisClientBuilder::replicas).
    #[must_use]
    pub fn read_from_replicas(mut self, lag: Duration) -> Self {
        self.replicas = Some(Arc::new(Replicas::new(lag)));
        self
    }

    /// Tries every right that a cache with this key prefix needs of its store, and writes nothing. A
    /// store does this by itself before it first uses a ledger.
    ///
    /// # Errors
    ///
    /// [`L2ErrorKind::Denied`] if a right is missing, or the server lacks a command; the message
    /// names each, and what to do. Another kind if the server is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn check_rights(&self, prefix: &str) -> Result<(), L2Error> {
        rights::check(&self.client, prefix).await
    }

    /// Tidies up the ledger with every removal. For tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn tidying_always(mut self) -> Self {
        self.tidying = 256;
        self
    }

    /// Creates load locks by script only, as with a server older than Redis 7.0. For tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn locking_by_script(self) -> Self {
        self.reads.lock_by_script();
        self
    }

    async fn pipe<T: FromRedisValue>(&self, pipe: &Pipeline) -> RedisResult<T> {
        pipe.query_async(&mut self.client.clone()).await
    }

    async fn run<T: FromRedisValue>(
        &self,
        key: &str,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, L2Error> {
        match call.invoke_async(&mut self.client.clone()).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.rights.explain(&self.client, key, &error).await),
        }
    }

    /// Adds the last two arguments of a script that publishes.
    fn announcing<'a, 'b>(
        &self,
        call: &'a mut ScriptInvocation<'b>,
        announce: Option<Announce>,
    ) -> &'a ScriptInvocation<'b> {
        match announce {
            Some(to) => call.arg(&*self.client.channel(&to.channel)).arg(&to.message[..]),
            None => call.arg("").arg(""),
        }
    }

    /// Writes a record, and concurrently adds its key to the tag index.
    async fn indexed<T>(
        &self,
        key: &str,
        record: &Record,
        write: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, L2Error> {
        let Some(index) = &self.index else { return write.await };
        let (written, ()) = tokio::join!(write, index.note(&self.client, key, record));
        written
    }
}

#[async_trait]
impl L2 for RedisL2 {
    fn bus(&self) -> Option<BusId> {
        Some(self.client.bus())
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        self.reads.read(key, ask).await
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        self.reads.read_many(asks).await
    }

    fn replica_lag(&self) -> Option<Duration> {
        self.replicas.as_ref().map(|replicas| replicas.lag)
    }

    async fn read_replica(&self, key: &str) -> Option<Found> {
        self.replicas.as_ref()?.read(&self.client, key).await
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.getrange(key, 0, record::HEADER_LEN as isize - 1);
        }
        let heads: Vec<Bytes> = self.pipe(&pipe).await.map_err(|error| l2_error(&error))?;
        Ok(heads.iter().map(|bytes| record::head(bytes)).collect())
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        let mut call = scripts::PUT.key(key);
        call.arg(id(expected.0)).arg(&record.bytes[..]).arg(ttl(record.ttl_ms));
        let write = self.run(key, self.announcing(&mut call, announce));
        let stored: bool = self.indexed(key, &record, write).await?;
        Ok(if stored { Put::Stored } else { Put::Refused })
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let set = Set::new(&self.client, key, &record, deadline, announce.as_ref());
        let write = async {
            match self.client.call(&set).await {
                Ok(stored) => Ok(stored),
                Err(error) => Err(self.rights.explain(&self.client, key, &error).await),
            }
        };
        let stored = self.indexed(key, &record, write).await?;
        if stored { Ok(()) } else { Err(L2Error::late()) }
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        let mut call = scripts::REMOVE.key(key);
        self.run(key, self.announcing(&mut call, announce)).await
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let mut call = scripts::EXPIRE.key(key);
        call.arg(id(version.0));
        self.run(key, self.announcing(&mut call, announce)).await
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.run(key, scripts::RELEASE.key(key).arg(id(load_lock.0))).await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        self.run(key, scripts::RENEW.key(key).arg(id(load_lock.0)).arg(ttl(ttl_ms))).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let mut call = scripts::ADVANCE.key(ledger);
        call.arg(self.keeping.ledger_ttl(ask.retention_ms)).arg(id(ask.new_epoch.0));
        call.arg(id(ask.removal.nonce.0)).arg(id_or_none(ask.epoch.map(|e| e.0))).arg(ask.frontier);
        call.arg(self.keeping.retention(ask.retention_ms)).arg(self.barriers).arg(RECENT_IDS);
        call.arg(self.tidying);
        match &announce {
            Some(a) => {
                call.arg(&*self.client.channel(&a.channel)).arg(&a.head[..]).arg(&a.tail[..])
            }
            None => call.arg("").arg("").arg(""),
        };
        for target in &ask.removal.targets {
            call.arg(ledger::member(ask.removal.strength, *target));
        }
        let advanced = ledger::advanced(self.run(ledger, &call).await?).ok_or_else(unreadable)?;
        if self.index.is_some() {
            TagIndex::removed(&self.client, ledger, ask, advanced);
        }
        Ok(advanced)
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        self.rights.suffice(&self.client, ledger).await?;
        refresh_clocks(&self.client);
        let mut call = scripts::SYNC.key(ledger);
        call.arg(self.keeping.ledger_ttl(ask.retention_ms)).arg(id(ask.new_epoch.0));
        call.arg(id_or_none(ask.epoch.map(|e| e.0))).arg(ask.from).arg(ask.frontier);
        call.arg(id_or_none(ask.last.map(|n| n.0))).arg(ask.page);
        call.arg(self.keeping.retention(ask.retention_ms));
        ledger::synced(ask, self.run(ledger, &call).await?).ok_or_else(unreadable)
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.reads.frontier(ledger, epoch).await
    }

    async fn shared_frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.reads.shared_frontier(ledger, epoch).await
    }

    /// True with a single primary; in a cluster if ledger and key share a slot, as with a prefix
    /// that holds a hash tag.
    fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
        !self.client.is_cluster() || slot(ledger.as_bytes()) == slot(key.as_bytes())
    }

    /// The replication id of a primary, which changes with every promotion and every restart.
    /// `None` if the user may not run `INFO`.
    async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, L2Error> {
        replication_id::of(&self.client, server).await
    }

    /// The primary of the key's slot; `None` with a single server.
    fn server_of(&self, key: &str) -> Option<Arc<str>> {
        if !self.client.is_cluster() {
            return None;
        }
        self.client.primary_of(key).map(|at| server_name(&at))
    }

    fn servers(&self) -> Vec<Arc<str>> {
        self.client.known_primaries().iter().map(server_name).collect()
    }

    fn replicas(&self) -> Vec<ServerHealth> {
        self.replicas.as_ref().map_or_else(Vec::new, |replicas| replicas.health())
    }
}

fn unreadable() -> L2Error {
    L2Error::new(L2ErrorKind::Other, "cannot read the reply of the ledger script")
}
