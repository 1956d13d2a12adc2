//! Wraps a store; a test chooses the fate of each call and counts the calls.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crinkle_core::ServerHealth;
use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, L2ErrorKind, Read,
    Record,
};
use crinkle_core::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crinkle_core::protocol::record::{Head, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Version};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::fate::{Call, Fate, L2Op};
use super::gate::Gate;

#[derive(Debug, Default)]
struct Script {
    next: HashMap<L2Op, VecDeque<Fate>>,
    always: HashMap<L2Op, Fate>,
    calls: Vec<Call>,
    replica: Option<(Duration, Arc<dyn L2>)>,
    ledger_far: bool,
    servers: Vec<&'static str>,
    server_of: Option<fn(&str) -> &'static str>,
    /// The fates of all calls on the keys of a server.
    of_server: HashMap<&'static str, Fate>,
}

/// A store with injected faults. Created by [`l2()`].
#[derive(Debug)]
pub struct ChaosL2 {
    inner: Arc<dyn L2>,
    script: Arc<Mutex<Script>>,
}

/// Controls the fate of a [`ChaosL2`]'s calls, and records the calls.
#[derive(Clone, Debug)]
pub struct L2Handle {
    script: Arc<Mutex<Script>>,
}

/// Wraps a store. It forwards everything until a fault is injected.
#[must_use]
pub fn l2(inner: Arc<dyn L2>) -> (ChaosL2, L2Handle) {
    let script = Arc::new(Mutex::default());
    (ChaosL2 { inner, script: Arc::clone(&script) }, L2Handle { script })
}

impl L2Handle {
    /// Adds a replica with its allowed lag. Call this before a cache gets the store.
    pub fn replica(&self, lag: Duration, store: Arc<dyn L2>) {
        self.script.lock().replica = Some((lag, store));
    }

    /// Places the ledger on another server than the records, as in a cluster.
    pub fn ledger_far(&self) {
        self.script.lock().ledger_far = true;
    }

    /// Splits the store into several servers; `server_of` says which one holds a key. Call this
    /// before a cache gets the store.
    pub fn servers(&self, all: &[&'static str], server_of: fn(&str) -> &'static str) {
        let mut script = self.script.lock();
        (script.servers, script.server_of) = (all.to_vec(), Some(server_of));
    }

    /// Sets the fate of all calls on keys of one server, and of batches that begin with such a key.
    pub fn server(&self, name: &'static str, fate: Fate) {
        self.script.lock().of_server.insert(name, fate);
    }

    /// The number of calls on keys of one server.
    #[must_use]
    pub fn count_on(&self, name: &str) -> usize {
        let script = self.script.lock();
        let Some(server_of) = script.server_of else { return 0 };
        let keys = script.calls.iter().map(|call| &*call.key);
        keys.filter(|key| !key.is_empty() && server_of(key) == name).count()
    }

    /// Sets the fate of the next call of this kind that has none yet.
    pub fn next(&self, op: L2Op, fate: Fate) {
        self.script.lock().next.entry(op).or_default().push_back(fate);
    }

    /// Sets the fate of all calls of this kind, after those of [`next`](Self::next).
    pub fn always(&self, op: L2Op, fate: Fate) {
        self.script.lock().always.insert(op, fate);
    }

    /// Makes every call fail at once, as without a connection.
    pub fn down(&self) {
        for op in L2Op::ALL {
            self.always(op, Fate::Fail(L2ErrorKind::Disconnected));
        }
    }

    /// Makes every call hang.
    pub fn hang(&self) {
        for op in L2Op::ALL {
            self.always(op, Fate::Hang);
        }
    }

    /// Removes all injected faults.
    pub fn heal(&self) {
        let mut script = self.script.lock();
        script.next.clear();
        script.always.clear();
        script.of_server.clear();
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.script.lock().calls.clone()
    }

    /// The number of calls of this kind.
    #[must_use]
    pub fn count(&self, op: L2Op) -> usize {
        self.script.lock().calls.iter().filter(|call| call.op == op).count()
    }

    /// Calls so far that could change what the store holds.
    #[must_use]
    pub fn writes(&self) -> Vec<Call> {
        self.script.lock().calls.iter().filter(|call| call.op.writes()).cloned().collect()
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        self.script.lock().calls.clear();
    }
}

impl ChaosL2 {
    /// The gate, if the next call of this kind runs late.
    fn runs_late_behind(&self, op: L2Op) -> Option<Gate> {
        match self.script.lock().next.get(&op)?.front()? {
            Fate::RunLateBehind(gate) => Some(gate.clone()),
            _ => None,
        }
    }

    async fn call<R>(
        &self,
        op: L2Op,
        key: &str,
        run: impl Future<Output = Result<R, L2Error>> + Send,
    ) -> Result<R, L2Error> {
        self.meet(self.fate(op, key), run).await
    }

