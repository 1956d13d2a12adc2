//! `get`, `get_or`, `peek`, and what a cache holds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::{Json, NoCodec, Raw};
use crinkle_core::{Cache, EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, TestError, World, go, kind_of, options, pass};
use serde::{Deserialize, Serialize};

#[tokio::test(start_paused = true)]
async fn get_answers_from_l1_then_l2_then_not_at_all() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    assert!(one.cache.get::<i32>("key").await.unwrap().is_none());
    assert!(one.l2.writes().is_empty(), "a get leaves no load lock");
    let _ = one.cache.set("key", 1).tags(["a", "b"]).await.unwrap();
    pass(Duration::from_secs(3)).await;
    let read = one.cache.get::<i32>("key").await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source(), read.meta().is_stale()), (1, Source::L1, false));
    let read = two.cache.get::<i32>("key").await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source(), read.meta().is_stale()), (1, Source::L2, false));
    assert_eq!((read.meta().age(), read.meta().key()), (Duration::from_secs(3), "key"));
    assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["a", "b"]);
    let read = two.cache.get::<i32>("key").await.unwrap().unwrap();
    assert_eq!(read.meta().source(), Source::L1);
}

#[tokio::test(start_paused = true)]
async fn a_life_ends_at_the_same_moment_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).duration(Duration::from_secs(10)).await.unwrap();
    pass(Duration::from_millis(9_990)).await;
    assert!(two.cache.get::<i32>("key").await.unwrap().is_some());
    assert!(two.cache.peek::<i32>("key").is_some());
    pass(Duration::from_millis(11)).await;
    for node in [&one, &two] {
        assert!(node.cache.peek::<i32>("key").is_none());
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn get_or_answers_the_default_and_keeps_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    let read = node.cache.get_or("key", 7).await.unwrap();
    assert_eq!((*read, read.meta().source()), (7, Source::Default));
    assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    assert!(node.l2.writes().is_empty());
    let _ = node.cache.set("key", 1).await.unwrap();
    assert_eq!(*node.cache.get_or("key", 7).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn peek_sees_fresh_values_of_l1_only() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    two.l2.forget();
    assert!(two.cache.peek::<i32>("key").is_none());
    assert_eq!(two.l2.count(L2Op::Look) + two.l2.count(L2Op::Read), 0);
    assert_eq!(one.cache.peek::<i32>("key").as_deref(), Some(&1));
    assert!(one.cache.peek::<String>("key").is_none());
    pass(Duration::from_secs(11)).await;
    assert!(one.cache.peek::<i32>("key").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_answered_only_to_those_who_allow_it() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(Duration::from_secs(11)).await;
        assert!(cache.get::<i32>("key").await.unwrap().is_none());
        let read = cache.get::<i32>("key").allow_stale().await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
        assert_eq!(*cache.get_or("key", 7).await.unwrap(), 7);
        let read = cache.get_or("key", 7).allow_stale().await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
    }
}

#[tokio::test(start_paused = true)]
async fn known_absent_is_a_value() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let loads = Loads::new();
    for node in [&one, &two, &one] {
        let read = node.cache.get_or_set("key", loads.value(None::<String>)).await.unwrap();
        assert_eq!(*read, None);
    }
    assert_eq!(loads.count(), 1);
    let known = two.cache.get::<Option<String>>("key").await.unwrap();
    assert_eq!(known.as_deref(), Some(&None));
    assert!(two.cache.get::<Option<String>>("other").await.unwrap().is_none());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    name: String,
    price: Option<u64>,
    parts: BTreeMap<String, Vec<f64>>,
}

