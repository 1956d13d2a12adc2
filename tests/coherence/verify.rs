//! Unverified copies: a look at the heads of their records, shared, and in one round trip for many.

use std::time::Duration;

use crinkle_core::Source;
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, Node, World, go, pass};

/// A node whose copies are all unverified, and its store.
async fn with_unverified(keys: &[&str]) -> (World, Node) {
    let world = World::new().await;
    let node = world.node().await;
    for key in keys {
        let _ =
            node.cache.set(*key, 1).duration(Duration::from_secs(600)).await.expect("no trouble");
    }
    pass(Duration::from_millis(10)).await;
    unverify(&node).await;
    (world, node)
}

async fn unverify(node: &Node) {
    node.bus.deliver("junk");
    pass(Duration::from_millis(1500)).await;
    node.l2.forget();
}

fn values(node: &Node) -> usize {
    [L2Op::Look, L2Op::Read, L2Op::ReadMany].map(|op| node.l2.count(op)).iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_an_unverified_copy_share_one_look_at_its_head() {
    let (_world, node) = with_unverified(&["key"]).await;
    node.l2.always(L2Op::Heads, Fate::Delay(Duration::from_millis(10)));
    let calls: Vec<_> =
        (0..1000)
            .map(|_| {
                let cache = node.cache.clone();
                go(async move {
                    cache.get::<i32>("key").await.unwrap().map(|read| read.meta().source())
                })
            })
            .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(Source::L1));
    }
    assert_eq!((node.l2.count(L2Op::Heads), values(&node)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_goes_away_leaves_the_look_to_the_others() {
    let (_world, node) = with_unverified(&["key"]).await;
    node.l2.always(L2Op::Heads, Fate::Delay(Duration::from_millis(10)));
    let cache = node.cache.clone();
    let first = go(async move { cache.get::<i32>("key").await.unwrap().is_some() });
    pass(Duration::from_millis(5)).await;
    let cache = node.cache.clone();
    let second = go(async move { cache.get::<i32>("key").await.unwrap().is_some() });
    pass(Duration::from_millis(1)).await;
    first.abort();
    assert!(second.await.unwrap());
    assert_eq!(node.l2.count(L2Op::Heads), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_unverified_copies_is_one_look() {
    let keys = ["a", "b", "c"];
    let (_world, node) = with_unverified(&keys).await;
    let found = node.cache.get_many::<i32>(keys).await.unwrap();
    assert!(found.iter().flatten().all(|read| read.meta().source() == Source::L1));
    assert_eq!(
        (found.iter().flatten().count(), node.l2.count(L2Op::Heads), values(&node)),
        (3, 1, 0)
    );
    unverify(&node).await;
    let none = |_: Vec<String>| async { crinkle_core::ok(Vec::<(String, i32)>::new()) };
    let read = node.cache.get_or_set_many(keys, none).await.unwrap();
    assert_eq!((read.len(), node.l2.count(L2Op::Heads), values(&node)), (3, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_l2_has_replaced_or_lost_is_read_again() {
    let (world, node) = with_unverified(&["old", "lost", "same"]).await;
    let other = world.node().await;
    node.bus.mute(true);
    let _ = other.cache.set("old", 2).await.unwrap();
    let _ = other.cache.remove("lost").await.unwrap();
    let found = node.cache.get_many::<i32>(["old", "lost", "same"]).await.unwrap();
    let found: Vec<_> = found.iter().map(|read| read.as_deref().copied()).collect();
    assert_eq!(found, [Some(2), None, Some(1)]);
    let loads = Loads::new();
    assert_eq!(*node.cache.get_or_set("lost", loads.value(3)).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_heard_during_a_look_counts() {
    let (_world, node) = with_unverified(&["key"]).await;
    node.l2.next(L2Op::Heads, Fate::Delay(Duration::from_millis(100)));
    let cache = node.cache.clone();
    let read = go(async move { cache.get::<i32>("key").await.unwrap().is_some() });
    pass(Duration::from_millis(10)).await;
    let _ = node.cache.remove("key").await.unwrap();
    assert!(!read.await.unwrap(), "it was removed while L2 was asked");
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_more_time_is_not_held_to_the_limit_of_the_one_it_joined() {
    let (_world, node) = with_unverified(&["key"]).await;
    node.l2.always(L2Op::Heads, Fate::Delay(Duration::from_millis(400)));
    let (one, two) = (node.cache.clone(), node.cache.clone());
    let hasty = go(async move { one.get::<i32>("key").allow_stale().await.unwrap() });
    pass(Duration::from_millis(10)).await;
    let patient = go(async move { two.get::<i32>("key").await.unwrap() });
    let _ = hasty.await.unwrap();
    assert_eq!(patient.await.unwrap().expect("it waits long enough").meta().source(), Source::L1);
}

/// More than the cache's own limit, too.
#[tokio::test(start_paused = true)]
async fn a_reader_with_much_more_time_is_not_held_to_the_limit_of_the_cache() {
    let (_world, node) = with_unverified(&["key"]).await;
    node.l2.always(L2Op::Heads, Fate::Delay(Duration::from_millis(1500)));
    let (one, two) = (node.cache.clone(), node.cache.clone());
    let hasty = go(async move { one.get::<i32>("key").await.unwrap() });
    pass(Duration::from_millis(10)).await;
    let patient = two.get::<i32>("key").l2_hard_timeout(Duration::from_secs(5));
    let read = patient.await.unwrap().expect("it waits long enough");
    assert_eq!(read.meta().source(), Source::L1);
    // L2 has not answered within its limit.
    assert!(hasty.await.unwrap().is_none_or(|read| read.meta().is_stale()));
}
