//! L1 and backplane, with the ledger alone in L2: values that are in no store, kept in step.

use crinkle_core::Cache;
use crinkle_testkit::chaos::{self, BusHandle};
use crinkle_tests::{World, long, pass};

use crate::{SHORT, any, fresh, load_or, secs};

/// A node that keeps its values to itself.
async fn node(world: &World, seed: u64) -> (Cache, BusHandle) {
    let (backplane, bus) = chaos::backplane(std::sync::Arc::new(world.bus.clone()));
    let builder = Cache::builder("shop").clock(world.clock).seed(seed);
    let cache =
        builder.ledger(world.store.clone()).backplane(backplane).build().expect("sound settings");
    cache.ready().await.expect("a healthy world");
    pass(SHORT).await;
    (cache, bus)
}

#[tokio::test(start_paused = true)]
async fn a_clear_reaches_every_node_and_leaves_the_fallbacks_of_each() {
    let world = World::new().await;
    let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
    for (cache, value) in [(&one, 1), (&two, 2)] {
        load_or(cache, "key", value, &[]).await;
    }
    let _ = two.expire_all().await.unwrap();
    pass(SHORT).await;
    for (cache, value) in [(&one, 1), (&two, 2)] {
        assert_eq!(fresh::<i32>(cache, "key").await, None);
        assert_eq!(any(cache, "key").await, Some(value));
    }
}

/// Upstream's 1/2/3: nodes that are told to say nothing go their own ways.
#[tokio::test(start_paused = true)]
async fn writes_that_skip_the_backplane_are_nobody_elses_business() {
    let world = World::new().await;
    let nodes = [node(&world, 1).await, node(&world, 2).await, node(&world, 3).await];
    for (value, (cache, _)) in (1..).zip(&nodes) {
        let _ = cache.set("key", value).options(long().skip_backplane(true)).await.unwrap();
    }
    pass(secs(3)).await;
    for (value, (cache, _)) in (1..).zip(&nodes) {
        assert_eq!(fresh(cache, "key").await, Some(value));
    }
}

/// There is no record to verify a doubtful copy by: it is loaded again.
#[tokio::test(start_paused = true)]
async fn a_lost_notification_costs_a_load_and_not_a_wrong_answer() {
    let world = World::new().await;
    let ((one, _), (two, bus)) = (node(&world, 1).await, node(&world, 2).await);
    for cache in [&one, &two] {
        load_or(cache, "key", 1, &[]).await;
    }
    bus.lose(1);
    let _ = one.set("key", 2).options(long()).await.unwrap();
    pass(secs(4)).await;
    assert_eq!(load_or(&two, "key", 2, &[]).await, (2, true));
}

/// A load against what happened while it ran, without a record that could be compared.
#[tokio::test(start_paused = true)]
async fn a_load_that_a_write_overtakes_is_not_kept() {
    for elsewhere in [false, true] {
        let world = World::new().await;
        let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
        let gate = chaos::Gate::new();
        let early = crinkle_tests::load(&one, "key", &[], long(), crinkle_tests::gated(&gate, 1));
        gate.reached().await;
        let _ = if elsewhere { &two } else { &one }.remove("key").await.unwrap();
        pass(SHORT).await;
        gate.open();
        let early = early.await.unwrap().unwrap();
        assert_eq!((*early, early.meta().is_stale()), (1, true));
        assert_eq!(any(&one, "key").await, None, "elsewhere {elsewhere}");
    }
}
