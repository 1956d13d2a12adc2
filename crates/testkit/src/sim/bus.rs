//! One node's connection to the bus. It loses, repeats, delays and reorders messages.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body, KeyOp};
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use crinkle_core::protocol::KeyHash;
use rand::Rng;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::Link;
use super::plan::{KEYS, LATE_MESSAGE_MS, PROBES};
use super::wire::Wire;
use super::world::World;
use crate::history::{Log, Operation, Received};

/// The bus as one node reaches it.
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
    generation: u64,
    /// Messages in transit, ordered by delivery time and by the order of sending.
    queue: BTreeMap<(Instant, u64), Incoming>,
    sent: u64,
    newest: Option<Instant>,
    /// Notified when the plan injects something into this subscription.
    moved: Pin<Box<OwnedNotified>>,
}

impl SimBus {
    pub(super) fn new(world: Arc<World>, link: Arc<Link>) -> Self {
        Self { world, link }
    }

    /// Records which change a message announces, for changes that the store does not announce
    /// itself.
    fn note(&self, bytes: &Bytes, sent: &Bytes) {
        let Some(message) = message::decode(bytes) else { return };
        let mut log = self.world.log.lock();
        if let Some(applied) = applied_by(&log, self.link.node, &message.body) {
            log.applied[applied].announced = true;
            log.announced_by.insert(sent.clone(), applied);
        }
    }
}

/// Returns whether the message is one of the node's own heartbeats.
fn is_own(incoming: &Incoming) -> bool {
    let Incoming::Message(bytes) = Wire::Next.takes(incoming.clone()) else { return false };
    let body = message::decode(&bytes).map(|message| message.body);
    matches!(body, Some(Body::Heartbeat { beat, .. }) if beat != 0)
}

/// Returns the change that a message announces. A stored value is found by its version, because the
/// messages of two concurrent writes may come in any order. Removals have no version: the oldest
/// one that is not announced yet is taken, since each has the same effect.
fn applied_by(log: &Log, node: usize, body: &Body) -> Option<usize> {
    match body {
        Body::Removal { epoch, item } => log.numbers.get(&(epoch.0, item.seq)).copied(),
        Body::Key { op, key, version, .. } => {
            let name = KEYS.iter().chain(&PROBES).position(|name| KeyHash::of(name) == *key)?;
            let name = u8::try_from(name).ok();
            log.applied.iter().position(|applied| {
                let same = match op {
                    KeyOp::Written => {
                        matches!(applied.operation, Operation::Put(_) | Operation::Set(_))
                    }
                    KeyOp::Removed => applied.operation == Operation::Remove,
                    KeyOp::Expired => applied.operation == Operation::Expire,
                    _ => false,
                };
                let version = applied.version.is_none_or(|of| of == version.0);
                let mine = applied.node == Some(node) && applied.key == name;
                same && version && !applied.announced && mine
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
        let (fails, hangs, swallows, arrives) = {
            let trouble = self.link.trouble.lock();
            let (fails, hangs) = (trouble.publish_fails > now, trouble.publish_hangs > now);
            (fails, hangs, trouble.swallows > now, trouble.arrives)
        };
        let hangs = hangs || (swallows && !arrives);
        if hangs || *self.link.down.borrow() {
            std::future::pending::<()>().await;
        }
        if fails {
            return Err(BackplaneError::new("injected by the plan"));
        }
        let delay = self.link.rng.lock().random_range(0..8_u64);
        if delay > 4 {
            sleep(Duration::from_millis(delay)).await;
        }
        let sent = self.link.wire.sends(bytes.clone());
        self.note(&bytes, &sent);
        self.link.publishes(&self.world, &sent);
        let published = self.world.bus.publish(channel, sent).await;
        if swallows {
            std::future::pending::<()>().await;
        }
        published
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let now = self.world.ms();
        let (refuses, swallows) = {
            let trouble = self.link.trouble.lock();
            (trouble.refuses > now, trouble.swallows > now)
        };
        if refuses {
            return Err(BackplaneError::new("injected by the plan"));
        }
        if swallows {
            std::future::pending::<()>().await;
        }
        let inner = self.world.bus.subscribe(channels).await?;
        let generation = self.link.trouble.lock().generation;
        let at = self.world.at();
        self.world.log.lock().subscribed.push((self.link.node, at));
        let (world, link) = (Arc::clone(&self.world), Arc::clone(&self.link));
        let moved = Box::pin(Arc::clone(&link.moved).notified_owned());
        let (queue, sent, newest) = (BTreeMap::new(), 0, None);
        Ok(Box::new(SimSubscription { inner, world, link, generation, queue, sent, newest, moved }))
    }
}

impl SimSubscription {
    /// Loses, delays or repeats a message that came in.
    fn receive(&mut self, incoming: Incoming) {
        let (now, ms) = (Instant::now(), self.world.ms());
        let (mute, drops, repeats, reorders) = {
            let trouble = self.link.trouble.lock();
            let mute = trouble.mute > ms || trouble.swallows > ms;
            let mute = mute || (trouble.own_heartbeats_only > ms && !is_own(&incoming));
            (mute, trouble.drops > ms, trouble.repeats > ms, trouble.reorders > ms)
        };
        let received = match &incoming {
            Incoming::Message(bytes) => self.link.receives(&self.world, bytes),
            _ => true,
        };
        let mute = mute || !received;
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

    /// Returns the next message whose delivery time has come.
    fn due_message(&mut self) -> Option<Incoming> {
        if self.queue.is_empty() {
            return None;
        }
        let first = self.queue.first_entry().filter(|first| first.key().0 <= Instant::now())?;
        let incoming = first.remove();
        if let Incoming::Message(bytes) = &incoming {
            let applied = self.world.log.lock().announced_by.get(bytes).copied();
            let understands = self.link.wire.understands(bytes);
            if !understands {
                self.world.log.lock().count("message of the next version");
            }
            if let Some(applied) = applied.filter(|_| understands) {
                let at = self.world.at();
                self.world.log.lock().received.push(Received { node: self.link.node, applied, at });
            }
        }
        Some(self.link.wire.takes(incoming))
    }

    /// Returns what the plan injects: the end of the subscription, or a message that no node sent.
    fn planned(&self) -> Option<Option<Incoming>> {
        let mut trouble = self.link.trouble.lock();
        if trouble.generation != self.generation {
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
            if let Some(incoming) = self.due_message() {
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
                    self.receive(incoming);
                }
                () = arrives => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Applied;
    use crinkle_core::protocol::Version;

    /// Two `set`s of one node overlap, and the second is announced first. The message belongs to
    /// the write whose version it carries, not to the oldest write that is not announced yet.
    #[test]
    fn a_message_is_of_the_write_whose_version_it_carries() {
        let mut log = Log::default();
        for version in [11, 12] {
            let at = log.at(5779);
            let (sent, not_before) = (at.order, at.order);
            log.applied.push(Applied {
                at,
                sent,
                not_before,
                sure: true,
                node: Some(1),
                key: Some(0),
                operation: Operation::Set(0),
                call: None,
                version: Some(version),
                stamp: None,
                announced: false,
                lost: None,
            });
        }
        let of = |version| {
            let key = KeyHash::of(KEYS[0]);
            Body::Key { op: KeyOp::Written, version: Version(version), key }
        };
        let places = [12, 11, 13].map(|version| applied_by(&log, 1, &of(version)));
        assert_eq!(places, [Some(1), Some(0), None]);
    }
}
