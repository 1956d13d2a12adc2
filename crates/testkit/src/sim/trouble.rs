//! Injects faults into a simulated cluster.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{MemoryL2, MemorySnapshot};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::demotion::demote;
use super::link::{Sick, Trouble};
use super::plan::KEYS;
use super::start::start_node;
use super::world::{Node, World};
use crate::history::Operation;

/// Injects faults until the plan's number of faults is reached.
pub(super) async fn make(world: Arc<World>) {
    let mut rng = super::plan::rng(world.plan.seed, 3);
    let span = world.plan.ops as u64 * (world.plan.gap_ms + 80);
    let mean = span / (world.plan.faults as u64 + 1);
    for _ in 0..world.plan.faults {
        sleep(Duration::from_millis(rng.random_range(0..=mean * 2))).await;
        let node = world.node(rng.random_range(0..world.plan.nodes));
        match rng.random_range(0..20) {
            0..6 => disturb_l2(&world, &node, &mut rng),
            6..14 => disturb_bus(&world, &node, &mut rng),
            14..16 => restart(&world, &node, &mut rng).await,
            16..17 => {
                let by = Duration::from_millis(rng.random_range(100..30_000));
                node.clock.jump(by);
                world.fault("clock jump", Some(node.id), 0);
                let ms = world.ms();
                world.log.lock().node_runs[node.id].jumped_ms.get_or_insert(ms);
            }
            _ => lose(&world, &mut rng).await,
        }
    }
}

/// Injects the faults of later switches, concurrently with the others.
pub(super) async fn make_more(world: Arc<World>) {
    let mut rng = super::plan::rng(world.plan.seed, 8);
    let span = world.plan.ops as u64 * (world.plan.gap_ms + 80);
    let switches = world.plan.switches;
    for _ in 0..rng.random_range(0..3) {
        sleep(Duration::from_millis(rng.random_range(0..=span / 2))).await;
        let demotes = rng.random_bool(0.5);
        if demotes && switches.readonly && world.plan.fails_over {
            demote(&world, &mut rng).await;
        } else if switches.swallows && !demotes && rng.random_bool(0.5) {
            swallow(&world, &mut rng);
        }
    }
}

/// A node's connections accept bytes and never answer; new connections do the same. The bytes may
/// still reach the server.
fn swallow(world: &World, rng: &mut StdRng) {
    let node = world.node(rng.random_range(0..world.plan.nodes));
    let for_ms = if rng.random_bool(0.2) {
        world.plan.coherence_ms + 3000
    } else {
        rng.random_range(500..6000)
    };
    {
        let mut trouble = node.link.trouble.lock();
        trouble.swallows = world.ms() + for_ms;
        trouble.arrives = rng.random_bool(0.5);
        if rng.random_bool(0.5) {
            // The subscription is a new connection as well.
            trouble.generation += 1;
        }
    }
    world.fault("L2 swallows", Some(node.id), for_ms);
    node.link.moved.notify_one();
}

/// Injects a fault into a node's connection to the store.
fn disturb_l2(world: &World, node: &Node, rng: &mut StdRng) {
    let for_ms = match rng.random_range(0..8) {
        0 => world.plan.coherence_ms + 3000,
        _ => rng.random_range(100..4000),
    };
    let (sick, name) = match rng.random_range(0..14) {
        0..2 => (Sick::Down, "L2 down"),
        2..4 => (Sick::LosesReplies, "reply lost"),
        4..5 => (Sick::Hangs, "L2 hangs"),
        5..7 => (Sick::Slow, "L2 slow"),
        7..10 => (Sick::RunsLate, "command runs late"),
        10..11 => (Sick::Full, "L2 full"),
        _ => (Sick::Flaky, "L2 flaky"),
    };
    let for_ms = if sick == Sick::RunsLate { for_ms.min(2000) } else { for_ms };
    world.fault(name, Some(node.id), for_ms);
    let everyone = rng.random_bool(0.2);
    let nodes = if everyone { world.living() } else { vec![world.node(world.slot_of(node))] };
    for node in nodes {
        node.link.trouble.lock().sick = Some((sick, world.ms() + for_ms));
        if everyone {
            world.fault("L2 trouble for all", Some(node.id), for_ms);
        }
    }
}

