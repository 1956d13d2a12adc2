//! L2 with a span, a timing and an error count for every operation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, L2ErrorKind, Read,
    Record,
};
use crate::events::Notice;
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LoadLock, LoadLockRequest, Put};
use crate::protocol::{Epoch, Version};
use crate::server::ServerHealth;
use crate::telemetry::{Op, Telemetry, spans};

/// An L2 store that records telemetry.
#[derive(Debug)]
pub(crate) struct Observed {
    store: Arc<dyn L2>,
    telemetry: Arc<Telemetry>,
}

impl Observed {
    pub(crate) fn new(store: Arc<dyn L2>, telemetry: Arc<Telemetry>) -> Self {
        Self { store, telemetry }
    }

    /// The store itself. `Arc<dyn L2>` implements `L2` too, but costs a box per call.
    fn store(&self) -> &dyn L2 {
        &*self.store
    }

    async fn observe<R>(
        &self,
        op: Op,
        call: impl Future<Output = Result<R, L2Error>> + Send,
    ) -> Result<R, L2Error> {
        let _timing = self.telemetry.meters.l2(op).time(&*self.telemetry.clock);
        let span = spans::l2(&self.telemetry.cache, op);
        let result = call.instrument(span.clone()).await;
        match &result {
            Ok(_) => self.telemetry.l2_succeeded(op, matches!(op, Op::Put | Op::Set)),
            Err(error) => {
                span.record("error", tracing::field::display(error));
                self.telemetry.l2_refused(op, error);
            }
        }
        result
    }

    /// Reports the result of load lock requests. A full store answers without storing the lock, so
    /// that hits continue; this counts as a failed operation.
    fn count_load_locks<'r>(
        &self,
        op: Op,
        reads: impl IntoIterator<Item = (Option<LoadLockRequest>, Option<&'r Read>)>,
    ) {
        let (mut granted, mut refused) = (false, false);
        for (ask, read) in reads {
            let (Some(_), Some(read)) = (ask, read) else { continue };
            granted |= read.load_lock == LoadLock::Granted;
            refused |= read.load_lock == LoadLock::None && read.found.is_none();
        }
        if refused {
            let error = L2Error::new(L2ErrorKind::Full, "it did not store the load lock");
            self.telemetry.l2_failed(&error);
            self.telemetry.l2_refused(op, &error);
        } else if granted {
            self.telemetry.l2_succeeded(op, true);
        }
    }

    /// Counts the message that the store published with a successful write.
    fn announced(&self, notice: Notice, announced: bool, done: bool) {
        if announced && done {
            self.telemetry.published(notice);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl L2 for Observed {
    fn bus(&self) -> Option<BusId> {
        self.store().bus()
    }

    fn atomicity(&self) -> Atomicity {
        self.store().atomicity()
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        let read = self.observe(Op::Read, self.store().read(key, ask)).await;
        self.count_load_locks(Op::Read, [(ask, read.as_ref().ok())]);
        read
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        let reads = self.observe(Op::ReadMany, self.store().read_many(asks)).await;
        if let Ok(reads) = &reads {
            self.count_load_locks(
                Op::ReadMany,
                asks.iter().map(|(_, ask)| *ask).zip(reads.iter().map(Some)),
            );
        }
        reads
    }

    fn replica_lag(&self) -> Option<Duration> {
        self.store().replica_lag()
    }

    async fn read_replica(&self, key: &str) -> Option<Found> {
        self.observe(Op::ReadReplica, async { Ok(self.store().read_replica(key).await) })
            .await
            .ok()?
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        self.observe(Op::ReadHeads, self.store().read_heads(keys)).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        let fused = announce.is_some();
        let put = self.observe(Op::Put, self.store().put(key, expected, record, announce)).await;
        self.announced(Notice::Written, fused, matches!(put, Ok(Put::Stored)));
        put
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let fused = announce.is_some();
        let set = self.observe(Op::Set, self.store().set(key, record, deadline, announce)).await;
        self.announced(Notice::Written, fused, set.is_ok());
        set
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        let fused = announce.is_some();
        let removed = self.observe(Op::Remove, self.store().remove(key, announce)).await;
        self.announced(Notice::Removed, fused, removed.is_ok());
        removed
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let fused = announce.is_some();
        let expired = self.observe(Op::Expire, self.store().expire(key, version, announce)).await;
        self.announced(Notice::Expired, fused, expired.is_ok());
        expired
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.observe(Op::Release, self.store().release(key, load_lock)).await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        self.observe(Op::Renew, self.store().renew(key, load_lock, ttl_ms)).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let advanced = self.observe(Op::Advance, self.store().advance(ledger, ask, announce)).await;
        let announced = matches!(&advanced, Ok(numbers) if numbers.announced);
        self.announced(Notice::Removal, announced, true);
        advanced
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        self.observe(Op::Sync, self.store().sync(ledger, ask)).await
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.store.frontier(ledger, epoch).await
    }

    fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
        self.store.is_ledger_near(ledger, key)
    }

    async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, L2Error> {
        self.store.replication_id(server).await
    }

    fn server_of(&self, key: &str) -> Option<Arc<str>> {
        self.store.server_of(key)
    }

    fn servers(&self) -> Vec<Arc<str>> {
        self.store.servers()
    }

    fn replicas(&self) -> Vec<ServerHealth> {
        self.store.replicas()
    }
}
