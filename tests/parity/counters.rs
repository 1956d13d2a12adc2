//! `stats()`: each thing that happens is counted once, where it belongs.

use crinkle_core::{Stats, l2::L2ErrorKind};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, World, both, options, pass};

use crate::{SHORT, any, fresh, load_or, put, secs};

/// The counters of a read, in the order: L1 hits, L2 hits, misses, stale, loads, failures.
fn reads(stats: Stats) -> [u64; 6] {
    let Stats { l1_hits, l2_hits, misses, stale, factory_calls, factory_failures, .. } = stats;
    [l1_hits, l2_hits, misses, stale, factory_calls, factory_failures]
}

/// Upstream's scripted flow: misses, a set, hits, a failing refresh, stale hits, a removal.
#[tokio::test(start_paused = true)]
async fn a_scripted_flow_is_counted_step_by_step() {
    let world = World::new().await;
    for cache in both(&world).await {
        assert_eq!(any(&cache, "key").await, None);
        assert_eq!(*cache.get_or("key", 7).await.unwrap(), 7);
        assert_eq!(reads(cache.stats()), [0, 0, 2, 0, 0, 0]);
        let loaded = cache.get_or_set("key", Loads::new().value(1)).options(options());
        assert_eq!(*loaded.await.unwrap(), 1);
        assert_eq!(reads(cache.stats()), [0, 0, 3, 0, 1, 0]);
        assert_eq!(fresh(&cache, "key").await, Some(1));
        assert!(cache.peek::<i32>("key").is_some());
        assert_eq!(reads(cache.stats()), [2, 0, 3, 0, 1, 0]);
        pass(secs(11)).await;
        for _ in 0..3 {
            let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
            assert!(read.await.unwrap().meta().is_stale());
        }
        assert_eq!(reads(cache.stats()), [2, 0, 4, 3, 2, 1], "one failure, three stale answers");
        let _ = cache.remove("key").await.unwrap();
        assert_eq!(fresh::<i32>(&cache, "key").await, None);
        assert_eq!(reads(cache.stats()), [2, 0, 5, 3, 2, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_node_is_counted_as_a_hit_in_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "a", 1, &[]).await;
    put(&one.cache, "b", 1, &[]).await;
    assert_eq!(fresh(&two.cache, "a").await, Some(1));
    assert_eq!(load_or(&two.cache, "b", 2, &[]).await, (1, false));
    assert_eq!(reads(two.cache.stats()), [0, 2, 0, 0, 0, 0]);
    assert_eq!(fresh(&two.cache, "a").await, Some(1));
    assert_eq!(reads(two.cache.stats()), [1, 2, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_removal_hides_is_counted_as_hidden() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &["tag"]).await;
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_eq!(node.cache.stats().hidden, 0);
        load_or(&node.cache, "key", 2, &[]).await;
        // The first reader meets it; the second finds what the first has loaded.
        assert_eq!(node.cache.stats().hidden > 0, std::ptr::eq(node, &raw const one));
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_with_l2_is_counted_and_is_no_error() {
    let world = World::new().await;
    let node = world.node().await;
    for op in [L2Op::Look, L2Op::Set, L2Op::Remove, L2Op::Expire, L2Op::Advance] {
        let before = node.cache.stats().l2_errors;
        node.l2.next(op, Fate::Fail(L2ErrorKind::Full));
        match op {
            L2Op::Look => assert_eq!(any(&node.cache, "absent").await, None),
            L2Op::Set => drop(node.cache.set("key", 1).await.unwrap()),
            L2Op::Remove => drop(node.cache.remove("key").await.unwrap()),
            L2Op::Expire => drop(node.cache.expire("key").await.unwrap()),
            _ => drop(node.cache.remove_by_tag("tag").await.unwrap()),
        }
        assert_eq!(node.cache.stats().l2_errors, before + 1, "{op:?}");
    }
}

/// Quiet is quiet: a healthy node with nothing to do counts polls and heartbeats, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_healthy_cluster_at_rest_counts_no_trouble() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &["tag"]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    let before = two.cache.stats();
    pass(secs(120)).await;
    let after = two.cache.stats();
    assert!(after.syncs > before.syncs + 100 && after.messages > before.messages + 100);
    let (syncs, messages) = (after.syncs, after.messages);
    assert_eq!(after, restated(before, syncs, messages));
    assert!(two.cache.peek::<i32>("key").is_some());
}

fn restated(mut stats: Stats, syncs: u64, messages: u64) -> Stats {
    stats.syncs = syncs;
    stats.messages = messages;
    stats
}

#[tokio::test(start_paused = true)]
async fn what_has_only_ended_is_not_counted_as_hidden() {
    let world = World::new().await;
    let cache = world.node().await.cache;
    put(&cache, "key", 1, &["tag"]).await;
    pass(secs(3600)).await;
    assert_eq!(any(&cache, "key").await, None);
    assert_eq!(cache.stats().hidden, 0);
}

#[tokio::test(start_paused = true)]
async fn no_counter_of_checks_ever_falls() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "often", 1, &["tag"]).await;
    for _ in 0..100 {
        assert_eq!(fresh(&two.cache, "often").await, Some(1));
    }
    let before = two.cache.stats().checks_memo;
    assert!(before > 0);
    for key in 0..200 {
        put(&one.cache, &format!("key:{key}"), 1, &["tag"]).await;
        assert_eq!(fresh(&two.cache, &format!("key:{key}")).await, Some(1));
    }
    assert!(two.cache.stats().checks_memo >= before);
}
