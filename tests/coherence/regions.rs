//! Regions, each with a store and a bus of its own.

use std::future::IntoFuture;
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::MemoryL2;
use crinkle_core::{Cache, CacheBuilder, ErrorKind, Settings};
use crinkle_testkit::chaos::{self, BusHandle, Fate, L2Handle, L2Op};
use crinkle_tests::{Loads, Node, World, go, long_fail_safe, pass, until};
use futures_util::FutureExt;

const SOON: Duration = Duration::from_millis(100);

/// A node at home, and its ways to another region.
async fn relaying(home: &World, other: &World) -> (Node, L2Handle, BusHandle) {
    relaying_with(home, other, |builder| builder).await
}

async fn relaying_with(
    home: &World,
    other: &World,
    change: impl FnOnce(CacheBuilder) -> CacheBuilder,
) -> (Node, L2Handle, BusHandle) {
    let (store, l2) = chaos::l2(std::sync::Arc::new(other.store.clone()));
    let (backplane, bus) = chaos::backplane(std::sync::Arc::new(other.bus.clone()));
    let node = home.node_with(|builder| change(builder).region("other", store, backplane)).await;
    until("the other region is known", || node.cache.health().regions[0].health.subscribed).await;
    (node, l2, bus)
}

#[derive(Debug)]
enum Removal {
    Key,
    Tag,
    All,
}

