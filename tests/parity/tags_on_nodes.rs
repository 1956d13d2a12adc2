//! Tags across nodes: those that hold the entry, those that do not, and those that come later.

use crinkle_core::{Cache, FactoryContext, Source, ok};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, long, options, pass};

use crate::{SHORT, any, fresh, load_or, nodes, put, secs};

#[tokio::test(start_paused = true)]
async fn a_removed_tag_takes_what_carries_it_on_every_node() {
    for world in [World::new().await, World::apart().await] {
        let [one, two, three] = nodes(&world).await;
        put(&one.cache, "foo", 1, &["x", "y"]).await;
        put(&two.cache, "bar", 2, &["y", "z"]).await;
        assert_eq!(load_or(&three.cache, "baz", 3, &["x", "z"]).await, (3, true));
        for key in ["foo", "bar", "baz"] {
            for node in [&one, &two, &three] {
                assert!(fresh::<i32>(&node.cache, key).await.is_some());
            }
        }
        let _ = one.cache.remove_by_tag("x").await.unwrap();
        pass(SHORT).await;
        assert_eq!(load_or(&two.cache, "bar", 222, &["y", "z"]).await, (2, false));
        assert_eq!(load_or(&three.cache, "foo", 111, &["x", "y"]).await, (111, true));
        assert_eq!(load_or(&one.cache, "foo", 1111, &["x", "y"]).await, (111, false));
        let _ = two.cache.remove_by_tag("y").await.unwrap();
        pass(SHORT).await;
        assert_eq!(load_or(&three.cache, "bar", 2222, &["y", "z"]).await, (2222, true));
        assert_eq!(load_or(&one.cache, "baz", 3333, &["x", "z"]).await, (3333, true));
        assert_eq!(any(&two.cache, "foo").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn several_tags_at_once_take_what_carries_them_on_every_node() {
    let world = World::new().await;
    let [one, two, three] = nodes(&world).await;
    for (key, tags) in [("foo", ["x", "y"]), ("bar", ["y", "y"]), ("baz", ["z", "z"])] {
        put(&one.cache, key, 1, &tags).await;
        assert_eq!(fresh(&two.cache, key).await, Some(1));
    }
    let _ = three.cache.remove_by_tags(["x", "z"]).await.unwrap();
    pass(SHORT).await;
    for node in [&one, &two, &three] {
        let left = [fresh(&node.cache, "foo").await, fresh(&node.cache, "bar").await];
        assert_eq!(left, [None, Some(1)]);
        assert_eq!(any(&node.cache, "baz").await, None);
    }
}

/// Upstream's scenario of the eight foods, one of which gets its tags in the factory.
#[tokio::test(start_paused = true)]
async fn tags_given_in_a_factory_count_on_every_node_under_a_prefix() {
    let world = World::new().await;
    let node = || world.node_with(|builder| builder.key_prefix("food:"));
    let (one, two) = (node().await, node().await);
    for (key, tag) in [("apple", "red"), ("cherry", "red"), ("lemon", "yellow"), ("kiwi", "green")]
    {
        put(&one.cache, key, 1, &["fruit", tag]).await;
    }
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_tags(["fruit", "yellow"]);
        ok(1)
    };
    two.cache.get_or_set("banana", factory).tags(["green"]).options(long()).await.unwrap();
    let left = async |cache: &Cache| {
        let mut left = Vec::new();
        for key in ["apple", "cherry", "lemon", "kiwi", "banana"] {
            left.extend(fresh::<i32>(cache, key).await.map(|_| key));
        }
        left
    };
    let _ = one.cache.remove_by_tag("red").await.unwrap();
    pass(SHORT).await;
    assert_eq!(left(&two.cache).await, ["lemon", "kiwi", "banana"]);
    let _ = two.cache.remove_by_tag("yellow").await.unwrap();
    pass(SHORT).await;
    assert_eq!(left(&one.cache).await, ["kiwi"]);
    let _ = one.cache.expire_all().await.unwrap();
    pass(SHORT).await;
    assert!(left(&two.cache).await.is_empty());
}

/// Cold start: the removal is older than the node, the record older than the removal.
#[tokio::test(start_paused = true)]
async fn a_node_that_starts_after_a_removal_does_not_answer_what_it_hides() {
    let world = World::new().await;
    let one = world.node().await;
    put(&one.cache, "hard", 1, &["hard"]).await;
    put(&one.cache, "soft", 1, &["soft"]).await;
    put(&one.cache, "kept", 1, &["kept"]).await;
    let _ = one.cache.remove_by_tag("hard").await.unwrap();
    let _ = one.cache.expire_by_tag("soft").await.unwrap();
    assert_eq!(world.store.keys().len(), 3, "the records are all there");
    let two = world.cold(|builder| builder, |_, _| ());
    for (key, plain, lenient) in
        [("hard", None, None), ("soft", None, Some(1)), ("kept", Some(1), Some(1))]
    {
        assert_eq!(fresh(&two.cache, key).await, plain, "{key}");
        assert_eq!(any(&two.cache, key).await, lenient, "{key}");
    }
}

/// It never saw the tag, holds nothing that carries it, and reads from L2 afterwards.
#[tokio::test(start_paused = true)]
async fn a_node_that_never_saw_the_tag_hides_what_it_reads_later() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &["tag"]).await;
    pass(SHORT).await;
    let _ = two.cache.remove_by_tag("tag").await.unwrap();
    assert_eq!(any(&two.cache, "key").await, None, "at once where it was called");
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(2)).tags(["tag"]).await.unwrap();
    assert_eq!((*read, read.meta().source()), (2, Source::Factory));
    pass(SHORT).await;
    assert_eq!(fresh(&one.cache, "key").await, Some(2));
}

