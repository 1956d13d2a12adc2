//! A worker's store and bus. They record everything that passes: commands, answers, and commands
//! with unknown outcome.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_backplane::RedisBackplane;
use crinkle_core::ServerHealth;
use crinkle_core::backplane::message::{self, Body};
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::{
    Announce, AnnounceRemoval, Atomicity, BusId, Deadline, Found, L2, L2Error, L2ErrorKind, Read,
    Record,
};
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, SyncAsk, SyncReply, Target};
use crinkle_core::protocol::record::{Head, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, TagHash, Version};
use crinkle_l2_redis::RedisL2;
use parking_lot::Mutex;

use super::diary::Diary;
use super::event::{Event, Ns};
use super::{key_of, read_value};
use crate::history::{Operation, Scope};
use crate::sim::TAGS;

tokio::task_local! {
    /// The call for which the store is used.
    pub(super) static CALL: usize;
}

/// The store of a worker.
#[derive(Debug)]
pub(super) struct TappedL2 {
    inner: RedisL2,
    diary: Diary,
    /// When each removal was first sent; a repeated removal keeps its number.
    removals: Mutex<HashMap<u64, Ns>>,
}

impl TappedL2 {
    pub(super) fn new(inner: RedisL2, diary: Diary) -> Self {
        Self { inner, diary, removals: Mutex::default() }
    }

    fn sending(&self, key: Option<u8>, operation: Operation, message: Option<&Bytes>) -> Sent<'_> {
        let sent = self.diary.at();
        let call = CALL.try_with(|call| *call).ok();
        let message = message.map(|message| hash(message));
        Sent { diary: &self.diary, sent, key, operation: Some(operation), call, message, id: None }
    }
}

/// A command in progress. If the caller drops it, its outcome is unknown.
struct Sent<'a> {
    diary: &'a Diary,
    sent: Ns,
    key: Option<u8>,
    operation: Option<Operation>,
    call: Option<usize>,
    message: Option<u64>,
    id: Option<(u64, u64)>,
}

impl Sent<'_> {
    /// Records the answer: the command did this operation, or nothing.
    fn answered(mut self, operation: Option<Operation>) {
        if let Some(operation) = operation {
            let at = Some(self.diary.at());
            self.write(at, operation);
        }
        self.operation = None;
    }

    /// Records an error, which may leave the outcome unknown. L2 may have announced a refused
    /// command, so [`Operation::Evict`] replaces its operation.
    fn failed(mut self, error: &L2Error) {
        if !error.is_unknown() {
            self.operation = Some(Operation::Evict);
        }
    }

    fn write(&self, at: Option<Ns>, operation: Operation) {
        let Sent { sent, key, call, message, id, .. } = *self;
        self.diary.note(Event::Applied { sent, at, key, operation, call, message, id });
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.write(None, operation);
        }
    }
}

/// Returns the key of a record's name.
fn key_in(record: &str) -> Option<u8> {
    record.split_once("v1:e:").and_then(|(_, name)| key_of(name))
}

fn load_of(record: &Record) -> Option<usize> {
    read_value(&record.bytes).map(|value| value.load)
}

/// Identifies a message.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns what a removal covers.
fn scope_of(ask: &Advance) -> Scope {
    if ask.removal.targets.contains(&Target::Everything) {
        return Scope::All;
    }
    let has = |tag: &str| ask.removal.targets.contains(&Target::Tag(TagHash::of(tag)));
    let bits = TAGS.iter().enumerate().filter(|(_, tag)| has(tag)).map(|(at, _)| 1 << at);
    Scope::Tags(bits.sum())
}

#[async_trait]
impl L2 for TappedL2 {
    fn bus(&self) -> Option<BusId> {
        self.inner.bus()
    }

    fn atomicity(&self) -> Atomicity {
        self.inner.atomicity()
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        self.inner.read(key, ask).await
    }

    async fn read_many(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
        self.inner.read_many(asks).await
    }

    fn replica_lag(&self) -> Option<Duration> {
        self.inner.replica_lag()
    }

    async fn read_replica(&self, key: &str) -> Option<Found> {
        self.inner.read_replica(key).await
    }

    async fn read_heads(&self, keys: &[String]) -> Result<Vec<Option<Head>>, L2Error> {
        self.inner.read_heads(keys).await
    }

    async fn put(
        &self,
        key: &str,
        expected: Version,
        record: Record,
        announce: Option<Announce>,
    ) -> Result<Put, L2Error> {
        let operation = load_of(&record).map_or(Operation::Evict, Operation::Put);
        let sent = self.sending(key_in(key), operation, announce.as_ref().map(|a| &a.message));
        let put = self.inner.put(key, expected, record, announce).await;
        match &put {
            Ok(put) => sent.answered((*put == Put::Stored).then_some(operation)),
            Err(error) => sent.failed(error),
        }
        put
    }

