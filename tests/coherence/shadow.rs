//! Shadow verification counts what should never happen, and nothing else.

use std::time::Duration;

use crinkle_core::Settings;
use crinkle_core::l2::L2ErrorKind;
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, long, pass};

async fn watching(world: &World) -> Node {
    world.node_with(|b| b.settings(Settings::default().shadow_verify(1))).await
}

async fn ask_for(node: &Node, seconds: u64) {
    for _ in 0..seconds * 10 {
        node.cache.get::<i32>("key").await.expect("an answer");
        pass(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn copies_that_are_changed_and_removed_by_the_rules_are_legal() {
    let world = World::new().await;
    let (one, two) = (watching(&world).await, world.node().await);
    for value in 0..10 {
        two.cache.set("key", value).tags(["t"]).options(long()).await.unwrap();
        ask_for(&one, 2).await;
        match value % 3 {
            0 => two.cache.remove("key").await.unwrap(),
            1 => two.cache.remove_by_tag("t").await.unwrap(),
            _ => two.cache.expire("key").await.unwrap(),
        };
        ask_for(&one, 1).await;
    }
    let stats = one.cache.stats();
    assert!(stats.shadow_checked > 5, "{stats:?}");
    assert_eq!((stats.shadow_illegal, stats.shadow_absent), (0, 0));
}

/// What is written without a word to anybody is what no rule covers.
#[tokio::test(start_paused = true)]
async fn a_copy_that_l2_has_replaced_for_long_is_counted() {
    let world = World::new().await;
    let (one, two) = (watching(&world).await, world.node().await);
    one.cache.set("key", 1).options(long()).await.unwrap();
    ask_for(&one, 2).await;
    assert_eq!(one.cache.stats().shadow_illegal, 0);
    two.cache.set("key", 2).options(long().skip_backplane(true)).await.unwrap();
    ask_for(&one, 3).await;
    assert_eq!(one.cache.stats().shadow_illegal, 0, "the news could be on its way");
    ask_for(&one, 5).await;
    assert!(one.cache.stats().shadow_illegal > 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_l2_has_evicted_is_absent_and_not_illegal() {
    let world = World::new().await;
    let one = watching(&world).await;
    one.cache.set("key", 1).options(long()).await.unwrap();
    world.store.evict(&World::record("key"));
    ask_for(&one, 8).await;
    let stats = one.cache.stats();
    assert!(stats.shadow_absent > 0 && stats.shadow_illegal == 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_compared_unless_asked_for() {
    let world = World::new().await;
    let node = world.node().await;
    node.cache.set("key", 1).options(long()).await.unwrap();
    ask_for(&node, 3).await;
    assert_eq!(node.cache.stats().shadow_checked, 0);
}

/// A server refuses to look at several keys because of one, where something else is.
#[tokio::test(start_paused = true)]
async fn a_key_that_holds_something_else_keeps_no_other_from_being_compared() {
    let world = World::new().await;
    let one = watching(&world).await;
    for key in ["key", "other"] {
        one.cache.set(key, 1).options(long()).await.unwrap();
    }
    pass(Duration::from_millis(1100)).await;
    let checked = one.cache.stats().shadow_checked;
    for key in ["key", "other"] {
        assert_eq!(one.cache.get::<i32>(key).await.unwrap().map(|read| *read), Some(1));
    }
    // All together, and one of them alone.
    one.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
    one.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
    pass(Duration::from_secs(2)).await;
    assert_eq!(one.cache.stats().shadow_checked, checked + 1);
}
