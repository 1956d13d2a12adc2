//! One node's connection to the store. Every call meets a fate, and the history records every
//! change.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, L2ErrorKind, Read,
    Record,
};
use crinkle_core::protocol::ledger::{Advance, Advanced, SyncAsk, SyncReply};
use crinkle_core::protocol::record::{Head, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Version};
use futures_util::FutureExt;
use rand::Rng;
use tokio::time::sleep;

use super::copies::Copies;
use super::demotion::Kind;
use super::link::{Link, Sick};
use super::scribe::{Scribe, Written, load_of, shown};
use super::world::{CALL, World};
use crate::history::{At, Operation, Synced};

/// What happens to a call.
enum Fate {
    Pass {
        before: u64,
        after: u64,
    },
    Fail(L2ErrorKind),
    LoseReply,
    Hang,
    RunLate(u64),
    /// It runs, but the caller gets no answer.
    Swallow,
}

/// The store as one node reaches it.
#[derive(Debug)]
pub(super) struct SimL2 {
    world: Arc<World>,
    link: Arc<Link>,
}

impl SimL2 {
    pub(super) fn new(world: Arc<World>, link: Arc<Link>) -> Self {
        Self { world, link }
    }

    fn fate(&self) -> Fate {
        if *self.link.down.borrow() {
            return Fate::Hang;
        }
        let now = self.world.ms();
        let (sick, swallows, arrives) = {
            let trouble = self.link.trouble.lock();
            let sick = trouble.sick.filter(|(_, until)| *until > now);
            (sick, trouble.swallows > now, trouble.arrives)
        };
        if swallows {
            return if arrives { Fate::Swallow } else { Fate::Hang };
        }
        let mut rng = self.link.rng.lock();
        let mut sick = sick.map(|(sick, _)| sick);
        if sick == Some(Sick::Flaky) {
            let drawn = [
                Sick::Down,
                Sick::LosesReplies,
                Sick::RunsLate,
                Sick::Slow,
                Sick::Hangs,
                Sick::Full,
            ];
            sick = drawn.get(rng.random_range(0..12)).copied();
        }
        let pass = |before, after| Fate::Pass { before, after };
        match sick {
            None => match rng.random_range(0..4) {
                0 => pass(0, 0),
                1 => pass(rng.random_range(0..4), rng.random_range(0..4)),
                2 => pass(rng.random_range(0..30), 0),
                _ => pass(0, rng.random_range(0..30)),
            },
            Some(Sick::Down) => Fate::Fail(L2ErrorKind::Disconnected),
            Some(Sick::Full) => Fate::Fail(L2ErrorKind::Full),
            Some(Sick::LosesReplies) => Fate::LoseReply,
            Some(Sick::Hangs | Sick::Flaky) => Fate::Hang,
            Some(Sick::Slow) => pass(rng.random_range(0..300), rng.random_range(0..300)),
            Some(Sick::AnswersLate(ms)) => pass(0, ms),
            Some(Sick::RunsLateBy(ms)) => Fate::RunLate(ms),
            Some(Sick::RunsLate) => Fate::RunLate(rng.random_range(100..2000)),
        }
    }

