//! A failover that closes no connection: some nodes stay connected to the old primary.
//!
//! The old primary answers reads with the data it has and refuses writes (`READONLY`). Until it
//! follows the new primary, it sees no new data; afterwards it has all of it. Only its own
//! subscribers receive what is published there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::{L2Error, L2ErrorKind};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::copies::{Copies, Demoted};
use super::link::Link;
use super::world::{Node, World};
use crate::history::Operation;

/// Whether a command reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reads,
    Writes,
}

impl Link {
    /// The old primary, if the node is still connected to it.
    fn demoted(&self, now_ms: u64) -> Option<Demoted> {
        let trouble = self.trouble.lock();
        trouble.demoted.as_ref().filter(|demoted| now_ms < demoted.until_ms).cloned()
    }

    /// Returns which server answers a command: the primary (`None`), or the old one with its
    /// copies.
    pub(super) fn answers(
        &self,
        world: &World,
        kind: Kind,
    ) -> Result<Option<Arc<Copies>>, L2Error> {
        let Some(demoted) = self.demoted(world.ms()) else { return Ok(None) };
        if kind == Kind::Reads {
            world.log.lock().count("read of a demoted server");
            return Ok((world.ms() < demoted.follows_ms).then_some(demoted.had));
        }
        world.log.lock().count("READONLY");
        if demoted.leaves {
            self.reconnect();
        }
        Err(L2Error::new(L2ErrorKind::Disconnected, "READONLY"))
    }

    /// The replication id that the old primary reports.
    pub(super) fn replication_id(&self, now_ms: u64) -> Option<u64> {
        let demoted = self.demoted(now_ms).filter(|demoted| now_ms < demoted.follows_ms);
        demoted.map(|demoted| demoted.replication_id)
    }

    /// Returns whether the node receives a message. Messages published on another server do not
    /// reach it.
    pub(super) fn receives(&self, world: &World, message: &Bytes) -> bool {
        let now = world.ms();
        let elsewhere = world.elsewhere.lock().contains(message);
        match self.demoted(now) {
            Some(demoted) => elsewhere || demoted.follows_ms <= now,
            None => !elsewhere,
        }
    }

    /// Records that a message was published on the server that the node is connected to.
    pub(super) fn publishes(&self, world: &World, message: &Bytes) {
        if self.demoted(world.ms()).is_some() {
            world.elsewhere.lock().insert(message.clone());
        }
    }

    /// Closes every connection and connects to the current primary.
    pub(super) fn reconnect(&self) {
        let mut trouble = self.trouble.lock();
        trouble.demoted = None;
        trouble.generation += 1;
        drop(trouble);
        self.moved.notify_one();
    }
}

/// Promotes another server; some nodes do not notice.
pub(super) async fn demote(world: &Arc<World>, rng: &mut StdRng) {
    let (snapshots, order) = (world.snapshot(), world.at().order);
    sleep(Duration::from_millis(rng.random_range(50..1500))).await;
    let had = Arc::new(world.copies(world.snapshot()));
    let replication_id = world.replication_id();
    let first = rng.random_range(0..world.plan.nodes);
    let everyone = rng.random_bool(0.2);
    let now = world.ms();
    world.restore(snapshots);
    world.changed_by_fault("failover", None, Operation::Failover(order));
    for node in world.living() {
        let stays = everyone || world.slot_of(&node) == first;
        if !stays {
            node.link.reconnect();
            continue;
        }
        let follows_ms = now + rng.random_range(0..1500);
        let for_ms = rng.random_range(200..5000);
        let (until_ms, leaves) = (now + for_ms, rng.random_bool(0.6));
        let had = Arc::clone(&had);
        leave(world, &node, Demoted { had, replication_id, follows_ms, until_ms, leaves });
    }
}

/// Promotes another server with all data of this one; one node does not notice.
pub(super) fn leave_behind(world: &Arc<World>, node: &Node, for_ms: u64) {
    let (had, replication_id) = (Arc::new(world.copies(world.snapshot())), world.replication_id());
    let (now, order) = (world.ms(), world.at().order);
    world.restore(world.snapshot());
    world.changed_by_fault("failover", None, Operation::Failover(order));
    for other in world.living().iter().filter(|other| other.id != node.id) {
        other.link.reconnect();
    }
    let until_ms = now + for_ms;
    leave(
        world,
        node,
        Demoted { had, replication_id, follows_ms: until_ms, until_ms, leaves: false },
    );
}

fn leave(world: &World, node: &Node, demoted: Demoted) {
    let (link, until_ms) = (Arc::clone(&node.link), demoted.until_ms);
    let for_ms = until_ms.saturating_sub(world.ms());
    link.trouble.lock().demoted = Some(demoted);
    world.fault("L2 demoted", Some(node.id), for_ms);
    drop(tokio::spawn(async move {
        sleep(Duration::from_millis(for_ms)).await;
        if link.trouble.lock().demoted.as_ref().is_some_and(|d| d.until_ms == until_ms) {
            link.reconnect();
        }
    }));
}
