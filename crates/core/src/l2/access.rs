//! L2 as the pipeline calls it: prefixed keys, a timeout on every call, the breaker.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::breaker::Breaker;
use super::recent::Recent;
use super::{AnnounceRemoval, Atomicity, Found, L2, L2Error, L2ErrorKind, Read};
use crate::clock::{Moment, nanos};
use crate::events::Event;
use crate::protocol::KeyHash;
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LeaseAsk};
use crate::telemetry::Telemetry;

/// Keys longer than this are stored under their hash; the record holds the key in full.
const LONGEST_PLAIN_KEY: usize = 512;

/// How long after its timeout a delayed `set` may still run on the server.
const SLACK: Duration = Duration::from_millis(500);

/// One call of a store, as its trait returns it.
pub(crate) type Call<'a, R> = BoxFuture<'a, Result<R, L2Error>>;

#[derive(Debug)]
pub(crate) struct Access {
    store: Arc<dyn L2>,
    breaker: Breaker,
    /// If replicas are read.
    recent: Option<Recent>,
    telemetry: Arc<Telemetry>,
    records: String,
    hashed: String,
    ledger: String,
    /// Whether values are stored, or the ledger alone.
    holds_records: bool,
    /// The server's clock minus ours, in microseconds, as of the last `SYNC`; 0 for unknown.
    server_ahead: AtomicU64,
}

impl Access {
    pub(crate) fn new(
        store: Arc<dyn L2>,
        prefix: &str,
        failures: u32,
        telemetry: Arc<Telemetry>,
        holds_records: bool,
    ) -> Self {
        Self {
            recent: store.replica_lag().map(Recent::new),
            store,
            holds_records,
            breaker: Breaker::new(failures),
            telemetry,
            records: format!("{prefix}v1:e:"),
            hashed: format!("{prefix}v1:h:"),
            ledger: format!("{prefix}v1:L"),
            server_ahead: AtomicU64::new(0),
        }
    }

    pub(crate) fn holds_records(&self) -> bool {
        self.holds_records
    }

