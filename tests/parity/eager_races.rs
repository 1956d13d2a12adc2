//! Eager refresh on several nodes, and against what changes the key meanwhile.

use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, Node, World, gated, load, pass};

use crate::eager::{eager, idle};
use crate::{SHORT, any, both, fresh, ms, put, secs};

#[tokio::test(start_paused = true)]
async fn an_eager_refresh_takes_what_another_node_has_stored() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(eager()).await.unwrap();
    pass(ms(8_500)).await;
    two.bus.hold(true);
    let _ = one.cache.set("key", 2).options(eager()).await.unwrap();
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(3)).options(eager()).await.unwrap();
    assert_eq!(*read, 1);
    idle(&two.cache).await;
    assert_eq!((fresh(&two.cache, "key").await, loads.count()), (Some(2), 0));
}

#[tokio::test(start_paused = true)]
async fn one_node_refreshes_for_all() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(eager()).await.unwrap();
    let (gate, loads) = (Gate::new(), Loads::new());
    let call = |node: &Node| load(&node.cache, "key", &[], eager(), loads.gated(&gate, 2));
    assert_eq!(*call(&two).await.unwrap().unwrap(), 1);
    pass(ms(8_500)).await;
    for node in [&one, &two, &one, &two] {
        assert_eq!(*call(node).await.unwrap().unwrap(), 1);
        pass(ms(10)).await;
    }
    assert_eq!(loads.count(), 1);
    gate.open();
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(2));
    }
    assert_eq!(loads.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_removal_overtakes_brings_nothing_back() {
    for how in ["tag", "key", "clear", "elsewhere"] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).tags(["tag"]).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let hit = load(&one.cache, "key", &["tag"], eager(), gated(&gate, 2));
        assert_eq!(*hit.await.unwrap().unwrap(), 1);
        gate.reached().await;
        let _ = match how {
            "tag" => one.cache.remove_by_tag("tag").await.unwrap(),
            "key" => one.cache.remove("key").await.unwrap(),
            "clear" => one.cache.clear_hard().await.unwrap(),
            _ => two.cache.remove_by_tag("tag").await.unwrap(),
        };
        pass(SHORT).await;
        gate.open();
        idle(&one.cache).await;
        for node in [&one, &two] {
            assert_eq!(any(&node.cache, "key").await, None, "{how}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_set_overtakes_does_not_replace_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let hit = load(&cache, "key", &[], eager(), gated(&gate, 2));
        hit.await.unwrap().unwrap();
        gate.reached().await;
        put(&cache, "key", 3, &[]).await;
        gate.open();
        idle(&cache).await;
        assert_eq!(fresh(&cache, "key").await, Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn an_eager_refresh_does_without_l2() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(eager()).await.unwrap();
    pass(secs(9)).await;
    node.l2.down();
    let hit = node.cache.get_or_set("key", Loads::new().value(2)).options(eager());
    assert_eq!(*hit.await.unwrap(), 1);
    idle(&node.cache).await;
    assert_eq!(node.cache.peek::<i32>("key").as_deref(), Some(&2));
}
