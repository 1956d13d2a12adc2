//! Tags in one cache, without L2 and with.

use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, both, options};

use crate::{any, fresh, load_or, put};

#[tokio::test(start_paused = true)]
async fn a_removed_tag_takes_exactly_what_carries_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "foo", 1, &["x", "y"]).await;
        put(&cache, "bar", 2, &["y", "z"]).await;
        put(&cache, "baz", 3, &["x", "z"]).await;
        let _ = cache.remove_by_tag("x").await.unwrap();
        assert_eq!(any(&cache, "foo").await, None);
        assert_eq!(load_or(&cache, "bar", 222, &["y", "z"]).await, (2, false));
        assert_eq!(load_or(&cache, "baz", 333, &["x", "z"]).await, (333, true));
        let _ = cache.remove_by_tag("y").await.unwrap();
        assert_eq!(load_or(&cache, "foo", 1111, &["x", "y"]).await, (1111, true));
        assert_eq!(load_or(&cache, "bar", 2222, &["y", "z"]).await, (2222, true));
        assert_eq!(load_or(&cache, "baz", 3333, &["x", "z"]).await, (333, false));
    }
}

#[tokio::test(start_paused = true)]
async fn several_tags_take_what_carries_any_of_them() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "foo", 1, &["x", "y"]).await;
        put(&cache, "bar", 2, &["y"]).await;
        put(&cache, "baz", 3, &["z"]).await;
        let _ = cache.remove_by_tags(["x", "z"]).await.unwrap();
        assert_eq!(any(&cache, "foo").await, None);
        assert_eq!(any(&cache, "bar").await, Some(2));
        assert_eq!(any(&cache, "baz").await, None);
        let _ = cache.remove_by_tags(["y", "unknown"]).await.unwrap();
        assert_eq!(any(&cache, "bar").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn removing_no_tags_removes_nothing_and_asks_nobody() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "key", 1, &["tag"]).await;
    node.l2.forget();
    let receipt = node.cache.remove_by_tags(Vec::<String>::new()).await.unwrap();
    assert!(receipt.is_propagated());
    assert_eq!(node.l2.count(L2Op::Advance), 0);
    assert_eq!(fresh(&node.cache, "key").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_tag_takes_nothing() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "tagged", 1, &["y"]).await;
        put(&cache, "plain", 2, &[]).await;
        let _ = cache.remove_by_tag("blah").await.unwrap();
        assert_eq!(fresh(&cache, "tagged").await, Some(1));
        let _ = cache.remove_by_tag("y").await.unwrap();
        assert_eq!(any(&cache, "tagged").await, None);
        assert_eq!(fresh(&cache, "plain").await, Some(2), "no tag takes what has none");
    }
}

/// Tags come and go with each rewrite of the entry; only the present ones count.
#[tokio::test(start_paused = true)]
async fn only_the_tags_of_the_last_write_count() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &["t1", "t2"]).await;
        let _ = cache.remove_by_tag("t1").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
        put(&cache, "key", 2, &["t1", "t2", "t3"]).await;
        let _ = cache.remove_by_tag("t3").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
        put(&cache, "key", 3, &["t1"]).await;
        let _ = cache.remove_by_tags(["t2", "t3"]).await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(3));
        let _ = cache.remove_by_tags(["t1", "t2", "t3", "t4"]).await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
        put(&cache, "key", 4, &[]).await;
        let _ = cache.remove_by_tags(["t1", "t2", "t3", "t4"]).await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(4));
    }
}

/// FusionCache's `RemoveByTag` is what is `expire_by_tag` here.
#[tokio::test(start_paused = true)]
async fn an_expired_tag_leaves_stale_values_and_a_removed_one_nothing() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "soft", 1, &["soft"]).await;
        put(&cache, "hard", 1, &["hard"]).await;
        put(&cache, "none", 1, &[]).await;
        let _ = cache.expire_by_tag("soft").await.unwrap();
        let _ = cache.remove_by_tag("hard").await.unwrap();
        for (key, plain, lenient) in
            [("soft", None, Some(1)), ("hard", None, None), ("none", Some(1), Some(1))]
        {
            assert_eq!(fresh(&cache, key).await, plain, "{key}");
            assert_eq!(any(&cache, key).await, lenient, "{key}");
            assert_eq!(cache.peek::<i32>(key).is_some(), plain.is_some(), "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_after_a_removal_of_its_tag_is_fresh() {
    let world = World::new().await;
    for cache in both(&world).await {
        for round in 0..5 {
            put(&cache, "set", round, &["tag"]).await;
            assert_eq!(load_or(&cache, "loaded", round, &["tag"]).await, (round, true));
            assert_eq!(fresh(&cache, "set").await, Some(round));
            assert_eq!(fresh(&cache, "loaded").await, Some(round));
            let _ = cache.remove_by_tag("tag").await.unwrap();
        }
    }
}

/// Whatever carries the tag: one number is written, and nothing else is touched.
#[tokio::test(start_paused = true)]
async fn a_removal_costs_the_same_for_one_entry_and_for_thousands() {
    let world = World::new().await;
    let node = world.node().await;
    for number in 0..2_000 {
        put(&node.cache, &number.to_string(), number, &["tag"]).await;
    }
    node.l2.forget();
    let _ = node.cache.remove_by_tag("tag").await.unwrap();
    assert_eq!(node.l2.calls().len(), 1);
    for number in 0..2_000 {
        assert!(node.cache.peek::<i32>(number.to_string()).is_none());
    }
}

/// FusionCache looks up a marker per tag and hit; 32 tags are 32 lookups there.
#[tokio::test(start_paused = true)]
async fn a_hit_asks_nobody_about_its_tags() {
    let world = World::new().await;
    let node = world.node().await;
    let tags: Vec<String> = (0..32).map(|number| format!("tag:{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    put(&node.cache, "key", 1, &tags).await;
    node.l2.forget();
    for round in 0..20 {
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
        let _ = node.cache.remove_by_tag(format!("another:{round}")).await.unwrap();
    }
    let reads = node.l2.count(L2Op::Look) + node.l2.count(L2Op::Read);
    assert_eq!(reads, 0);
}

#[tokio::test(start_paused = true)]
async fn a_tag_given_twice_is_one_removal_away() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &["tag", "tag"]).await;
        assert_eq!(fresh(&cache, "key").await, Some(1));
        let _ = cache.remove_by_tags(["tag", "tag"]).await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
        put(&cache, "key", 2, &["tag"]).await;
        assert_eq!(fresh(&cache, "key").await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_tag_and_a_later_load_give_the_new_tags() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).tags(["a", "b"]).options(options()).await.unwrap();
        let _ = cache.expire_by_tag("a").await.unwrap();
        let read = cache.get_or_set("key", Loads::new().value(2)).tags(["c", "d"]);
        let read = read.options(options()).await.unwrap();
        assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["c", "d"]);
        let _ = cache.remove_by_tag("b").await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(2));
        let _ = cache.remove_by_tag("c").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
    }
}

/// A removal of a tag and a value of another type meet: the tag wins, the type does not matter.
#[tokio::test(start_paused = true)]
async fn tags_do_not_ask_for_the_type_of_a_value() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("text", "one".to_owned()).tags(["tag"]).await.unwrap();
        let _ = cache.set("number", 1).tags(["tag"]).await.unwrap();
        let _ = cache.remove_by_tag("tag").await.unwrap();
        assert!(cache.get::<String>("text").await.unwrap().is_none());
        assert!(cache.get::<i32>("number").await.unwrap().is_none());
        assert!(cache.get::<i32>("text").await.unwrap().is_none(), "no mismatch: it is not there");
    }
}
