//! Replicas of the servers; nodes read them while the replicas are within the lag.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::copies::Replica;
use super::world::World;

/// Copies the primaries as rarely as the lag allows, and sometimes too late.
pub(super) async fn follow(world: Arc<World>) {
    let Some(lag_ms) = world.plan.replica_lag_ms else { return };
    // The node that compares may have a fast clock.
    let lasts_ms = lag_ms - lag_ms / 20;
    let mut rng = super::plan::rng(world.plan.seed, 9);
    loop {
        let has = Some(Arc::new(world.copies(world.snapshot())));
        *world.replica.lock() = Replica { has, until_ms: world.ms() + lasts_ms };
        let late_ms = if rng.random_bool(0.1) { lag_ms } else { 0 };
        sleep(Duration::from_millis(lasts_ms + late_ms)).await;
    }
}
