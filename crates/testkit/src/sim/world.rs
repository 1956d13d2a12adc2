//! The state of a simulated cluster: its time, its source of truth, its nodes and their faults.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{L2, MemoryL2, MemorySnapshot};
use crinkle_core::{Cache, Clock, Moment, Token};
use futures_util::FutureExt;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bus::SimBus;
use super::demotion::Demoted;
use super::pace::Pace;
use super::plan::{DRIFT_PPM, KEYS, PROBES, Plan, rng};
use super::replica::Replica;
use super::scribe::Copies;
use super::store::SimL2;
use super::wire::Wire;
use crate::history::{
    self, Allows, Answer, At, Call, Fault, Load, Log, NodeRun, Outcome, Said, Scope, What,
};

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
    origin: Instant,
    pub(super) log: Mutex<Log>,
    source: Mutex<[u32; 8]>,
    /// The servers; the first holds the ledger.
    stores: Vec<(MemoryL2, Arc<SimClock>)>,
    pub(super) bus: MemoryBackplane,
    nodes: Mutex<Vec<Arc<Node>>>,
    slots: Mutex<Vec<usize>>,
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

/// A node's connections to the store and the bus, with the faults in force.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node: usize,
    pub(super) wire: Wire,
    pub(super) rng: Mutex<StdRng>,
    pub(super) trouble: Mutex<Trouble>,
    /// Notified when a subscription must check its state again.
    pub(super) moved: Arc<Notify>,
    /// True once the node is down.
    pub(super) down: watch::Sender<bool>,
}

/// How the store answers a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sick {
    Down,
    LosesReplies,
    Hangs,
    Slow,
    RunsLate,
    RunsLateBy(u64),
    AnswersLate(u64),
    Full,
    /// Any of the others, drawn for each call.
    Flaky,
}

/// Until when each fault lasts, in virtual milliseconds.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) sick: Option<(Sick, u64)>,
    pub(super) drops: u64,
    pub(super) repeats: u64,
    pub(super) reorders: u64,
    pub(super) mute: u64,
    /// The node receives only its own heartbeats.
    pub(super) own_heartbeats_only: u64,
    pub(super) refuses: u64,
    pub(super) publish_fails: u64,
    pub(super) publish_hangs: u64,
    /// Only the ledger does not answer.
    pub(super) ledger_silent: u64,
    /// Connections accept bytes and never answer.
    pub(super) swallows: u64,
    /// Whether the accepted bytes reach the server.
    pub(super) arrives: bool,
    pub(super) demoted: Option<Demoted>,
    /// The generation of the subscription; a change ends it.
    pub(super) generation: u64,
    pub(super) junk: u32,
    pub(super) lags: u32,
}

/// A clock with an offset, a drift and jumps.
#[derive(Debug)]
pub(super) struct SimClock {
    origin: Instant,
    offset: u64,
    ppm: i64,
    jumped: AtomicI64,
}

impl Clock for SimClock {
    fn now(&self) -> Moment {
        let elapsed = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let drift = i64::try_from(elapsed / 1_000_000).unwrap_or(0) * self.ppm;
        let jumped = self.jumped.load(Ordering::Relaxed);
        Moment::from_nanos((self.offset + elapsed).saturating_add_signed(drift + jumped))
    }
}

impl SimClock {
    /// Returns another clock that shows the same time.
    fn fork(&self) -> Self {
        let (Self { origin, offset, ppm, .. }, now) = (self, self.jumped.load(Ordering::Relaxed));
        Self { origin: *origin, offset: *offset, ppm: *ppm, jumped: AtomicI64::new(now) }
    }

    pub(super) fn jump(&self, by: Duration) {
        self.step(i64::try_from(by.as_nanos()).unwrap_or(0));
    }