    async fn set(
        &self,
        key: &str,
        record: Record,
        deadline: Option<Deadline>,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let operation = load_of(&record).map_or(Operation::Remove, Operation::Set);
        let sent = self.sending(key_in(key), operation, announce.as_ref().map(|a| &a.message));
        let set = self.inner.set(key, record, deadline, announce).await;
        match &set {
            Ok(()) => sent.answered(Some(operation)),
            Err(error) if error.kind() == L2ErrorKind::Late => {
                sent.answered(Some(Operation::Remove));
            }
            Err(error) => sent.failed(error),
        }
        set
    }

    async fn remove(&self, key: &str, announce: Option<Announce>) -> Result<(), L2Error> {
        let message = announce.as_ref().map(|a| &a.message);
        let sent = self.sending(key_in(key), Operation::Remove, message);
        let removed = self.inner.remove(key, announce).await;
        match &removed {
            Ok(()) => sent.answered(Some(Operation::Remove)),
            Err(error) => sent.failed(error),
        }
        removed
    }

    async fn expire(
        &self,
        key: &str,
        version: Version,
        announce: Option<Announce>,
    ) -> Result<(), L2Error> {
        let message = announce.as_ref().map(|a| &a.message);
        let sent = self.sending(key_in(key), Operation::Expire, message);
        let expired = self.inner.expire(key, version, announce).await;
        match &expired {
            Ok(()) => sent.answered(Some(Operation::Expire)),
            Err(error) => sent.failed(error),
        }
        expired
    }

    async fn release(&self, key: &str, load_lock: Version) -> Result<(), L2Error> {
        self.inner.release(key, load_lock).await
    }

    async fn renew(&self, key: &str, load_lock: Version, ttl_ms: u64) -> Result<bool, L2Error> {
        self.inner.renew(key, load_lock, ttl_ms).await
    }

    async fn advance(
        &self,
        ledger: &str,
        ask: &Advance,
        announce: Option<AnnounceRemoval>,
    ) -> Result<Advanced, L2Error> {
        let (scope, hard) = (scope_of(ask), ask.removal.strength == Strength::Hard);
        let nonce = ask.removal.nonce.0;
        let operation = Operation::Advance { scope, hard, epoch: 0, number: 0 };
        let mut sent = self.sending(None, operation, None);
        sent.sent = *self.removals.lock().entry(nonce).or_insert(sent.sent);
        let announced = announce.clone();
        let advanced = self.inner.advance(ledger, ask, announce).await;
        match &advanced {
            Ok(advanced) => {
                sent.id = Some((advanced.epoch.0, nonce));
                sent.message =
                    announced.map(|removal| hash(&message::numbered(&removal, *advanced)));
                sent.answered(Some(Operation::Advance {
                    scope,
                    hard,
                    epoch: 0,
                    number: advanced.seq,
                }));
            }
            Err(error) => sent.failed(error),
        }
        advanced
    }

    async fn sync(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        let sent = self.diary.at();
        let reply = self.inner.sync(ledger, ask).await?;
        let at = self.diary.at();
        self.diary.note(Event::Synced { sent, at });
        Ok(reply)
    }

    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        self.inner.frontier(ledger, epoch).await
    }

    fn is_ledger_near(&self, ledger: &str, key: &str) -> bool {
        self.inner.is_ledger_near(ledger, key)
    }

    async fn replication_id(&self, server: Option<&str>) -> Result<Option<u64>, L2Error> {
        self.inner.replication_id(server).await
    }

    fn server_of(&self, key: &str) -> Option<Arc<str>> {
        self.inner.server_of(key)
    }

    fn servers(&self) -> Vec<Arc<str>> {
        self.inner.servers()
    }

    fn replicas(&self) -> Vec<ServerHealth> {
        self.inner.replicas()
    }
}

/// The bus of a worker.
#[derive(Debug)]
pub(super) struct TappedBus {
    pub(super) inner: RedisBackplane,
    pub(super) diary: Diary,
}

#[derive(Debug)]
struct TappedSubscription {
    inner: Box<dyn Subscription>,
    diary: Diary,
}

#[async_trait]
impl Backplane for TappedBus {
    fn bus(&self) -> Option<BusId> {
        self.inner.bus()
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        self.inner.publish(channel, message).await
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let inner = self.inner.subscribe(channels).await?;
        let diary = self.diary.clone();
        diary.note(Event::Subscribed { at: diary.at() });
        Ok(Box::new(TappedSubscription { inner, diary }))
    }
}

#[async_trait]
impl Subscription for TappedSubscription {
    async fn next(&mut self) -> Option<Incoming> {
        let incoming = self.inner.next().await;
        if let Some(Incoming::Message(bytes)) = &incoming {
            let news = message::decode(bytes).is_some_and(|message| {
                matches!(message.body, Body::Key { .. } | Body::Removal { .. })
            });
            if news {
                let at = self.diary.at();
                self.diary.note(Event::Received { at, message: hash(bytes) });
            }
        }
        incoming
    }
}