    /// Runs a writing operation according to its fate. `effect` runs it and records it.
    async fn run_write<R: Send + 'static>(
        &self,
        effect: impl FnOnce(&Scribe) -> Result<R, L2Error> + Send + 'static,
    ) -> Result<R, L2Error> {
        let (link, world) = (Arc::clone(&self.link), Arc::clone(&self.world));
        // The server may be demoted while the command is on its way.
        let effect = move |scribe: &Scribe| {
            link.answers(&world, Kind::Writes)?;
            effect(scribe)
        };
        match self.link.answers(&self.world, Kind::Writes) {
            Ok(other) => self.run(other, effect).await,
            Err(refused) => {
                nap(1).await;
                Err(refused)
            }
        }
    }

    fn ledger_answers(&self) -> Result<(), L2Error> {
        let silent = self.link.trouble.lock().ledger_silent > self.world.ms();
        let error = || L2Error::new(L2ErrorKind::Disconnected, "the ledger does not answer");
        if silent { Err(error()) } else { Ok(()) }
    }

    /// The same for an operation that only reads.
    async fn run_read<R: Send + 'static>(
        &self,
        effect: impl FnOnce(&Scribe) -> Result<R, L2Error> + Send + 'static,
    ) -> Result<R, L2Error> {
        let other = self.link.answers(&self.world, Kind::Reads)?;
        self.run(other, effect).await
    }

    async fn run<R: Send + 'static>(
        &self,
        other: Option<Arc<Copies>>,
        effect: impl FnOnce(&Scribe) -> Result<R, L2Error> + Send + 'static,
    ) -> Result<R, L2Error> {
        let call = CALL.try_with(|call| *call).ok();
        let sent = self.world.at().order;
        if let Some(call) = call {
            self.world.log.lock().calls[call].asked += 1;
        }
        let (world, node) = (Arc::clone(&self.world), self.link.node);
        let scribe = Scribe { world, node, call, sent, other };
        match self.fate() {
            Fate::Pass { before, after } => {
                nap(before).await;
                let result = effect(&scribe);
                nap(after).await;
                if *self.link.down.borrow() {
                    std::future::pending::<()>().await;
                }
                result
            }
            Fate::Fail(kind) => Err(L2Error::new(kind, "injected by the plan")),
            Fate::LoseReply => {
                nap(1).await;
                let _ = effect(&scribe);
                Err(L2Error::new(L2ErrorKind::Disconnected, "the reply was lost"))
            }
            Fate::Hang => std::future::pending().await,
            Fate::Swallow => {
                nap(1).await;
                let _ = effect(&scribe);
                std::future::pending().await
            }
            Fate::RunLate(by) => {
                let late = async move {
                    nap(by).await;
                    let _ = effect(&scribe);
                };
                drop(tokio::spawn(late));
                std::future::pending().await
            }
        }
    }
}