    /// Steps forward or back.
    pub(super) fn step(&self, by_ns: i64) {
        self.jumped.fetch_add(by_ns, Ordering::Relaxed);
    }
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
        for slot in 0..world.plan.nodes {
            world.start(slot);
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

    /// Starts a node in a slot.
    pub(super) fn start(self: &Arc<Self>, slot: usize) {
        let id = self.nodes.lock().len();
        let mut rng = rng(self.plan.seed, 100 + id as u64);
        let clock = Arc::new(SimClock {
            origin: self.origin,
            offset: (3600 + self.plan.skew_s * (id as u64 + 1) + rng.random_range(0..7200))
                * 1_000_000_000,
            ppm: rng.random_range(-DRIFT_PPM..=DRIFT_PPM),
            jumped: AtomicI64::new(0),
        });
        let link = Arc::new(Link {
            node: id,
            wire: if self.plan.next & (1 << slot) != 0 { Wire::Next } else { Wire::This },
            trouble: Mutex::default(),
            moved: Arc::default(),
            down: watch::Sender::new(false),
            rng: Mutex::new(rng),
        });
        let pace = self.plan.paces[slot];
        let cache = Cache::builder("sim")
            .clock(Arc::clone(&clock))
            .seed(self.plan.seed.wrapping_mul(64).wrapping_add(id as u64))
            .settings(pace.settings())
            .default_options(pace.limits(Plan::defaults()))
            .l2(SimL2::new(Arc::clone(self), Arc::clone(&link)))
            .backplane(SimBus::new(Arc::clone(self), Arc::clone(&link)))
            .build()
            .expect("sound settings");
        let born = self.at();
        let coherence_ms = pace.coherence_ms + pace.coherence_ms / 25 + 500;
        let of = history::Pace {
            poll_ms: pace.poll_ms,
            coherence_ms,
            hard_ms: pace.hard_ms,
            soft_ms: pace.soft_ms,
        };
        let run = NodeRun { slot, born, died: None, jumped_ms: None, pace: Some(of) };
        self.log.lock().node_runs.push(run);
        self.nodes.lock().push(Arc::new(Node { id, cache, link, clock, pace }));
        self.slots.lock()[slot] = id;
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

    pub(super) fn fault(&self, name: &'static str, node: Option<usize>, for_ms: u64) {
        let from = self.at();
        let mut log = self.log.lock();
        log.count(name);
        log.faults.push(Fault { name, node, from, until_ms: from.ms + for_ms });
    }

    pub(super) fn begin_call(&self, node: usize, what: What, scopes: Vec<Scope>) -> usize {
        let start = self.at();
        let mut log = self.log.lock();
        log.calls.push(Call {
            node,
            what,
            scopes,
            start,
            end: None,
            outcome: Outcome::Open,
            answers: Vec::new(),
            said: Said::Nothing,
            has_barrier: false,
            error: String::new(),
            asked: 0,
            allows: Allows::default(),
        });
        log.calls.len() - 1
    }

    pub(super) fn end_call(&self, call: usize, outcome: Outcome) {
        let end = self.at();
        let mut log = self.log.lock();
        let companion = log.companions.get(&call).copied();
        for part in [Some(call), companion].into_iter().flatten() {
            (log.calls[part].end, log.calls[part].outcome) = (Some(end), outcome);
        }
    }

    /// Records the begin of a factory run or of a `set`; returns its load id.
    pub(super) fn begin_load(
        &self,
        node: usize,
        key: u8,
        call: usize,
        tags: u8,
        is_set: bool,
    ) -> usize {
        let (began, version) = (self.at(), self.read_source(key));
        let mut log = self.log.lock();
        let (ended, confirmed, stored) = (None, Vec::new(), Vec::new());
        log.loads.push(Load {
            node,
            key,
            call,
            began,
            ended,
            version,
            tags,
            is_set,
            in_batch: false,
            confirmed,
            stored,
        });
        log.loads.len() - 1
    }

    pub(super) fn answer(&self, call: usize, answer: Answer) {
        self.log.lock().calls[call].answers.push(answer);
    }
}

/// The name of a key.
pub(super) fn name(key: u8) -> &'static str {
    let key = usize::from(key);
    if key < KEYS.len() { KEYS[key] } else { PROBES[key - KEYS.len()] }
}

/// The key of a name.
pub(super) fn key_of(name: &str) -> Option<u8> {
    let at = KEYS.iter().chain(&PROBES).position(|key| *key == name)?;
    u8::try_from(at).ok()
}

/// The value that the cache stores for a load.
pub(super) fn write_value(key: u8, load: usize) -> String {
    format!("~sim.{key}.{load};")
}

/// Finds a value in these bytes and returns its key and its load.
pub(super) fn read_value(bytes: &[u8]) -> Option<(u8, usize)> {
    let at = bytes.windows(5).position(|w| w == b"~sim.")? + 5;
    let end = at + bytes[at..].iter().position(|b| *b == b';')?;
    let (key, load) = std::str::from_utf8(&bytes[at..end]).ok()?.split_once('.')?;
    Some((key.parse().ok()?, load.parse().ok()?))
}