    pub(crate) fn atomicity(&self) -> Atomicity {
        self.store.atomicity()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Runs one operation on a key's record.
    pub(crate) async fn on<R>(
        &self,
        key: &str,
        limit: Duration,
        operation: impl for<'x> FnOnce(&'x dyn L2, &'x str) -> Call<'x, R> + Send,
    ) -> Result<R, L2Error> {
        let of_record = self.record_key(key);
        let result = self.bounded(limit, operation(&*self.store, &of_record)).await;
        self.news(|| [KeyHash::of(key)]);
        result
    }

    /// How far the replicas may be behind, if any are read.
    pub(crate) fn replica_lag(&self) -> Option<Duration> {
        self.recent.as_ref().map(Recent::lag)
    }

    /// There is news of keys, which a replica may lack.
    pub(crate) fn news<I: IntoIterator<Item = KeyHash>>(&self, keys: impl FnOnce() -> I) {
        if let Some(recent) = &self.recent {
            let now = self.telemetry.clock.now();
            keys().into_iter().for_each(|key| recent.note(key, now));
        }
    }

    /// Reads a record from a replica, unless it may lack what this node knows. It takes a part of the
    /// limit at most, and the breaker does not hear of it.
    pub(crate) async fn read_replica(
        &self,
        key: &str,
        hash: KeyHash,
        session: u64,
        limit: Duration,
    ) -> Option<Found> {
        let recent = self.recent.as_ref().filter(|_| !self.is_open())?;
        if !recent.is_settled(hash, session, self.telemetry.clock.now()) {
            return None;
        }
        let key = self.record_key(key);
        timeout(limit / 4, self.store.read_replica(&key)).await.ok().flatten()
    }

    /// Reads several records in one round trip.
    pub(crate) async fn read_many(
        &self,
        asks: impl IntoIterator<Item = (&str, Option<LeaseAsk>)>,
        limit: Duration,
    ) -> Result<Vec<Read>, L2Error> {
        let (keys, asks): (Vec<_>, Vec<_>) =
            asks.into_iter().map(|(key, ask)| (key, (self.record_key(key), ask))).unzip();
        let reads = self.bounded(limit, self.store.read_many(&asks)).await?;
        self.news(|| keys.into_iter().map(KeyHash::of));
        if reads.len() == asks.len() {
            return Ok(reads);
        }
        let what = format!("{} reads asked for, {} answered", asks.len(), reads.len());
        Err(L2Error::new(L2ErrorKind::Other, what))
    }

    /// The heads of several records in one round trip.
    pub(crate) async fn read_heads(
        &self,
        keys: impl IntoIterator<Item = &str>,
        limit: Duration,
    ) -> Result<Vec<Option<Head>>, L2Error> {
        let keys: Vec<_> = keys.into_iter().collect();
        let of_records: Vec<_> = keys.iter().map(|key| self.record_key(key)).collect();
        let mut heads = self.bounded(limit, self.store.read_heads(&of_records)).await?;
        self.news(|| keys.iter().map(|key| KeyHash::of(key)));
        // What was not answered is not known.
        heads.resize(keys.len(), None);
        Ok(heads)
    }

    /// Has the ledger number a removal.
    pub(crate) async fn advance(
        &self,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
        limit: Duration,
    ) -> Result<Advanced, L2Error> {
        self.bounded(limit, self.store.advance(&self.ledger, ask, announce)).await
    }

    /// Asks the ledger, whatever the breaker says: this is its probe. The flag tells whether the
    /// answer closed the breaker.
    pub(crate) async fn sync(
        &self,
        ask: &SyncAsk,
        limit: Duration,
    ) -> Result<(SyncReply, bool), L2Error> {
        let asked = self.telemetry.clock.now();
        let answer = timeout(limit, self.store.sync(&self.ledger, ask)).await;
        let result = answer.unwrap_or_else(|_| Err(timed_out(limit)));
        let closed = self.count(&result);
        let reply = result?;
        self.server_ahead
            .store(reply.now_us.saturating_sub(micros(asked)).max(1), Ordering::Release);
        Ok((reply, closed))
    }

    /// The history of writes that the store is in.
    pub(crate) async fn lineage(&self, limit: Duration) -> Result<Option<u64>, L2Error> {
        self.bounded(limit, self.store.lineage()).await
    }

    /// Where a key's record is.
    fn record_key(&self, key: &str) -> String {
        if key.len() <= LONGEST_PLAIN_KEY {
            return [&*self.records, key].concat();
        }
        let mut hashed = self.hashed.clone();
        let _ = write!(hashed, "{:032x}", KeyHash::of(key).0);
        hashed
    }

    /// The latest moment, on the server's clock, at which a `set` sent now may run; `None` before the
    /// first `SYNC`.
    pub(crate) fn latest(&self, limit: Duration) -> Option<u64> {
        let offset = self.server_ahead.load(Ordering::Acquire);
        if sabotaged!(SetRunsLate) {
            return Some(u64::MAX);
        }
        (offset != 0).then(|| offset + micros(self.telemetry.clock.now() + limit + SLACK))
    }

    async fn bounded<R>(&self, limit: Duration, call: Call<'_, R>) -> Result<R, L2Error> {
        if self.breaker.is_open() {
            return Err(L2Error::left_alone());
        }
        let result = timeout(limit, call).await.unwrap_or_else(|_| Err(timed_out(limit)));
        self.count(&result);
        result
    }

    /// Feeds the breaker; true if this closed it.
    fn count<R>(&self, result: &Result<R, L2Error>) -> bool {
        if let Err(error) = result {
            self.telemetry.l2_failed(error);
        }
        match result {
            Err(error) if error.is_outage() => {
                if self.breaker.failed() {
                    tracing::warn!(%error, "L2 does not answer; running on L1 until it does");
                    self.telemetry.tell(|| Event::L2Breaker { open: true });
                }
                false
            }
            _ => {
                let closed = self.breaker.answered();
                if closed {
                    tracing::info!("L2 answers again");
                    self.telemetry.tell(|| Event::L2Breaker { open: false });
                }
                closed
            }
        }
    }
}

fn micros(moment: Moment) -> u64 {
    moment.as_nanos() / 1000
}

fn timed_out(limit: Duration) -> L2Error {
    L2Error::new(L2ErrorKind::Timeout, format!("no answer within {} ms", nanos(limit) / 1_000_000))
}