/// A reload on one node is a hit on the others, also under the tag that was removed.
#[tokio::test(start_paused = true)]
async fn what_one_node_loads_after_a_removal_is_fresh_for_all() {
    let world = World::new().await;
    let [one, two, three] = nodes(&world).await;
    for node in [&one, &two, &three] {
        load_or(&node.cache, "key", 1, &["tag"]).await;
    }
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    assert_eq!(load_or(&two.cache, "key", 2, &["tag"]).await, (2, true));
    pass(SHORT).await;
    for node in [&one, &three] {
        assert_eq!(load_or(&node.cache, "key", 3, &["tag"]).await, (2, false));
    }
}

/// Soft on every node: each may fall back to its own copy, or to the record.
#[tokio::test(start_paused = true)]
async fn an_expired_tag_leaves_fallbacks_on_every_node() {
    let world = World::new().await;
    let [one, two, three] = nodes(&world).await;
    let _ = one.cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    let _ = one.cache.expire_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    for node in [&one, &two, &three] {
        assert_eq!(fresh::<i32>(&node.cache, "key").await, None);
        let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert_eq!(*read.await.unwrap(), 1);
    }
}

/// Without notifications, a poll is how the others learn of it.
#[tokio::test(start_paused = true)]
async fn without_a_backplane_a_removal_is_known_after_one_poll() {
    let world = World::new().await;
    let node = |seed| {
        let builder = Cache::builder("shop").clock(world.clock).seed(seed);
        builder.l2(world.store.clone()).build().unwrap()
    };
    let (one, two) = (node(100), node(101));
    one.ready().await.unwrap();
    two.ready().await.unwrap();
    put(&one, "key", 1, &["tag"]).await;
    assert_eq!(fresh(&two, "key").await, Some(1));
    let _ = one.remove_by_tag("tag").await.unwrap();
    pass(secs(1) + SHORT).await;
    assert!(two.peek::<i32>("key").is_none());
    assert_eq!(any(&two, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_removal_makes_nobody_read_or_write_a_record() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for number in 0..100 {
        put(&one.cache, &number.to_string(), number, &["tag"]).await;
        assert_eq!(fresh(&two.cache, &number.to_string()).await, Some(number));
    }
    for node in [&one, &two] {
        node.l2.forget();
    }
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(secs(5)).await;
    for node in [&one, &two] {
        let touched = [L2Op::Look, L2Op::Read, L2Op::Set, L2Op::Put, L2Op::Remove, L2Op::Expire];
        assert_eq!(touched.map(|op| node.l2.count(op)), [0; 6]);
    }
}