/// Injects a fault into a node's connection to the bus.
fn disturb_bus(world: &World, node: &Node, rng: &mut StdRng) {
    let now = world.ms();
    let short = rng.random_range(100..1500);
    let long = rng.random_range(500..9000);
    let (name, for_ms) = {
        let mut trouble = node.link.trouble.lock();
        match rng.random_range(0..18) {
            // The node cannot publish but receives everything.
            14 if world.plan.switches.bus => {
                trouble.publish_hangs = now + long;
                ("bus lost", long)
            }
            16.. if rng.random_bool(if world.plan.gap_ms < 200 { 0.3 } else { 1.0 }) => {
                let whole = world.plan.coherence_ms + 4000;
                drop(trouble);
                cut_off(world, node, whole);
                ("L2 and bus cut off", whole)
            }
            0..3 | 16.. => {
                trouble.drops = now + short;
                ("messages dropped", short)
            }
            3..5 => {
                trouble.repeats = now + long;
                ("messages duplicated", long)
            }
            5..8 => {
                trouble.reorders = now + long;
                ("messages reordered", long)
            }
            8..10 => {
                trouble.mute = now + long;
                ("subscription silent", long)
            }
            10..13 => {
                trouble.generation += 1;
                let refused = rng.random_bool(0.6);
                trouble.refuses = if refused { now + long } else { now };
                ("disconnect", if refused { long } else { 1 })
            }
            13 => {
                trouble.publish_fails = now + short;
                ("publish fails", short)
            }
            14 => {
                trouble.publish_hangs = now + short;
                ("publish hangs", short)
            }
            _ => {
                trouble.junk += 1;
                trouble.lags += u32::from(rng.random_bool(0.5));
                ("junk", 1)
            }
        }
    };
    world.fault(name, Some(node.id), for_ms);
    node.link.moved.notify_one();
}

/// Stops a node, with or without closing its cache, and starts another one in its slot.
async fn restart(world: &Arc<World>, node: &Arc<Node>, rng: &mut StdRng) {
    let slot = world.slot_of(node);
    let at = world.at();
    {
        let mut log = world.log.lock();
        log.count("restart");
        if log.node_runs[node.id].died.replace(at).is_some() {
            return;
        }
    }
    if rng.random_bool(0.3) {
        let _ = tokio::time::timeout(Duration::from_secs(1), node.cache.close()).await;
    }
    node.link.down.send_replace(true);
    node.link.moved.notify_one();
    start_node(world, slot);
}

/// Makes the store lose data.
async fn lose(world: &Arc<World>, rng: &mut StdRng) {
    if rng.random_bool(0.4) {
        let key = rng.random_range(0..world.plan.keys);
        let name = format!("sim:v1:e:{}", KEYS[usize::from(key)]);
        if rng.random_bool(0.3) {
            world.store(&name).plant(&name, &b"junk"[..], Duration::from_secs(60));
            world.changed_by_fault("junk record", Some(key), Operation::Evict);
        } else {
            world.store(&name).evict(&name);
            world.changed_by_fault("record evicted", Some(key), Operation::Evict);
        }
    } else if world.plan.fails_over {
        let (snapshot, order) = (world.snapshot(), world.at().order);
        sleep(Duration::from_millis(rng.random_range(50..2500))).await;
        fail_over(world, snapshot, order);
    } else if rng.random_bool(0.5) {
        world.servers().for_each(MemoryL2::wipe);
        world.changed_by_fault("wipe", None, Operation::Wipe);
    } else {
        world.first().evict_ledgers();
        world.changed_by_fault("ledger lost", None, Operation::LedgerLost);
    }
}

/// Restores a snapshot of the store and disconnects all nodes.
pub(super) fn fail_over(world: &World, snapshots: Vec<MemorySnapshot>, order: u32) {
    world.restore(snapshots);
    world.changed_by_fault("failover", None, Operation::Failover(order));
    world.bus.disconnect_all();
}

/// Cuts a node off from the store and the bus.
pub(super) fn cut_off(world: &World, node: &Node, for_ms: u64) {
    let until = world.ms() + for_ms;
    let mut trouble = node.link.trouble.lock();
    trouble.sick = Some((Sick::Down, until));
    (trouble.mute, trouble.publish_hangs) = (until, until);
}

/// Ends all faults.
pub(super) fn heal(world: &World) {
    for node in world.living() {
        let mut trouble = node.link.trouble.lock();
        let generation = trouble.generation + u64::from(trouble.demoted.is_some());
        *trouble = Trouble { generation, ..Default::default() };
        drop(trouble);
        node.link.moved.notify_one();
    }
}
