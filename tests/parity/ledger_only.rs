//! L1 and backplane, with the ledger alone in L2: values that are in no store, kept in step.

use std::sync::Mutex;

use crinkle_core::l2::NoCodec;
use crinkle_core::{Cache, Reach};
use crinkle_testkit::chaos::{self, BusHandle};
use crinkle_tests::{Loads, World, pass, until};

use crate::{SHORT, any, fresh, load_or, long, secs};

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
async fn values_stay_where_they_were_loaded() {
    let world = World::new().await;
    let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
    assert_eq!(load_or(&one, "key", 1, &[]).await, (1, true));
    assert_eq!(load_or(&two, "key", 2, &[]).await, (2, true));
    assert!(world.store.keys().is_empty());
}

/// Upstream #36: without L2 every load would drop the copies of all others, in turn, for ever.
#[tokio::test(start_paused = true)]
async fn a_load_drops_nobodys_copy() {
    let world = World::new().await;
    let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
    let loads = Loads::new();
    for _ in 0..5 {
        for cache in [&one, &two] {
            cache.get_or_set("key", loads.value(1)).options(long()).await.unwrap();
            pass(SHORT).await;
        }
    }
    assert_eq!(loads.count(), 2, "one for each");
}

#[tokio::test(start_paused = true)]
async fn writes_of_a_key_drop_the_copies_of_the_others() {
    let world = World::new().await;
    let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
    for key in ["set", "removed", "expired", "same"] {
        for cache in [&one, &two] {
            load_or(cache, key, 1, &[]).await;
        }
    }
    let receipt = one.set("set", 2).options(long()).await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (Reach::Skipped, Reach::Done));
    let _ = one.remove("removed").await.unwrap();
    let _ = one.expire("expired").await.unwrap();
    pass(SHORT).await;
    for (key, left, stale) in
        [("set", None, None), ("removed", None, None), ("expired", None, Some(1))]
    {
        assert_eq!(fresh::<i32>(&two, key).await, left, "{key}");
        assert_eq!(any(&two, key).await.filter(|_| key == "expired"), stale, "{key}");
    }
    assert_eq!(fresh(&one, "set").await, Some(2), "its own stays");
    assert_eq!(fresh(&two, "same").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn removals_by_tag_and_clears_reach_every_node() {
    let world = World::new().await;
    let ((one, _), (two, _)) = (node(&world, 1).await, node(&world, 2).await);
    for (key, tag) in [("foo", "x"), ("bar", "y")] {
        for cache in [&one, &two] {
            load_or(cache, key, 1, &[tag]).await;
        }
    }
    let _ = one.remove_by_tag("x").await.unwrap();
    pass(SHORT).await;
    for cache in [&one, &two] {
        assert_eq!(any(cache, "foo").await, None);
        assert_eq!(fresh(cache, "bar").await, Some(1));
    }
    let _ = two.clear().await.unwrap();
    pass(SHORT).await;
    for cache in [&one, &two] {
        assert_eq!(fresh::<i32>(cache, "bar").await, None);
        assert_eq!(any(cache, "bar").await, Some(1));
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

#[tokio::test(start_paused = true)]
async fn a_lost_subscription_costs_loads_and_not_wrong_answers() {
    let world = World::new().await;
    let ((one, _), (two, bus)) = (node(&world, 1).await, node(&world, 2).await);
    for cache in [&one, &two] {
        load_or(cache, "key", 1, &["tag"]).await;
    }
    bus.cut();
    pass(SHORT).await;
    let _ = one.set("key", 2).options(long()).await.unwrap();
    pass(secs(1)).await;
    bus.reconnect();
    until("it hears again", || two.health().subscribed == Some(true)).await;
    pass(SHORT).await;
    assert_eq!(load_or(&two, "key", 2, &[]).await, (2, true));
}

/// The point of it: a value that has no bytes at all.
struct Opaque(Mutex<i32>);

#[tokio::test(start_paused = true)]
async fn values_that_no_codec_knows_are_removed_by_tag_on_every_node() {
    let world = World::new().await;
    let build = || {
        let builder = Cache::builder("shop").clock(world.clock).codec(NoCodec);
        builder.ledger(world.store.clone()).backplane(world.bus.clone()).build().unwrap()
    };
    let (one, two) = (build(), build());
    for cache in [&one, &two] {
        cache.ready().await.unwrap();
        pass(SHORT).await;
        let factory = |_| async { crinkle_core::ok(Opaque(Mutex::new(1))) };
        let read = cache.get_or_set("key", factory).tags(["tag"]).options(long()).await.unwrap();
        assert_eq!(*read.0.lock().unwrap(), 1);
    }
    let _ = one.remove_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    for cache in [&one, &two] {
        assert!(cache.peek::<Opaque>("key").is_none());
    }
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
        assert_eq!((*early, early.is_stale()), (1, true));
        assert_eq!(any(&one, "key").await, None, "elsewhere {elsewhere}");
    }
}
