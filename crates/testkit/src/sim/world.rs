//! The state of a simulated cluster: its time, its source of truth, its nodes and their faults.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{L2, MemoryL2, MemorySnapshot};
use crinkle_core::{Cache, Token};
use futures_util::FutureExt;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;

use super::clock::SimClock;
use super::copies::{Copies, Replica};
use super::link::Link;
use super::pace::Pace;
use super::plan::{Plan, rng};
use crate::history::{At, Log};

tokio::task_local! {
    /// The call for which the store is used.
    pub(super) static CALL: usize;
}

/// The simulated cluster.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    /// Whether the log records details for the timeline.
    pub(super) detailed: bool,
    pub(super) origin: Instant,
    pub(super) log: Mutex<Log>,
    source: Mutex<[u32; 8]>,
    /// The servers; the first holds the ledger.
    stores: Vec<(MemoryL2, Arc<SimClock>)>,
    pub(super) bus: MemoryBackplane,
    pub(super) nodes: Mutex<Vec<Arc<Node>>>,
    pub(super) slots: Mutex<Vec<usize>>,
    /// The token of the newest removal.
    pub(super) token: Mutex<Option<Token>>,
    /// Messages that were published on a server that is not the primary.
    pub(super) elsewhere: Mutex<HashSet<Bytes>>,
    pub(super) replica: Mutex<Replica>,
}

/// A node, from its start until it goes down.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) cache: Cache,
    pub(super) link: Arc<Link>,
    pub(super) clock: Arc<SimClock>,
    pub(super) pace: Pace,
}

impl World {
    pub(super) fn new(plan: Plan, detailed: bool) -> Arc<Self> {
        let origin = Instant::now();
        let bus = MemoryBackplane::with_backlog(256);
        let mut rng = rng(plan.seed, 5);
        let servers = if plan.switches.clocks && rng.random_bool(0.5) { 3 } else { 1 };
        let server = |place: u64| {
            // The other servers' clocks are ahead of the first or behind it, by little or much.
            let most: i64 = if rng.random_bool(0.5) { 3_000 } else { 40_000 };
            let off = if place == 0 { 0 } else { rng.random_range(-most..=most) };
            let ppm = if place == 0 { 0 } else { rng.random_range(-200..=200) };
            let jumped = AtomicI64::new(off * 1_000_000);
            let clock = Arc::new(SimClock { origin, offset: 3_600_000_000_000, ppm, jumped });
            let store = match plan.fused {
                true => MemoryL2::announcing(Arc::clone(&clock) as _, bus.clone()),
                false => MemoryL2::with_clock(Arc::clone(&clock) as _),
            };
            (store, clock)
        };
        let stores = (0..servers).map(server).collect();
        let slots = Mutex::new(vec![0; plan.nodes]);
        let (log, source, nodes) = (Mutex::default(), Mutex::default(), Mutex::default());
        let world = Arc::new(Self {
            plan,
            detailed,
            origin,
            log,
            source,
            stores,
            bus,
            nodes,
            slots,
            token: Mutex::default(),
            elsewhere: Mutex::default(),
            replica: Mutex::default(),
        });
        if servers > 1 {
            world.log.lock().count("several servers");
        }
        world
    }

    /// Virtual milliseconds since the beginning.
    pub(super) fn ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The server that holds the ledger.
    pub(super) fn first(&self) -> &MemoryL2 {
        &self.stores[0].0
    }

    /// The server that holds the record of a key.
    pub(super) fn store(&self, key: &str) -> &MemoryL2 {
        &self.stores[self.place(key)].0
    }

    /// The index of the server that holds the record of a key.
    pub(super) fn place(&self, key: &str) -> usize {
        let sum: usize = key.bytes().map(usize::from).sum();
        sum % self.stores.len()
    }

    /// The sum of the servers' replication ids: it changes when any of them fails over.
    pub(super) fn replication_id(&self) -> u64 {
        let each = self.servers().map(|store| store.replication_id(None).now_or_never());
        each.map(|replication_id| replication_id.and_then(Result::ok).flatten().unwrap_or(0)).sum()
    }

    /// Returns separate servers that hold these snapshots.
    pub(super) fn copies(&self, snapshots: Vec<MemorySnapshot>) -> Copies {
        let each = self.stores.iter().zip(snapshots);
        each.map(|((_, clock), snapshot)| {
            let store = MemoryL2::with_clock(Arc::new(clock.fork()));
            store.restore(snapshot);
            store
        })
        .collect()
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &MemoryL2> {
        self.stores.iter().map(|(store, _)| store)
    }

    pub(super) fn snapshot(&self) -> Vec<MemorySnapshot> {
        self.servers().map(MemoryL2::snapshot).collect()
    }

    /// Replaces each server by another one with this snapshot, and with another clock if there are
    /// several.
    pub(super) fn restore(&self, snapshots: Vec<MemorySnapshot>) {
        let mut rng = rng(self.plan.seed, 6 + self.ms());
        for ((store, clock), snapshot) in self.stores.iter().zip(snapshots) {
            store.restore(snapshot);
            if self.plan.switches.clocks && rng.random_bool(0.5) {
                clock.step(rng.random_range(-3_000..=3_000) * 1_000_000);
            }
        }
    }

    /// The next place in the order of events.
    pub(super) fn at(&self) -> At {
        let ms = self.ms();
        self.log.lock().at(ms)
    }

    /// The current node of a slot.
    pub(super) fn node(&self, slot: usize) -> Arc<Node> {
        let id = self.slots.lock()[slot];
        Arc::clone(&self.nodes.lock()[id])
    }

    /// All nodes that ever ran.
    pub(super) fn everyone(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().clone()
    }

    /// The slot of a node.
    pub(super) fn slot_of(&self, node: &Node) -> usize {
        self.log.lock().node_runs[node.id].slot
    }

    /// Drops the nodes, which hold references to this cluster.
    pub(super) fn forget(&self) {
        self.nodes.lock().clear();
    }

    /// The nodes that run.
    pub(super) fn living(&self) -> Vec<Arc<Node>> {
        (0..self.plan.nodes).map(|slot| self.node(slot)).collect()
    }

    /// Raises the source's version of a key and returns it.
    pub(super) fn write_source(&self, key: u8) -> u32 {
        let mut source = self.source.lock();
        source[usize::from(key)] += 1;
        source[usize::from(key)]
    }

    pub(super) fn read_source(&self, key: u8) -> u32 {
        self.source.lock()[usize::from(key)]
    }
}
