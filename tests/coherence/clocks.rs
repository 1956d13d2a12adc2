//! T7 and T8: clocks that are off, drift and jump, and processes that sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::{Clock, EntryOptions, Moment};
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{Loads, Node, World, pass};

/// A node's own clock: ahead of the world's by what it says, and never back.
#[derive(Clone, Debug)]
struct Own {
    world: TokioClock,
    ahead: Arc<AtomicU64>,
}

impl Own {
    fn of(world: &World, ahead: Duration) -> Self {
        let nanos = u64::try_from(ahead.as_nanos()).expect("a sane duration");
        Self { world: world.clock, ahead: Arc::new(AtomicU64::new(nanos)) }
    }

    fn jump(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("a sane duration");
        self.ahead.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for Own {
    fn now(&self) -> Moment {
        let ahead = Duration::from_nanos(self.ahead.load(Ordering::SeqCst));
        self.world.now() + ahead
    }
}

async fn node(world: &World, clock: &Own) -> Node {
    let clock = clock.clone();
    world.node_with(|builder| builder.clock(clock)).await
}

fn long() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(86_400))
}

/// The same history as with perfect clocks: removals hold, and nothing that is fresh is hidden.
#[tokio::test(start_paused = true)]
async fn nodes_an_hour_apart_agree_on_what_is_removed() {
    let world = World::new().await;
    let clocks = [0, 3_600, 7 * 86_400].map(|s| Own::of(&world, Duration::from_secs(s)));
    let mut nodes = Vec::new();
    for clock in &clocks {
        nodes.push(node(&world, clock).await);
    }
    for round in 0..12 {
        let (writer, loads) = (&nodes[round % 3], Loads::new());
        for node in &nodes {
            let read = node.cache.get_or_set("key", loads.value(round)).tags(["t"]).options(long());
            assert_eq!(*read.await.unwrap(), round, "what was loaded since is shared");
        }
        assert_eq!(loads.count(), 1, "one load for all nodes");
        match round % 4 {
            0 => writer.cache.remove("key").await.unwrap(),
            1 => writer.cache.remove_by_tag("t").await.unwrap(),
            2 => writer.cache.expire_by_tag("t").await.unwrap(),
            _ => writer.cache.clear_hard().await.unwrap(),
        };
        pass(Duration::from_millis(10)).await;
        for node in &nodes {
            assert!(node.cache.get::<usize>("key").await.unwrap().is_none(), "round {round}");
        }
        clocks[round % 3].jump(Duration::from_millis(700));
    }
}

/// The timers of a process that slept have slept, too; its clock has not.
#[tokio::test(start_paused = true)]
async fn a_process_that_wakes_up_serves_nothing_on_trust() {
    let world = World::new().await;
    let clock = Own::of(&world, Duration::ZERO);
    let (sleeper, other) = (node(&world, &clock).await, world.node().await);
    for key in ["removed", "kept"] {
        sleeper.cache.set(key, 1).options(long()).await.unwrap();
    }
    sleeper.bus.mute(true);
    other.cache.remove("removed").await.unwrap();
    clock.jump(Duration::from_secs(3_600));
    for key in ["removed", "kept"] {
        assert!(sleeper.cache.peek::<i32>(key).is_none(), "{key} is not fresh without a check");
    }
    assert!(sleeper.cache.get::<i32>("removed").await.unwrap().is_none());
    assert!(sleeper.cache.get::<i32>("kept").await.unwrap().is_some(), "verified, not dropped");
}