#[tokio::test(start_paused = true)]
async fn one_cache_holds_values_of_many_types() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let parts = BTreeMap::from([("a".to_owned(), vec![0.5, f64::INFINITY])]);
    let product = Product { name: "chair \0 \u{1f600}".to_owned(), price: None, parts };
    let _ = one.cache.set("product", product.clone()).await.unwrap();
    let _ = one.cache.set("unit", ()).await.unwrap();
    let _ = one.cache.set("text", String::new()).await.unwrap();
    let _ = one.cache.set("pair", (1_u8, i64::MIN)).await.unwrap();
    for node in [&one, &two] {
        assert_eq!(*node.cache.get::<Product>("product").await.unwrap().unwrap(), product);
        assert!(node.cache.get::<()>("unit").await.unwrap().is_some());
        assert_eq!(*node.cache.get::<String>("text").await.unwrap().unwrap(), "");
        assert_eq!(*node.cache.get::<(u8, i64)>("pair").await.unwrap().unwrap(), (1, i64::MIN));
    }
}

#[tokio::test(start_paused = true)]
async fn another_type_is_a_mismatch_in_get_and_a_refill_in_get_or_set() {
    let world = World::new().await;
    for warm in [true, false] {
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1_i32).await.unwrap();
        pass(Duration::from_millis(10)).await;
        if warm {
            assert!(two.cache.get::<i32>("key").await.unwrap().is_some());
        }
        assert_eq!(
            two.cache.get::<String>("key").await.unwrap_err().kind(),
            ErrorKind::TypeMismatch
        );
        assert!(two.cache.peek::<String>("key").is_none());
        let loads = Loads::new();
        let read = two.cache.get_or_set("key", loads.value("one".to_owned())).await.unwrap();
        assert_eq!((read.as_str(), loads.count(), read.meta().is_stale()), ("one", 1, false));
        pass(Duration::from_millis(50)).await;
        for node in [&one, &two] {
            assert_eq!(*node.cache.get::<String>("key").await.unwrap().unwrap(), "one");
            let error = node.cache.get::<i32>("key").await.unwrap_err();
            assert_eq!((error.kind(), error.key()), (ErrorKind::TypeMismatch, Some("key")));
        }
    }
}

