//! A replica of each server, which is read while it is in step.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::scribe::Copies;
use super::world::World;

/// What the replicas have.
#[derive(Debug, Default)]
pub(super) struct Replica {
    has: Option<Arc<Copies>>,
    /// Until when that is no older than the lag.
    until_ms: u64,
}

impl Replica {
    /// What they answer, unless they are too far behind.
    pub(super) fn in_step(&self, now_ms: u64) -> Option<Arc<Copies>> {
        self.has.clone().filter(|_| now_ms <= self.until_ms)
    }
}

/// The replicas catch up as seldom as the lag allows, and sometimes too seldom.
pub(super) async fn follow(world: Arc<World>) {
    let Some(lag_ms) = world.plan.replica_lag_ms else { return };
    // The clock of a node that compares may be a little fast.
    let lasts_ms = lag_ms - lag_ms / 20;
    let mut rng = super::plan::rng(world.plan.seed, 9);
    loop {
        let has = Some(Arc::new(world.copies(world.snapshot())));
        *world.replica.lock() = Replica { has, until_ms: world.ms() + lasts_ms };
        let late_ms = if rng.random_bool(0.1) { lag_ms } else { 0 };
        sleep(Duration::from_millis(lasts_ms + late_ms)).await;
    }
}
