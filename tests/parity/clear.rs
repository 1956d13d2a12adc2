//! Clears, soft and hard: everything of one cache, on every node, and nothing of another.

use crinkle_core::Cache;
use crinkle_tests::{Loads, World, both, options, pass};

use crate::{SHORT, any, fresh, load_or, nodes, put, secs};

async fn clear(cache: &Cache, hard: bool) {
    let receipt = if hard { cache.remove_all().await } else { cache.expire_all().await };
    assert!(receipt.expect("no trouble").is_propagated());
    pass(SHORT).await;
}

#[tokio::test(start_paused = true)]
async fn a_clear_takes_everything_and_a_hard_one_the_fallbacks_too() {
    let world = World::new().await;
    for cache in both(&world).await {
        for hard in [false, true] {
            put(&cache, "tagged", 1, &["tag"]).await;
            put(&cache, "plain", 1, &[]).await;
            clear(&cache, hard).await;
            for key in ["tagged", "plain"] {
                assert_eq!(fresh::<i32>(&cache, key).await, None);
                assert_eq!(any(&cache, key).await, (!hard).then_some(1), "{key}, hard {hard}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_reaches_every_node() {
    for world in [World::new().await, World::apart().await] {
        for hard in [false, true] {
            let [one, two, three] = nodes(&world).await;
            for (number, key) in ["foo", "bar", "baz"].iter().enumerate() {
                put(&one.cache, key, 1, &[]).await;
                if number > 0 {
                    assert_eq!(fresh(&two.cache, key).await, Some(1));
                }
            }
            clear(&three.cache, hard).await;
            for node in [&one, &two, &three] {
                for key in ["foo", "bar", "baz"] {
                    assert_eq!(fresh::<i32>(&node.cache, key).await, None);
                    assert_eq!(any(&node.cache, key).await, (!hard).then_some(1));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_after_a_clear_stays_visible_everywhere() {
    let world = World::new().await;
    for hard in [false, true] {
        let (one, two) = (world.node().await, world.node().await);
        put(&one.cache, "before", 1, &[]).await;
        clear(&two.cache, hard).await;
        put(&one.cache, "after", 22, &["tag"]).await;
        assert_eq!(load_or(&two.cache, "loaded", 33, &[]).await, (33, true));
        pass(secs(5)).await;
        for node in [&one, &two] {
            assert_eq!(fresh::<i32>(&node.cache, "before").await, None);
            assert_eq!(fresh(&node.cache, "after").await, Some(22));
            assert_eq!(fresh(&node.cache, "loaded").await, Some(33));
        }
    }
}

/// Cold start: the node comes up after the clear and finds older records.
#[tokio::test(start_paused = true)]
async fn a_node_that_starts_after_a_clear_does_not_answer_what_it_hides() {
    for hard in [false, true] {
        let world = World::new().await;
        let one = world.node().await;
        put(&one.cache, "key", 1, &[]).await;
        clear(&one.cache, hard).await;
        assert_eq!(world.store.keys(), [World::record("key")]);
        let two = world.cold(|builder| builder, |_, _| ());
        assert_eq!(fresh::<i32>(&two.cache, "key").await, None);
        assert_eq!(any(&two.cache, "key").await, (!hard).then_some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_is_of_one_cache_only() {
    let world = World::new().await;
    let shop = world.node().await;
    let other = world.node_with(|builder| builder.key_prefix("other:")).await;
    let alone = world.alone();
    for cache in [&shop.cache, &other.cache, &alone] {
        put(cache, "key", 1, &["tag"]).await;
    }
    clear(&shop.cache, true).await;
    let _ = shop.cache.remove_by_tag("tag").await.unwrap();
    pass(secs(2)).await;
    for cache in [&other.cache, &alone] {
        assert_eq!(fresh(cache, "key").await, Some(1));
    }
    assert_eq!(any(&shop.cache, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_clear_may_be_repeated_and_each_one_counts() {
    let world = World::new().await;
    for cache in both(&world).await {
        for round in 0..4 {
            put(&cache, "key", round, &[]).await;
            assert_eq!(fresh(&cache, "key").await, Some(round));
            clear(&cache, round % 2 == 0).await;
            assert_eq!(fresh::<i32>(&cache, "key").await, None);
        }
    }
}

/// `*` and `!` are the markers of FusionCache's clears; here they are tags like any other.
#[tokio::test(start_paused = true)]
async fn a_removal_of_a_star_is_not_a_clear() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "star", 1, &["*"]).await;
        put(&cache, "other", 1, &["tag"]).await;
        let _ = cache.remove_by_tags(["*", "!"]).await.unwrap();
        assert_eq!(any(&cache, "star").await, None);
        assert_eq!(fresh(&cache, "other").await, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_clear_a_failing_source_is_stood_in_for_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    clear(&one.cache, false).await;
    for node in [&one, &two] {
        let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        let read = read.await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
    }
}

/// A clear costs one call of L2, whatever the cache holds.
#[tokio::test(start_paused = true)]
async fn a_clear_touches_no_record() {
    let world = World::new().await;
    let node = world.node().await;
    for number in 0..200 {
        put(&node.cache, &number.to_string(), number, &[]).await;
    }
    node.l2.forget();
    let _ = node.cache.remove_all().await.unwrap();
    assert_eq!(node.l2.calls().len(), 1);
    assert_eq!(world.store.keys().len(), 200, "they go with their lives");
}
