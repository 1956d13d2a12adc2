//! Warming a node, and asking whether something is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crinkle_core::{Cached, ErrorKind, Source};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{World, pass};

#[tokio::test(start_paused = true)]
async fn a_new_node_starts_with_the_hottest_keys_of_another() {
    let world = World::new().await;
    let old = world.node().await;
    old.cache.set_many((0..100).map(|n| (format!("key{n:02}"), n))).await.unwrap();
    // One hit in 64 counts.
    for (key, hits) in [("key99", 500), ("key07", 1500), ("key42", 1000)] {
        for _ in 0..hits {
            let _: Option<Cached<i32>> = old.cache.get(key).await.unwrap();
        }
    }
    let hot = old.cache.export_hot_keys(3);
    assert_eq!(hot, ["key07", "key42", "key99"]);
    let new = world.node().await;
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let warmed = new
        .cache
        .warm::<i32>(hot.iter().map(String::as_str).chain(["absent"]))
        .page(2)
        .concurrency(2)
        .progress(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .await
        .unwrap();
    assert_eq!((warmed.keys, warmed.asked, warmed.found), (4, 4, 3));
    assert_eq!((told.load(Ordering::SeqCst), new.l2.count(L2Op::ReadMany)), (2, 2));
    let read = new.cache.get::<i32>("key07").await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source()), (7, Source::L1));
    assert!(new.cache.peek::<i32>("key98").is_none());
}

#[tokio::test(start_paused = true)]
async fn contains_tells_of_any_type_and_reads_nothing_into_l1() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    assert!(!one.cache.contains("key").await.unwrap());
    two.cache.set("key", "text".to_owned()).tags(["t"]).await.unwrap();
    assert!(one.cache.contains("key").await.unwrap() && two.cache.contains("key").await.unwrap());
    assert_eq!(one.cache.entry_count(), 0);
    two.cache.expire("key").await.unwrap();
    assert!(!one.cache.contains("key").await.unwrap());
    two.cache.set("key", "text".to_owned()).tags(["t"]).await.unwrap();
    two.cache.remove_by_tag("t").await.unwrap();
    pass(Duration::from_millis(10)).await;
    assert!(!one.cache.contains("key").await.unwrap() && !two.cache.contains("key").await.unwrap());
    let error = one.cache.contains("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_insists_on_l2_fails_without_it() {
    let world = World::new().await;
    let node = world.node().await;
    node.cache.set("there", 1).await.unwrap();
    node.l2.always(L2Op::Read, Fate::Hang);
    node.l2.always(L2Op::Look, Fate::Hang);
    let get = node.cache.get::<i32>("key").require_l2(true).await.unwrap_err();
    let load = |_| async { crinkle_core::ok(2) };
    let loaded = node.cache.get_or_set("key", load).require_l2(true).await.unwrap_err();
    assert_eq!((get.kind(), loaded.kind()), (ErrorKind::L2, ErrorKind::L2));
    let hit = node.cache.get::<i32>("there").require_l2(true).await.unwrap();
    assert_eq!(hit.map(|cached| *cached), Some(1), "a hit does not need it");
    assert_eq!(*node.cache.get_or_set("key", load).await.unwrap(), 2);
}
