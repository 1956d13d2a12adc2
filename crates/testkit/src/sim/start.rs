//! Starts the nodes of a simulated cluster.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use crinkle_core::Cache;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::watch;

use super::bus::SimBus;
use super::clock::SimClock;
use super::link::Link;
use super::plan::{DRIFT_PPM, Plan, rng};
use super::store::SimL2;
use super::wire::Wire;
use super::world::{Node, World};
use crate::history::{self, NodeRun};

/// Starts a node in a slot.
pub(super) fn start_node(world: &Arc<World>, slot: usize) {
    let id = world.nodes.lock().len();
    let mut rng = rng(world.plan.seed, 100 + id as u64);
    let clock = Arc::new(SimClock {
        origin: world.origin,
        offset: (3600 + world.plan.skew_s * (id as u64 + 1) + rng.random_range(0..7200))
            * 1_000_000_000,
        ppm: rng.random_range(-DRIFT_PPM..=DRIFT_PPM),
        jumped: AtomicI64::new(0),
    });
    let link = Arc::new(Link {
        node: id,
        wire: if world.plan.next & (1 << slot) != 0 { Wire::Next } else { Wire::This },
        trouble: Mutex::default(),
        moved: Arc::default(),
        down: watch::Sender::new(false),
        rng: Mutex::new(rng),
    });
    let pace = world.plan.paces[slot];
    let cache = Cache::builder("sim")
        .clock(Arc::clone(&clock))
        .seed(world.plan.seed.wrapping_mul(64).wrapping_add(id as u64))
        .settings(pace.settings())
        .default_options(pace.limits(Plan::defaults()))
        .l2(SimL2::new(Arc::clone(world), Arc::clone(&link)))
        .backplane(SimBus::new(Arc::clone(world), Arc::clone(&link)))
        .build()
        .expect("sound settings");
    let born = world.at();
    let coherence_ms = pace.coherence_ms + pace.coherence_ms / 25 + 500;
    let of = history::Pace {
        poll_ms: pace.poll_ms,
        coherence_ms,
        hard_ms: pace.hard_ms,
        soft_ms: pace.soft_ms,
    };
    let run = NodeRun { slot, born, died: None, jumped_ms: None, pace: Some(of) };
    world.log.lock().node_runs.push(run);
    world.nodes.lock().push(Arc::new(Node { id, cache, link, clock, pace }));
    world.slots.lock()[slot] = id;
}
