//! L2 for the pipeline: prefixed keys, a timeout on every call, a circuit breaker for each server.
//!
//! `calls` holds the calls about one record, and their telemetry; `probes` those that find out
//! whether a server is back.

mod calls;
mod probes;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::breaker::Breakers;
use super::recent::Recent;
use super::{AnnounceRemoval, Atomicity, Deadline, Found, L2, L2Error, L2ErrorKind, Read};
use crate::clock::nanos;
use crate::events::{Event, Notice};
use crate::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crate::protocol::record::{Head, LoadLockRequest};
use crate::protocol::{Epoch, KeyHash};
use crate::server::{ReplicationId, Server, ServerHealth};
use crate::telemetry::{Fault, Op, Telemetry};

/// Longer keys are stored under their hash; the record holds the full key.
const LONGEST_PLAIN_KEY: usize = 512;

/// A batch split by server: the positions of its keys in the batch, and their requests.
type Parts<A> = BTreeMap<Server, (Vec<usize>, Vec<A>)>;

/// One call of a store, as the trait returns it.
pub(crate) type Call<'a, R> = BoxFuture<'a, Result<R, L2Error>>;

#[derive(Debug)]
pub(crate) struct Access {
    store: Arc<dyn L2>,
    breakers: Breakers,
    /// Signals that a server must be probed.
    probe_wanted: Notify,
    /// Present if replicas are read.
    recent: Option<Recent>,
    telemetry: Arc<Telemetry>,
    records: String,
    hashed: String,
    ledger: String,
    /// Whether L2 stores values, or the ledger alone.
    holds_records: bool,
    /// Whether the ledger has ever answered.
    met: AtomicBool,
    /// Whether a call other than the poll has closed a breaker since the last poll.
    came_back: AtomicBool,
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
            breakers: Breakers::new(failures),
            probe_wanted: Notify::new(),
            telemetry,
            records: format!("{prefix}v1:e:"),
            hashed: format!("{prefix}v1:h:"),
            ledger: format!("{prefix}v1:L"),
            met: AtomicBool::new(false),
            came_back: AtomicBool::new(false),
        }
    }

    /// The store itself. `Arc<dyn L2>` implements `L2` too, but costs a box per call.
    fn store(&self) -> &dyn L2 {
        &*self.store
    }

    pub(crate) fn holds_records(&self) -> bool {
        self.holds_records
    }

    pub(crate) fn atomicity(&self) -> Atomicity {
        self.store.atomicity()
    }

    /// Whether the circuit breaker of the server that holds this key's record is open.
    pub(crate) fn is_open(&self, key: &str) -> bool {
        self.breakers.is_open(|| self.store.server_of(&self.record_key(key)))
    }

    /// Whether the circuit breaker of the server that holds the ledger is open.
    pub(crate) fn is_ledger_open(&self) -> bool {
        self.breakers.is_open(|| self.store.server_of(&self.ledger))
    }

    /// Whether any circuit breaker is open.
    pub(crate) fn any_is_open(&self) -> bool {
        self.breakers.any_is_open()
    }

    /// The replicas that reads use.
    pub(crate) fn replicas(&self) -> Vec<ServerHealth> {
        self.store.replicas()
    }

    /// The named servers, and whether each is in use.
    pub(crate) fn servers(&self) -> BTreeMap<Arc<str>, bool> {
        let known = self.store.servers().into_iter().map(|name| (name, true));
        known.chain(self.breakers.open().into_iter().map(|name| (name, false))).collect()
    }

    /// The maximum lag of the replicas, if any are read.
    pub(crate) fn replica_lag(&self) -> Option<Duration> {
        self.recent.as_ref().map(Recent::lag)
    }

    /// Records that keys may have changed, which a replica may not have seen yet.
    pub(crate) fn news<I: IntoIterator<Item = KeyHash>>(&self, keys: impl FnOnce() -> I) {
        if let Some(recent) = &self.recent {
            let now = self.telemetry.clock.now();
            keys().into_iter().for_each(|key| recent.note(key, now));
        }
    }

    /// Reads a record from a replica, unless the replica may lack what this node knows. Takes at
    /// most a quarter of the limit, and does not count for the breaker.
    pub(crate) async fn read_replica(
        &self,
        key: &str,
        hash: KeyHash,
        session: u64,
        limit: Duration,
    ) -> Option<Found> {
        let recent = self.recent.as_ref().filter(|_| !self.is_open(key))?;
        if !recent.is_settled(hash, session, self.telemetry.clock.now()) {
            return None;
        }
        let key = self.record_key(key);
        let read = async { Ok(self.store().read_replica(&key).await) };
        self.timed(Op::ReadReplica, limit / 4, read).await.ok().flatten()
    }

    /// Reads several records, in one round trip to each server that holds some of them. If one
    /// server fails, the results of the others are still returned.
    pub(crate) async fn read_many(
        &self,
        asks: impl IntoIterator<Item = (&str, Option<LoadLockRequest>)>,
        limit: Duration,
    ) -> Vec<Result<Read, L2Error>> {
        let (keys, asks): (Vec<_>, Vec<_>) =
            asks.into_iter().map(|(key, ask)| (key, (self.record_key(key), ask))).unzip();
        let parts = self.by_server(asks, |(key, _)| key);
        let calls: Vec<_> = parts.values().map(|(_, asks)| self.read_part(asks, limit)).collect();
        let reads = in_order(
            parts
                .values()
                .zip(join_all(calls).await)
                .map(|((places, _), part)| (places, of_each(part, places.len()))),
        );
        self.news(|| keys.into_iter().map(KeyHash::of));
        reads
    }

    /// The heads of several records, in one round trip to each server that holds some of them. If a
    /// server refuses the batch because of one key, such as a key of another type, each key is read
    /// separately.
    pub(crate) async fn read_heads(
        &self,
        keys: impl IntoIterator<Item = &str>,
        limit: Duration,
    ) -> Vec<Result<Option<Head>, L2Error>> {
        let keys: Vec<_> = keys.into_iter().collect();
        let of_records = keys.iter().map(|key| self.record_key(key)).collect();
        let parts = self.by_server(of_records, |key| key);
        let calls: Vec<_> = parts.values().map(|(_, keys)| self.heads_part(keys, limit)).collect();
        let heads = in_order(parts.values().map(|(places, _)| places).zip(join_all(calls).await));
        self.news(|| keys.iter().map(|key| KeyHash::of(key)));
        heads
    }

    /// Splits a batch by server; keeps the positions in the batch.
    fn by_server<A>(&self, asks: Vec<A>, key: impl Fn(&A) -> &str) -> Parts<A> {
        let mut parts = Parts::new();
        for (at, ask) in asks.into_iter().enumerate() {
            let (places, asks) = parts.entry(self.store.server_of(key(&ask))).or_default();
            places.push(at);
            asks.push(ask);
        }
        parts
    }

    async fn read_part(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
        limit: Duration,
    ) -> Result<Vec<Read>, L2Error> {
        let call = self.store().read_many(asks);
        let reads = self.bounded(Op::ReadMany, &asks[0].0, limit, call).await?;
        let requests = asks.iter().map(|(_, ask)| *ask);
        self.count_load_locks(Op::ReadMany, requests.zip(reads.iter().map(Some)));
        if reads.len() == asks.len() {
            return Ok(reads);
        }
        let what = format!("{} reads requested, {} returned", asks.len(), reads.len());
        let error = L2Error::new(L2ErrorKind::Other, what);
        self.telemetry.l2_failed(&error);
        Err(error)
    }

    async fn heads_part(
        &self,
        keys: &[String],
        limit: Duration,
    ) -> Vec<Result<Option<Head>, L2Error>> {
        let start = Instant::now();
        let mut all =
            self.bounded(Op::ReadHeads, &keys[0], limit, self.store().read_heads(keys)).await;
        if let (Err(error), true) = (&all, keys.len() > 1)
            && matches!(error.kind(), L2ErrorKind::Foreign | L2ErrorKind::Other)
        {
            let head = async |key| {
                let left = limit.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(timed_out(limit));
                }
                let call = self.store().read_heads(std::slice::from_ref(key));
                Ok(self.bounded(Op::ReadHeads, key, left, call).await?.first().copied().flatten())
            };
            let each: Vec<_> = keys.iter().map(head).collect();
            // At most this many at the same time.
            return stream::iter(each).buffered(64).collect().await;
        }
        if let Ok(heads) = &mut all {
            // A missing result counts as unknown.
            heads.resize(keys.len(), None);
        }
        of_each(all, keys.len())
    }

    /// Requests a number for a removal from the ledger.
    pub(crate) async fn advance(
        &self,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
        limit: Duration,
    ) -> Result<Advanced, L2Error> {
        let call = self.store().advance(&self.ledger, ask, announce);
        let advanced = self.bounded(Op::Advance, &self.ledger, limit, call).await;
        if matches!(&advanced, Ok(numbers) if numbers.announced) {
            self.telemetry.published(Notice::Removal);
        }
        advanced
    }

    /// Syncs with the ledger. Ignores the breaker, as this call is its probe. The flag says whether
    /// a breaker was closed since the last reply.
    pub(crate) async fn sync(
        &self,
        ask: &SyncAsk,
        limit: Duration,
    ) -> Result<(SyncReply, bool), L2Error> {
        let server = self.store.server_of(&self.ledger);
        let result = self.timed(Op::Sync, limit, self.store().sync(&self.ledger, ask)).await;
        let mut closed = self.count(&server, &self.ledger, &result);
        if server.is_some() && result.is_ok() {
            // Calls that failed before the servers were known counted for the unnamed breaker.
            closed |= self.count(&None, &self.ledger, &result);
        }
        let reply = result?;
        self.met.store(true, Ordering::Release);
        self.telemetry.l2_met();
        let closed = self.came_back.swap(false, Ordering::AcqRel) || closed;
        Ok((reply, closed))
    }

    /// The ledger's last number, read beside another call. Does not count for the breaker: the poll
    /// is enough for that.
    pub(crate) async fn frontier(
        &self,
        epoch: Epoch,
        shared: bool,
        limit: Duration,
    ) -> Result<Option<u64>, L2Error> {
        if self.is_ledger_open() {
            return Err(L2Error::circuit_open());
        }
        let (store, ledger) = (self.store(), &*self.ledger);
        let asked = match shared {
            true => store.shared_frontier(ledger, epoch),
            false => store.frontier(ledger, epoch),
        };
        let answer = timeout(limit, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out(limit)));
        answer.inspect_err(|error| self.telemetry.l2_failed(error))
    }

    /// Whether [`frontier`](Self::frontier) is almost free beside a call on this key.
    pub(crate) fn is_ledger_near(&self, key: &str) -> bool {
        self.store.is_ledger_near(&self.ledger, &self.record_key(key))
    }

    /// The replication id of each server. Does not count for a breaker, and skips a server whose
    /// breaker is open.
    pub(crate) async fn replication_ids(&self, limit: Duration) -> Vec<ReplicationId> {
        let named: Vec<Server> = self.store.servers().into_iter().map(Some).collect();
        let servers = if named.is_empty() { vec![None] } else { named };
        join_all(servers.into_iter().map(|server| self.replication_id(server, limit))).await
    }

    async fn replication_id(&self, server: Server, limit: Duration) -> ReplicationId {
        if self.breakers.is_open(|| server.clone()) {
            return (server, Err(L2Error::circuit_open()));
        }
        let answer = timeout(limit, self.store().replication_id(server.as_deref())).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out(limit)));
        (server, answer.inspect_err(|error| self.telemetry.l2_failed(error)))
    }

    /// The server that holds a key's record.
    pub(crate) fn server_of(&self, key: &str) -> Server {
        self.store.server_of(&self.record_key(key))
    }

    /// The L2 key of a key's record.
    fn record_key(&self, key: &str) -> String {
        if key.len() <= LONGEST_PLAIN_KEY {
            return [&*self.records, key].concat();
        }
        let mut hashed = self.hashed.clone();
        let _ = write!(hashed, "{:032x}", KeyHash::of(key).0);
        hashed
    }

    /// The latest time at which a `set` sent now may run; `None` before the first `SYNC`.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Deadline> {
        let clock = Arc::clone(&self.telemetry.clock);
        if sabotaged!(SetRunsLate) {
            return Some(Deadline::after(clock, Duration::MAX));
        }
        self.met.load(Ordering::Acquire).then(|| Deadline::of_call(clock, limit))
    }

    /// Makes a call on this record key, or on the ledger, within the limit.
    async fn bounded<R>(
        &self,
        op: Op,
        key: &str,
        limit: Duration,
        call: Call<'_, R>,
    ) -> Result<R, L2Error> {
        let server = self.store.server_of(key);
        if self.breakers.is_open(|| server.clone()) {
            return Err(L2Error::circuit_open());
        }
        let result = self.timed(op, limit, call).await;
        if self.count(&server, key, &result) {
            self.came_back.store(true, Ordering::Release);
        }
        result
    }

    /// Counts a call on these keys that was cancelled after this time, before its own limit.
    pub(crate) fn given_up<'k>(&self, keys: impl IntoIterator<Item = &'k str>, after: Duration) {
        let keys = keys.into_iter().map(|key| self.record_key(key));
        let servers: BTreeMap<_, _> = keys.map(|key| (self.store.server_of(&key), key)).collect();
        if let (1, Some((server, key))) = (servers.len(), servers.first_key_value()) {
            self.count::<()>(server, key, &Err(timed_out(after)));
            return;
        }
        self.telemetry.l2_failed(&timed_out(after));
        servers.iter().for_each(|(server, key)| self.breakers.suspect(server, key));
        self.probe_wanted.notify_one();
    }

    /// Counts a result for the breaker of a server; true if this closed it.
    fn count<R>(&self, server: &Server, key: &str, result: &Result<R, L2Error>) -> bool {
        if let Err(error) = result {
            self.telemetry.l2_failed(error);
        }
        let Some(error) = result.as_ref().err().filter(|error| error.is_outage()) else {
            return self.close(server);
        };
        if self.breakers.failed(server, key) {
            self.telemetry.unreachable(server.as_ref(), error);
            self.telemetry.emit(|| Event::L2Breaker { open: true, server: server.clone() });
            self.probe_wanted.notify_one();
        }
        false
    }

    fn close(&self, server: &Server) -> bool {
        let closed = self.breakers.answered(server);
        if closed {
            if !self.any_is_open() {
                self.telemetry.fault_over(Fault::Unreachable);
            }
            self.telemetry.emit(|| Event::L2Breaker { open: false, server: server.clone() });
        }
        closed
    }
}

/// The results of all servers, in the order of the batch.
fn in_order<'a, R>(
    parts: impl Iterator<Item = (&'a Vec<usize>, Vec<Result<R, L2Error>>)>,
) -> Vec<Result<R, L2Error>> {
    let all = parts.flat_map(|(places, answers)| places.iter().copied().zip(answers));
    let mut all: Vec<(usize, Result<R, L2Error>)> = all.collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, answer)| answer).collect()
}

/// The results of one server for each key; an error counts for every key.
fn of_each<R>(answer: Result<Vec<R>, L2Error>, count: usize) -> Vec<Result<R, L2Error>> {
    match answer {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
    }
}

fn timed_out(limit: Duration) -> L2Error {
    L2Error::new(L2ErrorKind::Timeout, format!("no answer within {} ms", nanos(limit) / 1_000_000))
}