async fn fill(node: &Node) {
    for key in ["set", "removed", "expired", "tagged", "cleared"] {
        let tag = if key == "tagged" { "tag" } else { "none" };
        let _ = node.cache.set(key, 1).tags([tag]).options(long_fail_safe()).await.expect("stored");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_and_removed_here_is_removed_there() {
    let (home, other) = (World::new().await, World::new().await);
    let (here, ..) = relaying(&home, &other).await;
    let there = other.node().await;
    fill(&there).await;
    let _ = here.cache.set("set", 2).await.unwrap();
    let _ = here.cache.remove("removed").await.unwrap();
    let _ = here.cache.expire("expired").await.unwrap();
    let _ = here.cache.remove_by_tag("tag").await.unwrap();
    pass(SOON).await;
    for (key, stands_in) in
        [("set", false), ("removed", false), ("expired", true), ("tagged", false)]
    {
        assert!(there.cache.get::<i32>(key).await.unwrap().is_none(), "{key}");
        let fallback = there.cache.get::<i32>(key).allow_stale().await.unwrap();
        assert_eq!(fallback.is_some(), stands_in, "{key}");
    }
    assert!(there.cache.get::<i32>("cleared").await.unwrap().is_some());
    let _ = here.cache.expire_all().await.unwrap();
    pass(SOON).await;
    assert!(there.cache.get::<i32>("cleared").await.unwrap().is_none());
    assert_eq!(here.cache.get::<i32>("set").allow_stale().await.unwrap().as_deref(), Some(&2));
}

/// S6 there: the removal overtakes a load of the other region.
#[tokio::test(start_paused = true)]
async fn a_load_there_that_a_removal_here_overtakes_is_not_kept() {
    let (home, other) = (World::new().await, World::new().await);
    let (here, ..) = relaying(&home, &other).await;
    let there = other.node().await;
    let (gate, loads) = (chaos::Gate::new(), Loads::new());
    let cache = there.cache.clone();
    let load = loads.gated(&gate, 1);
    let loading = go(async move { cache.get_or_set("key", load).options(long_fail_safe()).await });
    gate.reached().await;
    let _ = here.cache.remove("key").await.unwrap();
    pass(SOON).await;
    gate.open();
    let _ = loading.await.unwrap().unwrap();
    assert!(there.cache.get::<i32>("key").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_away_delays_nobody_and_is_told_when_it_is_back() {
    let (home, other) = (World::new().await, World::new().await);
    let (here, l2, bus) = relaying(&home, &other).await;
    let there = other.node().await;
    fill(&there).await;
    l2.hang();
    bus.cut();
    let began = tokio::time::Instant::now();
    assert!(here.cache.remove("removed").await.unwrap().is_propagated());
    assert!(here.cache.remove_by_tag("tag").await.unwrap().is_propagated());
    assert!(began.elapsed() < SOON, "nobody waits for another region");
    let waits = || {
        let health = &here.cache.health().regions[0].health;
        health.recovery_backlog + health.pending_removals
    };
    until("it waits", || waits() == 2).await;
    assert_eq!(here.cache.health().recovery_backlog, 0);
    l2.heal();
    bus.reconnect();
    until("it was relayed", || waits() == 0).await;
    pass(SOON).await;
    for key in ["removed", "tagged"] {
        assert!(there.cache.get::<i32>(key).allow_stale().await.unwrap().is_none(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_own_region_in_the_list_is_left_out() {
    let world = World::new().await;
    let (store, bus) = (world.store.clone(), world.bus.clone());
    let node = world.node_with(|builder| builder.region("home", store, bus)).await;
    assert!(node.cache.health().regions.is_empty());
    let _ = node.cache.set("key", 1).await.unwrap();
    pass(SOON).await;
    assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn closing_says_what_another_region_was_not_told() {
    for away in [false, true] {
        let (home, other) = (World::new().await, World::new().await);
        let (here, l2, _bus) = relaying(&home, &other).await;
        if away {
            l2.down();
        }
        let _ = here.cache.remove("key").await.unwrap();
        assert_eq!(here.cache.close().await.is_err(), away);
    }
}

/// A load keeps `close` waiting; what is removed meanwhile is told, or `close` says that it was not.
#[tokio::test(start_paused = true)]
async fn what_is_removed_while_the_cache_closes_is_relayed_or_owned_up_to() {
    for away in [false, true] {
        for removal in [Removal::Key, Removal::Tag, Removal::All] {
            let (home, other) = (World::new().await, World::new().await);
            let (here, l2, _bus) = relaying(&home, &other).await;
            let there = other.node().await;
            let _ =
                there.cache.set("key", 1).tags(["tag"]).options(long_fail_safe()).await.unwrap();
            let (gate, cache) = (chaos::Gate::new(), here.cache.clone());
            let load = Loads::new().gated(&gate, 1);
            let loading = go(async move { cache.get_or_set("loading", load).await });
            gate.reached().await;
            let cache = here.cache.clone();
            let closing = go(async move { cache.close().await });
            pass(SOON).await;
            if away {
                l2.down();
            }
            let removed = match removal {
                Removal::Key => here.cache.remove("key").await,
                Removal::Tag => here.cache.remove_by_tag("tag").await,
                Removal::All => here.cache.expire_all().await,
            };
            assert!(removed.unwrap().is_propagated());
            gate.open();
            let _ = loading.await.unwrap();
            let closed = closing.await.unwrap();
            assert_eq!(closed.is_err(), away, "{removal:?}: {closed:?}");
            pass(SOON).await;
            let found = there.cache.get::<i32>("key").await.unwrap();
            assert_eq!(found.is_some(), away, "{removal:?}");
        }
    }
}

/// W2, of the removals that were not begun when the caller went away.
#[tokio::test(start_paused = true)]
async fn a_batch_of_removals_that_its_caller_gives_up_is_relayed_whole() {
    let (home, other) = (World::new().await, World::new().await);
    let (here, ..) = relaying(&home, &other).await;
    let (peer, there) = (home.node().await, other.node().await);
    let keys: Vec<_> = (0..300).map(|number| format!("key:{number}")).collect();
    for node in [&peer, &there] {
        let values = keys.iter().map(|key| (key, 1));
        let _ = node.cache.set_many(values).options(long_fail_safe()).await.unwrap();
    }
    here.l2.always(L2Op::Remove, Fate::Hang);
    assert!(here.cache.remove_many(&keys).into_future().now_or_never().is_none());
    here.l2.heal();
    pass(Duration::from_secs(3)).await;
    for (name, node) in [("peer", &peer), ("region", &there)] {
        let found = node.cache.get_many::<i32>(&keys).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 0, "{name}");
    }
}

/// What a call may leave out here is no matter of the others.
#[tokio::test(start_paused = true)]
async fn defaults_that_leave_something_out_do_not_hold_for_other_regions() {
    let (home, other) = (World::new().await, World::new().await);
    let defaults = long_fail_safe().skip_l2_write(true).skip_backplane(true).background_l2(true);
    let (here, ..) = relaying_with(&home, &other, |b| b.default_options(defaults)).await;
    let there = other.node().await;
    fill(&there).await;
    let _ = here.cache.remove("removed").options(long_fail_safe()).await.unwrap();
    pass(SOON).await;
    assert!(there.cache.get::<i32>("removed").await.unwrap().is_none());
}

/// Home is near, and its limits are; another region is not.
#[tokio::test(start_paused = true)]
async fn a_region_that_is_slower_than_the_limits_at_home_is_told() {
    let (home, other) = (World::new().await, World::new().await);
    let near = Duration::from_millis(50);
    let settings = Settings::default().poll(SOON).coherence_ttl(SOON * 4);
    let (here, l2, _bus) = relaying_with(&home, &other, |builder| {
        builder.settings(settings).default_options(long_fail_safe().l2_hard_timeout(near))
    })
    .await;
    let there = other.node().await;
    fill(&there).await;
    for op in L2Op::ALL {
        l2.always(op, Fate::Delay(near + SOON));
    }
    pass(Duration::from_secs(2)).await;
    let _ = here.cache.remove("removed").await.unwrap();
    let _ = here.cache.remove_by_tag("tag").await.unwrap();
    pass(Duration::from_secs(2)).await;
    for key in ["removed", "tagged"] {
        assert!(there.cache.get::<i32>(key).await.unwrap().is_none(), "{key}");
    }
}

/// Whether it is home could not be told, and a region of itself would remove what it sets.
#[tokio::test(start_paused = true)]
async fn a_region_whose_store_names_no_bus_is_refused() {
    let builder = Cache::builder("shop").l2(MemoryL2::new()).backplane(MemoryBackplane::new());
    let error = builder.region("eu", MemoryL2::new(), MemoryBackplane::new()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.to_string().contains("\"eu\""), "{error}");
}