/// A caller of another type joins no flight but its own.
#[tokio::test(start_paused = true)]
async fn callers_of_two_types_at_one_key_both_get_theirs() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let number = crinkle_tests::load(&cache, "key", &[], options(), crinkle_tests::gated(&gate, 1));
    gate.reached().await;
    let text = crinkle_tests::load(&cache, "key", &[], options(), |_| async {
        crinkle_core::ok("one".to_owned())
    });
    pass(Duration::from_millis(10)).await;
    gate.open();
    assert_eq!(*number.await.unwrap().unwrap(), 1);
    assert_eq!(*text.await.unwrap().unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_cache_runs_every_factory_and_keeps_nothing() {
    let cache = Cache::disabled();
    let loads = Loads::new();
    for number in 1..=3 {
        let read = cache.get_or_set("key", loads.value(number)).tags(["tag"]).await.unwrap();
        assert_eq!((*read, read.meta().source()), (number, Source::Factory));
    }
    assert_eq!(loads.count(), 3);
    assert!(cache.set("key", 1).await.unwrap().is_propagated());
    assert!(cache.get::<i32>("key").await.unwrap().is_none());
    assert!(cache.peek::<i32>("key").is_none());
    let failed = cache.get_or_set("key", loads.fail::<_, i32>()).await.unwrap_err();
    assert_eq!(failed.factory_error::<TestError>(), Some(&TestError::new()));
    let panics = |_| -> std::future::Ready<Result<i32, TestError>> { panic!("no") };
    assert_eq!(kind_of(cache.get_or_set("key", panics).await), ErrorKind::FactoryPanicked);
    for _ in 0..10 {
        assert!(cache.remove("key").await.unwrap().is_propagated());
        assert!(cache.expire("key").await.unwrap().is_propagated());
        assert!(cache.remove_by_tag("tag").await.unwrap().is_propagated());
        assert!(cache.remove_all().await.unwrap().is_propagated());
    }
    let health = cache.health();
    assert_eq!((health.pending_removals, health.ledger_suspect), (0, false));
    assert_eq!(cache.entry_count(), 0);
    cache.close().await.unwrap();
}

/// A type that no codec knows.
struct Opaque(#[expect(dead_code, reason = "only its type matters")] std::sync::Mutex<i32>);

#[tokio::test(start_paused = true)]
async fn a_cache_without_a_codec_holds_any_type() {
    let cache = Cache::builder("shop").codec(NoCodec).build().unwrap();
    let read =
        cache.get_or_set("key", |_| async { crinkle_core::ok(Opaque(std::sync::Mutex::new(1))) });
    read.tags(["tag"]).await.unwrap();
    assert!(cache.peek::<Opaque>("key").is_some());
    let _ = cache.remove_by_tag("tag").await.unwrap();
    assert!(cache.get::<Opaque>("key").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn raw_bytes_travel_as_they_are() {
    let world = World::new().await;
    let one = world.node_with(|builder| builder.codec(Raw)).await;
    let two = world.node_with(|builder| builder.codec(Raw)).await;
    let all: Vec<u8> = (0..=255).collect();
    let _ = one.cache.set("bytes", Bytes::from(all.clone())).await.unwrap();
    let _ = one.cache.set("empty", Bytes::new()).await.unwrap();
    let _ = one.cache.set("vec", all.clone()).await.unwrap();
    let _ = one.cache.set("text", "text".to_owned()).await.unwrap();
    assert_eq!(two.cache.get::<Bytes>("bytes").await.unwrap().unwrap()[..], all[..]);
    assert!(two.cache.get::<Bytes>("empty").await.unwrap().unwrap().is_empty());
    assert_eq!(*two.cache.get::<Vec<u8>>("vec").await.unwrap().unwrap(), all);
    assert_eq!(*two.cache.get::<String>("text").await.unwrap().unwrap(), "text");
}

/// Two codecs on one prefix: what one wrote is a counted miss for the other, which refills.
#[tokio::test(start_paused = true)]
async fn a_record_of_another_codec_is_a_counted_miss_that_refills() {
    let world = World::new().await;
    let pack = world.node().await;
    let json = world.node_with(|builder| builder.codec(Json)).await;
    let _ = pack.cache.set("key", 1).await.unwrap();
    pass(Duration::from_millis(10)).await;
    assert!(json.cache.get::<i32>("key").await.unwrap().is_none());
    assert_eq!(json.cache.stats().l2_undecodable, 1);
    assert_eq!(*json.cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
    assert_eq!(json.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    let other = world.node_with(|builder| builder.codec(Json)).await;
    assert_eq!(other.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// Lives are capped, fallbacks included, so that barriers outlive what they hide (T10).
#[tokio::test(start_paused = true)]
async fn a_life_beyond_the_longest_is_clamped_and_its_barrier_outlives_it() {
    let world = World::new().await;
    let hour = Duration::from_secs(3600);
    let settings = crinkle_core::Settings::default().max_lifetime(hour);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let for_ever = EntryOptions::new(Duration::MAX).fail_safe(FailSafe::for_up_to(Duration::MAX));
    let _ = node.cache.set("key", 1).tags(["tag"]).options(for_ever.clone()).await.unwrap();
    let _ = node.cache.set("kept", 1).tags(["other"]).options(for_ever).await.unwrap();
    let _ = node.cache.remove_by_tag("tag").await.unwrap();
    pass(hour - Duration::from_secs(5)).await;
    // Only a removal makes the ledger forget.
    let _ = node.cache.remove_by_tag("unrelated").await.unwrap();
    assert!(node.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
    assert!(node.cache.get::<i32>("kept").await.unwrap().is_some());
    pass(Duration::from_secs(10)).await;
    assert!(node.cache.get::<i32>("kept").allow_stale().await.unwrap().is_none());
    assert!(node.cache.health().ledger_size > 0);
}

/// A resync on the way is no answer.
#[tokio::test(start_paused = true)]
async fn what_is_in_l2_is_contained_though_a_session_ends_meanwhile() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).await.unwrap();
    pass(Duration::from_millis(50)).await;
    let gate = Gate::new();
    one.l2.next(L2Op::Look, Fate::HoldReply(gate.clone()));
    let cache = one.cache.clone();
    let contains = go(async move { cache.contains("key").await });
    gate.reached().await;
    one.bus.lag();
    pass(Duration::from_millis(50)).await;
    gate.open();
    assert!(contains.await.unwrap().unwrap());
}