    fn fate(&self, op: L2Op, key: &str) -> Fate {
        let mut script = self.script.lock();
        script.calls.push(Call { op, key: key.to_owned() });
        let server = script.server_of.filter(|_| !key.is_empty()).map(|server_of| server_of(key));
        if let Some(fate) = server.and_then(|name| script.of_server.get(name)) {
            return fate.clone();
        }
        let next = script.next.get_mut(&op).and_then(VecDeque::pop_front);
        next.or_else(|| script.always.get(&op).cloned()).unwrap_or(Fate::Pass)
    }

    async fn meet<R>(
        &self,
        fate: Fate,
        run: impl Future<Output = Result<R, L2Error>> + Send,
    ) -> Result<R, L2Error> {
        match fate {
            Fate::Pass => run.await,
            Fate::Fail(kind) => Err(L2Error::new(kind, "injected by the test")),
            Fate::LoseReply => {
                let _ = run.await;
                Err(L2Error::new(L2ErrorKind::Disconnected, "the reply was lost"))
            }
            Fate::Hold(gate) => {
                gate.pass().await;
                run.await
            }
            Fate::HoldReply(gate) => {
                let result = run.await;
                gate.pass().await;
                result
            }
            Fate::Delay(by) | Fate::RunLate(by) => {
                sleep(by).await;
                run.await
            }
            Fate::RunLateBehind(_) => {
                Err(L2Error::new(L2ErrorKind::Disconnected, "the connection was lost"))
            }
            Fate::Hang | Fate::Late(_) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl L2 for ChaosL2 {
    fn bus(&self) -> Option<BusId> {
        self.inner.bus()
    }

    fn atomicity(&self) -> Atomicity {
        self.inner.atomicity()
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        let op = if ask.is_some() { L2Op::Read } else { L2Op::Look };
        self.call(op, key, self.inner.read(key, ask)).await
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        let first = asks.first().map_or("", |(key, _)| key);
        if let Some(gate) = self.runs_late_behind(L2Op::ReadMany) {
            let (inner, asks) = (Arc::clone(&self.inner), asks.to_vec());
            drop(tokio::spawn(async move {
                gate.pass().await;
                inner.read_many(&asks).await
            }));
        }
        self.call(L2Op::ReadMany, first, self.inner.read_many(asks)).await
    }

    fn replica_lag(&self) -> Option<Duration> {
        self.script.lock().replica.as_ref().map(|(lag, _)| *lag)
    }

    async fn read_replica(&self, key: &str) -> Option<Found> {
        let (_, replica) = self.script.lock().replica.clone()?;
        self.call(L2Op::Replica, key, replica.read(key, None)).await.ok()?.found
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        let first = keys.first().map_or("", |key| key);
        self.call(L2Op::Heads, first, self.inner.read_heads(keys)).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        self.call(L2Op::Put, key, self.inner.put(key, expected, record, announce)).await
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let fate = self.fate(L2Op::Set, key);
        let (by, deadline) = match fate {
            Fate::RunLate(by) => (by, None),
            Fate::Late(by) => (by, deadline),
            fate => return self.meet(fate, self.inner.set(key, record, deadline, announce)).await,
        };
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        drop(tokio::spawn(async move {
            sleep(by).await;
            inner.set(&key, record, deadline, announce).await
        }));
        std::future::pending().await
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        self.call(L2Op::Remove, key, self.inner.remove(key, announce)).await
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        self.call(L2Op::Expire, key, self.inner.expire(key, version, announce)).await
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.call(L2Op::Release, key, self.inner.release(key, load_lock)).await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        self.call(L2Op::Renew, key, self.inner.renew(key, load_lock, ttl_ms)).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        self.call(L2Op::Advance, ledger, self.inner.advance(ledger, ask, announce)).await
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        self.call(L2Op::Sync, ledger, self.inner.sync(ledger, ask)).await
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.call(L2Op::Frontier, ledger, self.inner.frontier(ledger, epoch)).await
    }

    async fn shared_frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.call(L2Op::SharedFrontier, ledger, self.inner.shared_frontier(ledger, epoch)).await
    }

    fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
        !self.script.lock().ledger_far && self.inner.is_ledger_near(ledger, key)
    }

    async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, L2Error> {
        let fate = server.and_then(|name| self.script.lock().of_server.get(name).cloned());
        let fate = fate.unwrap_or_else(|| self.fate(L2Op::ReplicationId, ""));
        self.meet(fate, self.inner.replication_id(server)).await
    }

    fn server_of(&self, key: &str) -> Option<Arc<str>> {
        let name = self.script.lock().server_of.map(|server_of| server_of(key));
        name.map_or_else(|| self.inner.server_of(key), |name| Some(name.into()))
    }

    fn servers(&self) -> Vec<Arc<str>> {
        let script = self.script.lock();
        let names = script.servers.iter().map(|name| Arc::from(*name)).collect();
        if script.server_of.is_some() { names } else { self.inner.servers() }
    }

    fn replicas(&self) -> Vec<ServerHealth> {
        self.inner.replicas()
    }
}
