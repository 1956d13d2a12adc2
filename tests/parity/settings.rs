//! What a cache is: settings that other tests leave at their defaults.

use crinkle_core::{Cache, ErrorKind, Settings};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, gated, load, long, ms, pass};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, put, secs};

#[tokio::test(start_paused = true)]
async fn the_limits_on_tags_are_the_ones_that_were_set() {
    let settings = Settings::default().max_tags(2).max_tag_len(300);
    let cache = Cache::builder("shop").settings(settings).build().unwrap();
    let _ = cache.set("key", 1).tags(["t".repeat(300), "b".to_owned()]).await.unwrap();
    assert_eq!(fresh(&cache, "key").await, Some(1));
    for tags in [vec!["t".repeat(301)], vec!["a".into(), "b".into(), "c".into()]] {
        let error = cache.set("key", 2).tags(tags).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTag);
    }
    assert_eq!(fresh(&cache, "key").await, Some(1));
}

/// How soon a node that receives nothing knows of a removal.
#[tokio::test(start_paused = true)]
async fn the_poll_is_as_frequent_as_was_set() {
    let world = World::new().await;
    let one = world.node().await;
    let settings = Settings::default().poll(ms(100));
    let quick = world.node_with(|builder| builder.settings(settings)).await;
    let usual = world.node().await;
    put(&one.cache, "key", 1, &["tag"]).await;
    for node in [&quick, &usual] {
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
        node.bus.mute(true);
    }
    // Right after a poll of both.
    let polls = usual.cache.stats().syncs;
    crinkle_tests::until("a poll", || usual.cache.stats().syncs > polls).await;
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(ms(250)).await;
    assert!(quick.cache.peek::<i32>("key").is_none());
    assert!(usual.cache.peek::<i32>("key").is_some(), "it polls once a second");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_serves_for_the_coherence_ttl_that_was_set() {
    let world = World::new().await;
    let settings = Settings::default().coherence_ttl(secs(5));
    let short = world.node_with(|builder| builder.settings(settings)).await;
    let usual = world.node().await;
    put(&short.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    for node in [&short, &usual] {
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
    }
    for node in [&short, &usual] {
        node.l2.down();
        node.bus.cut();
    }
    assert_eq!(short.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    pass(secs(6)).await;
    assert!(short.cache.peek::<i32>("key").is_none());
    assert!(usual.cache.peek::<i32>("key").is_some(), "30 s");
}

/// The node that loads has died: its load lock in L2 ends by itself, and a patient waiter takes over.
#[tokio::test(start_paused = true)]
async fn a_dead_nodes_load_lock_ends_when_it_was_set_to() {
    let world = World::new().await;
    let settings = Settings::default().load_lock_ttl(secs(2));
    let one = world.node_with(|builder| builder.settings(settings)).await;
    let two = world.node().await;
    let dead = load(&one.cache, "key", &[], long(), gated(&Gate::new(), 1));
    pass(SHORT).await;
    one.l2.hang();
    let asked = Instant::now();
    let patient = long().load_lock_wait(secs(60));
    let read = two.cache.get_or_set("key", Loads::new().value(2)).options(patient);
    assert_eq!(*read.await.unwrap(), 2);
    assert!((secs(1)..secs(4)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    dead.abort();
}

/// Upstream's 4, 4, 3: the third node says what it does, and receives nothing.
#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_listen_keeps_what_it_has() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let settings = Settings::default().ignore_incoming(true);
    let three = world.node_with(|builder| builder.settings(settings)).await;
    put(&three.cache, "key", 3, &["tag"]).await;
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(3), "they hear it");
    }
    put(&one.cache, "key", 4, &["tag"]).await;
    pass(SHORT).await;
    for (node, value) in [(&one, 4), (&two, 4), (&three, 3)] {
        assert_eq!(fresh(&node.cache, "key").await, Some(value));
    }
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(secs(1) + SHORT).await;
    assert_eq!(any(&three.cache, "key").await, None, "the ledger is asked all the same");
}