async fn nap(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

fn heads(scribe: &Scribe, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
    let each = keys.iter().map(|key| {
        let heads = now(scribe.store(key).read_heads(std::slice::from_ref(key)))?;
        Ok(heads.into_iter().next().flatten())
    });
    each.collect()
}

fn now<R>(ready: impl Future<Output = R>) -> R {
    ready.now_or_never().expect("the store in memory answers at once")
}

#[async_trait]
impl L2 for SimL2 {
    fn bus(&self) -> Option<BusId> {
        self.world.first().bus()
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        let key = key.to_owned();
        // Without a load lock, a read is two commands: the TTL and the record. Other commands may
        // run between them.
        let apart = ask.is_none() && self.link.rng.lock().random_bool(0.3);
        if apart {
            let first = key.clone();
            let first_read =
                self.run_read(move |scribe| now(scribe.store(&first).read(&first, None))).await?;
            let mut read =
                self.run_read(move |scribe| now(scribe.store(&key).read(&key, None))).await?;
            if let Some(found) = &mut read.found {
                found.ttl_ms = first_read.found.map_or(0, |found| found.ttl_ms);
            }
            return Ok(read);
        }
        let writes = ask.is_some();
        let effect = move |scribe: &Scribe| {
            let read = now(scribe.store(&key).read(&key, ask));
            scribe.detail(&key, || format!("READ {} {ask:?}", shown(&read)));
            read
        };
        if writes { self.run_write(effect).await } else { self.run_read(effect).await }
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        let asks = asks.to_vec();
        let writes = asks.iter().any(|(_, ask)| ask.is_some());
        let effect = move |scribe: &Scribe| {
            let reads = asks
                .iter()
                .map(|(key, ask)| now(scribe.store(key).read(key, *ask)))
                .collect::<Result<Vec<_>, _>>();
            for ((key, ask), read) in asks.iter().zip(reads.iter().flatten()) {
                scribe.detail(key, || format!("READ {:?} {ask:?}", read.load_lock));
            }
            reads
        };
        if writes { self.run_write(effect).await } else { self.run_read(effect).await }
    }

    fn replica_lag(&self) -> Option<Duration> {
        self.world.plan.replica_lag_ms.map(Duration::from_millis)
    }

    async fn read_replica(&self, key: &str) -> Option<Found> {
        // The node measures the replica lag by its own clock, so a jump makes the measurement
        // wrong.
        let jumped = self.world.log.lock().node_runs[self.link.node].jumped_ms.is_some();
        let copies = self.world.replica.lock().in_step(self.world.ms()).filter(|_| !jumped)?;
        let key = key.to_owned();
        let read = self.run(Some(copies), move |scribe| {
            let read = now(scribe.store(&key).read(&key, None));
            scribe.detail(&key, || format!("READ of a replica {}", shown(&read)));
            read
        });
        let found = read.await.ok()?.found;
        if found.is_some() {
            self.world.log.lock().count("replica read");
        }
        found
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        let keys = keys.to_vec();
        self.run_read(move |scribe| heads(scribe, &keys)).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        let announce = self.link.wire.announces(announce);
        let key = key.to_owned();
        self.run_write(move |scribe| {
            let (load, message) = (load_of(&record), announce.as_ref().map(|a| a.message.clone()));
            let written = scribe.written(&key, &record);
            let put = now(scribe.store(&key).put(&key, expected, record, announce));
            scribe.detail(&key, || format!("PUT over {expected:?}: {put:?}"));
            if let (Ok(Put::Stored), Some(load)) = (&put, load) {
                scribe.note(&key, Operation::Put(load), written, message);
            }
            put
        })
        .await
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let announce = self.link.wire.announces(announce);
        let key = key.to_owned();
        self.run_write(move |scribe| {
            let (load, message) = (load_of(&record), announce.as_ref().map(|a| a.message.clone()));
            let written = scribe.written(&key, &record);
            let set = now(scribe.store(&key).set(&key, record, deadline, announce));
            let operation = match (&set, load) {
                (Ok(()), Some(load)) => Operation::Set(load),
                _ => Operation::Remove,
            };
            scribe.note(&key, operation, written, message);
            set
        })
        .await
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        let announce = self.link.wire.announces(announce);
        let key = key.to_owned();
        self.run_write(move |scribe| {
            let message = announce.as_ref().map(|a| a.message.clone());
            let removed = now(scribe.store(&key).remove(&key, announce));
            scribe.note(&key, Operation::Remove, Written::default(), message);
            removed
        })
        .await
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let announce = self.link.wire.announces(announce);
        let key = key.to_owned();
        self.run_write(move |scribe| {
            let message = announce.as_ref().map(|a| a.message.clone());
            let expired = now(scribe.store(&key).expire(&key, version, announce));
            let written = Written { version: Some(version.0), stamp: None };
            scribe.note(&key, Operation::Expire, written, message);
            expired
        })
        .await
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        let key = key.to_owned();
        self.run_write(move |scribe| {
            scribe.detail(&key, || format!("RELEASE {load_lock:?}"));
            now(scribe.store(&key).release(&key, load_lock))
        })
        .await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        let key = key.to_owned();
        self.run_write(move |scribe| {
            let renewed = now(scribe.store(&key).renew(&key, load_lock, ttl_ms));
            scribe.detail(&key, || format!("RENEW {load_lock:?}: {renewed:?}"));
            renewed
        })
        .await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let announce = self.link.wire.numbers(announce);
        let (ledger, ask) = (ledger.to_owned(), ask.clone());
        self.run_write(move |scribe| {
            let announced = announce.clone();
            let advanced = now(scribe.first().advance(&ledger, &ask, announce));
            if let Ok(advanced) = &advanced {
                scribe.numbered(&ask, announced.as_ref(), *advanced);
            }
            advanced
        })
        .await
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        let (known, ledger, ask) = ((ask.epoch, ask.frontier), ledger.to_owned(), ask.clone());
        self.ledger_answers()?;
        let answered = self.run_write(move |scribe| {
            let reply = now(scribe.first().sync(&ledger, &ask))?;
            Ok((reply, scribe.world.at()))
        });
        let (reply, applied): (SyncReply, At) = answered.await?;
        let at = self.world.at();
        let is_equal = known == (Some(reply.epoch), reply.frontier);
        let synced = Synced { node: self.link.node, applied, at, is_equal };
        self.world.log.lock().synced.push(synced);
        Ok(reply)
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        let ledger = ledger.to_owned();
        self.ledger_answers()?;
        self.run_write(move |scribe| now(scribe.first().frontier(&ledger, epoch))).await
    }

    fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
        let (first, of_key) = (self.world.first(), self.world.store(key));
        std::ptr::eq(first, of_key) && first.is_ledger_near(ledger, key)
    }

    async fn replication_id(&self, _server: Option<&str>) -> Result<Option<u64>, L2Error> {
        let of_another = self.link.replication_id(self.world.ms());
        self.run_read(move |scribe| {
            Ok(Some(of_another.unwrap_or_else(|| scribe.world.replication_id())))
        })
        .await
    }
}
