//! One node's way to the store: every call has a fate, and every change of the store is written down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::message;
use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, L2, L2Error, L2ErrorKind, MemoryL2, Read, Record,
};
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, SyncAsk, SyncReply, Target};
use crinkle_core::protocol::record::{Head, LeaseAsk, Put};
use crinkle_core::protocol::{TagHash, Version};
use futures_util::FutureExt;
use rand::Rng;
use tokio::time::sleep;

use super::plan::TAGS;
use super::world::{CALL, Link, Sick, World, key_of, read_value};
use crate::history::{Applied, At, Deed, Scope, Synced};

/// What becomes of a call.
enum Fate {
    Pass { before: u64, after: u64 },
    Fail(L2ErrorKind),
    LoseReply,
    Hang,
    RunLate(u64),
}

/// The store, as one node reaches it.
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
        let sick = self.link.trouble.lock().sick.filter(|(_, until)| *until > now);
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

    /// Runs one operation, as its fate wills. `effect` does it and writes it down.
    async fn go<R: Send + 'static>(
        &self,
        effect: impl FnOnce(&Scribe) -> Result<R, L2Error> + Send + 'static,
    ) -> Result<R, L2Error> {
        let call = CALL.try_with(|call| *call).ok();
        let sent = self.world.at().order;
        let scribe = Scribe { world: Arc::clone(&self.world), node: self.link.node, call, sent };
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
            Fate::Fail(kind) => Err(L2Error::new(kind, "the plan says so")),
            Fate::LoseReply => {
                nap(1).await;
                let _ = effect(&scribe);
                Err(L2Error::new(L2ErrorKind::Disconnected, "the reply was lost"))
            }
            Fate::Hang => std::future::pending().await,
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

/// Does things to the store and writes them down.
struct Scribe {
    world: Arc<World>,
    node: usize,
    call: Option<usize>,
    sent: u32,
}

impl Scribe {
    fn store(&self) -> &MemoryL2 {
        &self.world.store
    }

    fn note(&self, key: &str, deed: Deed, message: Option<Bytes>) {
        let at = self.world.at();
        let key = key.split_once("v1:e:").and_then(|(_, name)| key_of(name));
        let mut log = self.world.log.lock();
        let index = log.apply(Applied {
            at,
            sent: self.sent,
            not_before: at.order,
            sure: true,
            node: Some(self.node),
            key,
            deed,
            call: self.call,
            told: false,
            lost: None,
        });
        if let Some(message) = message {
            log.told_by.insert(message, index);
        }
    }

    fn numbered(&self, ask: &Advance, announce: Option<&AnnounceRemoval>, advanced: Advanced) {
        let known = (advanced.epoch.0, advanced.seq);
        if self.world.log.lock().numbers.contains_key(&known) {
            return;
        }
        let mut tags = 0;
        for (at, tag) in TAGS.iter().enumerate() {
            if ask.removal.targets.contains(&Target::Tag(TagHash::of(tag))) {
                tags |= 1 << at;
            }
        }
        let all = ask.removal.targets.contains(&Target::Everything);
        let scope = if all { Scope::All } else { Scope::Tags(tags) };
        let hard = ask.removal.strength == Strength::Hard;
        let deed = Deed::Advance { scope, hard, number: advanced.seq };
        let message = announce.map(|announce| message::numbered(announce, advanced));
        self.note("", deed, message);
        let mut log = self.world.log.lock();
        let index = log.applied.len() - 1;
        log.numbers.insert(known, index);
    }
}

/// The load that a record carries.
fn load_of(record: &Record) -> Option<usize> {
    read_value(&record.bytes).map(|(_, load)| load)
}

fn now<R>(ready: impl Future<Output = R>) -> R {
    ready.now_or_never().expect("the store in memory answers at once")
}

#[async_trait]
impl L2 for SimL2 {
    fn bus(&self) -> Option<BusId> {
        self.world.store.bus()
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }

    async fn read(&self, key: &str, ask: Option<LeaseAsk>) -> Result<Read, L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| now(scribe.store().read(&key, ask))).await
    }

    async fn read_many(&self, asks: &[(String, Option<LeaseAsk>)]) -> Result<Vec<Read>, L2Error> {
        let asks = asks.to_vec();
        self.go(move |scribe| now(scribe.store().read_many(&asks))).await
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        let keys = keys.to_vec();
        self.go(move |scribe| now(scribe.store().read_heads(&keys))).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| {
            let (load, message) = (load_of(&record), announce.as_ref().map(|a| a.message.clone()));
            let put = now(scribe.store().put(&key, expected, record, announce));
            if let (Ok(Put::Stored), Some(load)) = (&put, load) {
                scribe.note(&key, Deed::Put(load), message);
            }
            put
        })
        .await
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        latest_us: Option<u64>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| {
            let (load, message) = (load_of(&record), announce.as_ref().map(|a| a.message.clone()));
            let set = now(scribe.store().set(&key, record, latest_us, announce));
            let deed = match (&set, load) {
                (Ok(()), Some(load)) => Deed::Set(load),
                _ => Deed::Remove,
            };
            scribe.note(&key, deed, message);
            set
        })
        .await
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| {
            let message = announce.as_ref().map(|a| a.message.clone());
            let removed = now(scribe.store().remove(&key, announce));
            scribe.note(&key, Deed::Remove, message);
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
        let key = key.to_owned();
        self.go(move |scribe| {
            let message = announce.as_ref().map(|a| a.message.clone());
            let expired = now(scribe.store().expire(&key, version, announce));
            scribe.note(&key, Deed::Expire, message);
            expired
        })
        .await
    }

    async fn release(&self, key: &str, lease: Version) -> Result<(), L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| now(scribe.store().release(&key, lease))).await
    }

    async fn renew(&self, key: &str, lease: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        let key = key.to_owned();
        self.go(move |scribe| now(scribe.store().renew(&key, lease, ttl_ms))).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let (ledger, ask) = (ledger.to_owned(), ask.clone());
        self.go(move |scribe| {
            let told = announce.clone();
            let advanced = now(scribe.store().advance(&ledger, &ask, announce));
            if let Ok(advanced) = &advanced {
                scribe.numbered(&ask, told.as_ref(), *advanced);
            }
            advanced
        })
        .await
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        let (ledger, ask) = (ledger.to_owned(), ask.clone());
        let answered = self.go(move |scribe| {
            let reply = now(scribe.store().sync(&ledger, &ask))?;
            Ok((reply, scribe.world.at()))
        });
        let (reply, applied): (SyncReply, At) = answered.await?;
        let at = self.world.at();
        self.world.log.lock().synced.push(Synced { node: self.link.node, applied, at });
        Ok(reply)
    }

    async fn lineage(&self) -> Result<Option<u64>, L2Error> {
        self.go(move |scribe| now(scribe.store().lineage())).await
    }
}
