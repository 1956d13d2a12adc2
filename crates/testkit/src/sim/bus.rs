//! One node's way to the bus: messages are lost, repeated, kept back and reordered.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body, KeyOp, Message};
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use crinkle_core::protocol::KeyHash;
use rand::Rng;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::{KEYS, LATE_MESSAGE_MS, PROBES};
use super::world::{Link, World};
use crate::history::{Deed, Heard, Log};

/// The bus, as one node reaches it.
#[derive(Debug)]
pub(super) struct SimBus {
    world: Arc<World>,
    link: Arc<Link>,
}

/// A subscription of a [`SimBus`].
#[derive(Debug)]
struct SimSubscription {
    inner: Box<dyn Subscription>,
    world: Arc<World>,
    link: Arc<Link>,
    life: u64,
    /// What is on its way, by when it arrives and in which order it was sent.
    queue: BTreeMap<(Instant, u64), Incoming>,
    sent: u64,
    newest: Option<Instant>,
    /// The plan has something in store for it.
    moved: Pin<Box<OwnedNotified>>,
}

impl SimBus {
    pub(super) fn new(world: Arc<World>, link: Arc<Link>) -> Self {
        Self { world, link }
    }

    /// Notes which change a message tells of that the store did not send itself.
    fn note(&self, bytes: &Bytes) {
        let Some(message) = message::decode(bytes) else { return };
        let mut log = self.world.log.lock();
        if let Some(applied) = applied_by(&log, self.link.node, &message) {
            log.applied[applied].told = true;
            log.told_by.insert(bytes.clone(), applied);
        }
    }
}

/// Whether it is a heartbeat to oneself.
fn is_own(incoming: &Incoming) -> bool {
    let Incoming::Message(bytes) = incoming else { return false };
    let body = message::decode(bytes).map(|message| message.body);
    matches!(body, Some(Body::Heartbeat { beat, .. }) if beat != 0)
}

/// The oldest such change that nobody was told of: of two writes at a time either may be told of first.
fn applied_by(log: &Log, node: usize, message: &Message) -> Option<usize> {
    match &message.body {
        Body::Removal { epoch, item } => log.numbers.get(&(epoch.0, item.seq)).copied(),
        Body::Key { op, key, .. } => {
            let name = KEYS.iter().chain(&PROBES).position(|name| KeyHash::of(name) == *key)?;
            let name = u8::try_from(name).ok();
            log.applied.iter().position(|applied| {
                let same = match op {
                    KeyOp::Written => matches!(applied.deed, Deed::Put(_) | Deed::Set(_)),
                    KeyOp::Removed => applied.deed == Deed::Remove,
                    KeyOp::Expired => applied.deed == Deed::Expire,
                    _ => false,
                };
                same && !applied.told && applied.node == Some(node) && applied.key == name
            })
        }
        _ => None,
    }
}

#[async_trait]
impl Backplane for SimBus {
    fn bus(&self) -> Option<BusId> {
        self.world.bus.bus()
    }

    async fn publish(&self, channel: &str, bytes: Bytes) -> Result<(), BackplaneError> {
        let now = self.world.ms();
        let (fails, hangs) = {
            let trouble = self.link.trouble.lock();
            (trouble.publish_fails > now, trouble.publish_hangs > now)
        };
        if hangs || *self.link.down.borrow() {
            std::future::pending::<()>().await;
        }
        if fails {
            return Err(BackplaneError::new("the plan says so"));
        }
        let delay = self.link.rng.lock().random_range(0..8_u64);
        if delay > 4 {
            sleep(Duration::from_millis(delay)).await;
        }
        self.note(&bytes);
        self.world.bus.publish(channel, bytes).await
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let now = self.world.ms();
        if self.link.trouble.lock().refuses > now {
            return Err(BackplaneError::new("the plan says so"));
        }
        let inner = self.world.bus.subscribe(channels).await?;
        let life = self.link.trouble.lock().life;
        let at = self.world.at();
        self.world.log.lock().subscribed.push((self.link.node, at));
        let (world, link) = (Arc::clone(&self.world), Arc::clone(&self.link));
        let moved = Box::pin(Arc::clone(&link.moved).notified_owned());
        let (queue, sent, newest) = (BTreeMap::new(), 0, None);
        Ok(Box::new(SimSubscription { inner, world, link, life, queue, sent, newest, moved }))
    }
}

impl SimSubscription {
    /// Decides about what came in.
    fn take(&mut self, incoming: Incoming) {
        let (now, ms) = (Instant::now(), self.world.ms());
        let (mute, drops, repeats, reorders) = {
            let trouble = self.link.trouble.lock();
            let mute = trouble.mute > ms || (trouble.hears_itself > ms && !is_own(&incoming));
            (mute, trouble.drops > ms, trouble.repeats > ms, trouble.reorders > ms)
        };
        let (lost, late, usual) = {
            let mut rng = self.link.rng.lock();
            let lost = drops && rng.random_bool(0.5);
            (lost, rng.random_range(0..LATE_MESSAGE_MS), rng.random_range(0..12_u64))
        };
        if mute || lost {
            self.world.log.lock().count("message lost");
            return;
        }
        let copies = if repeats { 2 } else { 1 };
        for copy in 0..copies {
            let delay = if reorders || copy > 0 { late } else { usual.saturating_sub(7) };
            let mut due = now + Duration::from_millis(delay);
            if !reorders && copy == 0 {
                due = self.newest.map_or(due, |newest| newest.max(due));
                self.newest = Some(due);
            }
            self.sent += 1;
            self.queue.insert((due, self.sent), incoming.clone());
        }
    }

    /// What has arrived.
    fn arrived(&mut self) -> Option<Incoming> {
        if self.queue.is_empty() {
            return None;
        }
        let first = self.queue.first_entry().filter(|first| first.key().0 <= Instant::now())?;
        let incoming = first.remove();
        if let Incoming::Message(bytes) = &incoming {
            let applied = self.world.log.lock().told_by.get(bytes).copied();
            if let Some(applied) = applied {
                let at = self.world.at();
                self.world.log.lock().heard.push(Heard { node: self.link.node, applied, at });
            }
        }
        Some(incoming)
    }

    /// What the plan has in store for it: the end of the subscription, or something that nobody sent.
    fn planned(&self) -> Option<Option<Incoming>> {
        let mut trouble = self.link.trouble.lock();
        if trouble.life != self.life {
            return Some(None);
        }
        if trouble.junk > 0 {
            trouble.junk -= 1;
            return Some(Some(Incoming::Message(Bytes::from_static(b"CB\x01junk"))));
        }
        if trouble.lags > 0 {
            trouble.lags -= 1;
            return Some(Some(Incoming::Lagged));
        }
        None
    }
}

#[async_trait]
impl Subscription for SimSubscription {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            if *self.link.down.borrow() {
                std::future::pending::<()>().await;
            }
            if let Some(planned) = self.planned() {
                return planned;
            }
            if let Some(incoming) = self.arrived() {
                return Some(incoming);
            }
            let due = self.queue.first_key_value().map(|((due, _), _)| *due);
            let arrives = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut self.moved => {
                    self.moved.set(Arc::clone(&self.link.moved).notified_owned());
                }
                incoming = self.inner.next() => {
                    let incoming = incoming?;
                    self.take(incoming);
                }
                () = arrives => {}
            }
        }
    }
}
