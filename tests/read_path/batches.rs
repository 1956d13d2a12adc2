//! Many keys in one call, and still one flight per key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::protocol::KeyHash;
use crinkle_core::{
    BoxError, Cache, CacheBuilder, Cached, EntryOptions, Error, ErrorKind, Settings, Source,
    WriteStatus,
};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Boxed, TestError, World, gated, go, options, pass};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A batch factory that answers each key with its length, and what it was asked for.
#[derive(Clone, Default)]
struct Batch {
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Batch {
    fn load(
        &self,
        gate: Option<&Gate>,
    ) -> impl Fn(Vec<String>) -> Boxed<HashMap<String, usize>> + Send + Sync + 'static {
        let (asked, gate) = (Arc::clone(&self.asked), gate.cloned());
        move |mut keys| {
            keys.sort();
            asked.lock().push(keys.clone());
            let gate = gate.clone();
            Box::pin(async move {
                if let Some(gate) = gate {
                    gate.pass().await;
                }
                Ok(keys.into_iter().map(|key| (key.clone(), key.len())).collect())
            })
        }
    }

    fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().clone()
    }
}

fn values(cached: &[Cached<usize>]) -> Vec<usize> {
    cached.iter().map(|cached| **cached).collect()
}

#[tokio::test(start_paused = true)]
async fn the_factory_is_asked_once_for_exactly_what_is_missing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("local", 100_usize).await.unwrap();
    two.cache.set("shared", 200_usize).await.unwrap();
    let (gate, cache) = (Gate::new(), one.cache.clone());
    let other = gate.clone();
    let flying = go(async move { cache.get_or_set("flying", gated(&other, 300_usize)).await });
    pass(Duration::from_millis(10)).await;
    one.l2.forget();
    let (batch, cache) = (Batch::default(), one.cache.clone());
    let load = batch.load(None);
    let many = go(async move {
        cache.get_or_set_many(["new", "local", "flying", "shared", "newer", "new"], load).await
    });
    pass(Duration::from_millis(10)).await;
    assert!(!many.is_finished(), "it waits for the other caller's load");
    gate.open();
    assert_eq!(values(&many.await.unwrap().unwrap()), [3, 100, 300, 200, 5, 3]);
    assert_eq!(*flying.await.unwrap().unwrap(), 300);
    assert_eq!(batch.asked(), [["new", "newer"]]);
    assert_eq!(one.l2.count(L2Op::ReadMany), 1);
    assert_eq!(one.l2.count(L2Op::Read), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_the_keys_with_duplicates() {
    let world = World::new().await;
    let node = world.node().await;
    let batch = Batch::default();
    let keys = ["ccc", "a", "bb", "a"];
    let read = node.cache.get_or_set_many(keys, batch.load(None)).tags(["t"]).await.unwrap();
    assert_eq!(values(&read), [3, 1, 2, 1]);
    assert!(read.iter().all(|cached| cached.meta().source() == Source::Factory));
    assert_eq!(batch.asked(), [["a", "bb", "ccc"]]);
    let again = node.cache.get_or_set_many(keys, batch.load(None)).await.unwrap();
    assert_eq!((values(&again), batch.asked().len()), (vec![3, 1, 2, 1], 1));
    let none = node.cache.get_or_set_many(Vec::<String>::new(), batch.load(None)).await.unwrap();
    assert!(none.is_empty() && batch.asked().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_loads_is_hidden_by_its_tags_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let batch = Batch::default();
    let _ = one.cache.get_or_set_many(["a", "bb"], batch.load(None)).tags(["t"]).await.unwrap();
    let _ = two.cache.get_or_set_many(["a", "bb"], batch.load(None)).await.unwrap();
    assert_eq!(batch.asked().len(), 1, "the second node found them in L2");
    two.cache.remove_by_tag("t").await.unwrap();
    pass(Duration::from_millis(10)).await;
    let found: Vec<Option<Cached<usize>>> = one.cache.get_many(["a", "bb"]).await.unwrap();
    assert!(found.iter().all(Option::is_none));
    let read = one.cache.get_or_set_many(["a", "bb"], batch.load(None)).await.unwrap();
    assert_eq!((values(&read), batch.asked().len()), (vec![1, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn keys_that_the_answer_lacks_are_named() {
    let world = World::new().await;
    let node = world.node().await;
    let load = |_| async { crinkle_core::ok([("there", 1)]) };
    let error = node.cache.get_or_set_many(["there", "lost"], load).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Factory);
    assert!(error.to_string().contains("no value for the keys \"lost\""), "{error}");
    assert_eq!(*node.cache.get::<i32>("there").await.unwrap().unwrap(), 1, "the rest is kept");
    pass(Duration::from_millis(10)).await;
    assert_eq!(world.store.keys(), [World::record("there")], "the other load lock is given back");
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_gives_its_error_to_all_and_stale_values_where_it_may() {
    let world = World::new().await;
    let node = world.node().await;
    let down = |_: Vec<String>| async { Err::<Vec<(String, i32)>, _>(TestError::new()) };
    let error = node.cache.get_or_set_many(["a", "b"], down).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.factory_error()),
        (ErrorKind::Factory, Some(&TestError::new()))
    );
    assert!(error.to_string().contains("the keys \""), "{error}");
    node.cache.set_many([("a", 1), ("b", 2)]).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let read = node.cache.get_or_set_many(["a", "b"], down).options(options()).await.unwrap();
    assert!(
        read.iter()
            .all(|cached| cached.meta().is_stale() && cached.meta().source() == Source::FailSafe)
    );
    let panics = |keys: Vec<String>| async move {
        assert!(keys.is_empty(), "boom");
        Ok::<_, BoxError>(Vec::<(String, i32)>::new())
    };
    let error = node.cache.get_or_set_many(["c"], panics).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FactoryPanicked);
}

#[tokio::test(start_paused = true)]
async fn a_single_caller_joins_a_key_of_a_running_batch() {
    let world = World::new().await;
    let node = world.node().await;
    let (batch, gate, cache) = (Batch::default(), Gate::new(), node.cache.clone());
    let load = batch.load(Some(&gate));
    let many = go(async move { cache.get_or_set_many(["a", "bb"], load).await });
    gate.reached().await;
    let cache = node.cache.clone();
    let single = go(async move {
        cache.get_or_set("bb", |_| async { Err::<usize, _>(TestError::new()) }).await
    });
    pass(Duration::from_millis(10)).await;
    gate.open();
    assert_eq!(*single.await.unwrap().unwrap(), 2);
    assert_eq!(values(&many.await.unwrap().unwrap()), [1, 2]);
}

/// The other node's load is waited for; the rest goes to the factory at once.
#[tokio::test(start_paused = true)]
async fn a_key_that_another_node_loads_is_waited_for_and_not_loaded() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (gate, cache) = (Gate::new(), two.cache.clone());
    let other = gate.clone();
    let elsewhere = go(async move { cache.get_or_set("held", gated(&other, 77_usize)).await });
    gate.reached().await;
    let (batch, cache) = (Batch::default(), one.cache.clone());
    let load = batch.load(None);
    let many = go(async move { cache.get_or_set_many(["held", "free"], load).await });
    pass(Duration::from_millis(100)).await;
    assert_eq!(batch.asked(), [["free"]], "the factory does not wait for the other node");
    gate.open();
    assert_eq!(values(&many.await.unwrap().unwrap()), [77, 4]);
    assert_eq!((batch.asked().len(), *elsewhere.await.unwrap().unwrap()), (1, 77));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_node_does_not_bring_is_loaded_in_a_second_call() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (gate, cache) = (Gate::new(), two.cache.clone());
    let other = gate.clone();
    let elsewhere = go(async move { cache.get_or_set("held", gated(&other, 77_usize)).await });
    gate.reached().await;
    let batch = Batch::default();
    let read = one.cache.get_or_set_many(["held", "free"], batch.load(None)).await.unwrap();
    assert_eq!(values(&read), [4, 4]);
    assert_eq!(batch.asked(), [["free"], ["held"]]);
    gate.open();
    let _ = elsewhere.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_batch_is_stored_for_the_next_caller() {
    let world = World::new().await;
    let node = world.node().await;
    let (batch, gate, cache) = (Batch::default(), Gate::new(), node.cache.clone());
    let load = batch.load(Some(&gate));
    let many = go(async move { cache.get_or_set_many(["a", "bb"], load).await });
    gate.reached().await;
    many.abort();
    gate.open();
    pass(Duration::from_millis(10)).await;
    assert_eq!(node.cache.peek::<usize>("bb").map(|cached| *cached), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_during_a_batch_keeps_just_its_key_out() {
    let world = World::new().await;
    let node = world.node().await;
    let (batch, gate, cache) = (Batch::default(), Gate::new(), node.cache.clone());
    let load = batch.load(Some(&gate));
    let many = go(async move { cache.get_or_set_many(["a", "bb"], load).await });
    gate.reached().await;
    node.cache.remove("bb").await.unwrap();
    gate.open();
    let read: Result<Vec<Cached<usize>>, Error> = many.await.unwrap();
    assert_eq!(values(&read.unwrap()), [1, 2], "the caller came before it");
    let found: Vec<Option<Cached<usize>>> = node.cache.get_many(["a", "bb"]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn many_reads_are_one_round_trip_and_promote_to_l1() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    two.cache.set_many([("b", 2), ("c", 3)]).await.unwrap();
    one.cache.set("a", 1).await.unwrap();
    one.l2.forget();
    let found: Vec<Option<Cached<i32>>> = one.cache.get_many(["a", "b", "c", "d"]).await.unwrap();
    let sources: Vec<_> = found.iter().map(|f| f.as_ref().map(|f| f.meta().source())).collect();
    assert_eq!(sources, [Some(Source::L1), Some(Source::L2), Some(Source::L2), None]);
    assert_eq!(one.l2.calls().iter().filter(|call| call.op != L2Op::Sync).count(), 1);
    assert_eq!(one.cache.peek::<i32>("c").map(|cached| *cached), Some(3));
    assert!(one.l2.writes().is_empty() || one.l2.count(L2Op::ReadMany) == 1);
    let wrong = one.cache.get_many::<String>(["d", "c"]).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::TypeMismatch);
}

/// One key that is not ours must not take the others with it.
#[tokio::test(start_paused = true)]
async fn a_multi_read_that_is_refused_is_done_key_by_key() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    two.cache.set_many([("b", 2_usize), ("c", 3)]).await.unwrap();
    one.l2.always(L2Op::ReadMany, Fate::Fail(L2ErrorKind::Foreign));
    let found: Vec<Option<Cached<usize>>> = one.cache.get_many(["b", "c"]).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    let batch = Batch::default();
    let three = world.node().await;
    three.l2.always(L2Op::ReadMany, Fate::Fail(L2ErrorKind::Foreign));
    let read = three.cache.get_or_set_many(["b", "xx"], batch.load(None)).await.unwrap();
    assert_eq!((values(&read), batch.asked()), (vec![2, 2], vec![vec!["xx".to_owned()]]));
}

#[tokio::test(start_paused = true)]
async fn with_l2_down_a_batch_is_loaded_at_once() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    let batch = Batch::default();
    let read = node.cache.get_or_set_many(["a", "bb"], batch.load(None)).await.unwrap();
    assert_eq!((values(&read), batch.asked().len()), (vec![1, 2], 1));
    let found: Vec<Option<Cached<usize>>> = node.cache.get_many(["a", "zz"]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn many_writes_reach_the_other_nodes() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let receipt = one.cache.set_many([("a", 1), ("b", 2)]).tags(["t"]).await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Done));
    let found: Vec<Option<Cached<i32>>> = two.cache.get_many(["a", "b"]).await.unwrap();
    assert!(found.iter().all(|f| f.as_ref().is_some_and(|f| f.meta().tags().eq(["t"]))));
    let receipt = one.cache.remove_many(["a", "b"]).await.unwrap();
    assert!(receipt.is_propagated());
    pass(Duration::from_millis(10)).await;
    for node in [&one, &two] {
        let found: Vec<Option<Cached<i32>>> = node.cache.get_many(["a", "b"]).await.unwrap();
        assert!(found.iter().all(Option::is_none));
    }
    one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Full));
    let receipt = one.cache.set_many([("a", 1), ("b", 2)]).await.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Queued, "the weakest of them");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_cache_runs_the_batch_factory_and_keeps_nothing() {
    let cache = Cache::disabled();
    let batch = Batch::default();
    for calls in 1..3 {
        let read = cache.get_or_set_many(["a", "a", "bb"], batch.load(None)).await.unwrap();
        assert_eq!((values(&read), batch.asked().len()), (vec![1, 1, 2], calls));
    }
    let found: Vec<Option<Cached<usize>>> = cache.get_many(["a"]).await.unwrap();
    assert!(found[0].is_none());
}

#[tokio::test(start_paused = true)]
async fn a_batch_checks_every_key_and_its_options_first() {
    let world = World::new().await;
    let cache = world.alone();
    let batch = Batch::default();
    let error = cache.get_or_set_many(["a", ""], batch.load(None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    let wrong = EntryOptions::new(Duration::ZERO);
    let error = cache.get_or_set_many(["a"], batch.load(None)).options(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    let error = cache.get_or_set_many(["a"], batch.load(None)).tags([""]).await.unwrap_err();
    assert_eq!((error.kind(), batch.asked().len()), (ErrorKind::InvalidTag, 0));
}

/// S12: XXH3 is no cryptographic hash. Multiplying by zero, as its long form does here, loses the swap.
#[tokio::test(start_paused = true)]
async fn keys_whose_hashes_collide_have_a_value_each() {
    let key = |one: u8, other: u8| {
        let mut key = vec![b'.'; 640];
        (key[56], key[504]) = (one, other);
        key[59..64].copy_from_slice(&[0xc3, 0x81, 0x3a, 0x26, 0x4c]);
        key[508..512].copy_from_slice(&[0xcd, 0xb4, 0x59, 0x31]);
        String::from_utf8(key).unwrap()
    };
    let keys = [key(b'a', b'b'), key(b'b', b'a')];
    assert_eq!(KeyHash::of(&keys[0]), KeyHash::of(&keys[1]));
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache, Cache::disabled()] {
        let load = |keys: Vec<String>| async {
            crinkle_core::ok(keys.into_iter().map(|key| (key.clone(), key)))
        };
        let read = cache.get_or_set_many(&keys, load).await.unwrap();
        assert_eq!(read.iter().map(|value| &**value).collect::<Vec<_>>(), keys.each_ref());
    }
}

/// L3: what every key has to wait for is waited for once.
#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_a_hanging_l2_no_longer_than_one_call() {
    let world = World::new().await;
    let patient =
        |builder: CacheBuilder| builder.settings(Settings::default().breaker_failures(1000));
    let node = world.cold(patient, |l2, _| l2.hang());
    let keys: Vec<_> = (0..20).map(|key| key.to_string()).collect();
    let asked = Instant::now();
    let read = node.cache.get_or_set_many(&keys, Batch::default().load(None)).await.unwrap();
    assert_eq!(read.len(), keys.len());
    assert!(asked.elapsed() <= Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// A session that ends while a multi-read is under way costs one more round trip, not one per key.
#[tokio::test(start_paused = true)]
async fn what_becomes_unverified_in_a_batch_is_read_again_side_by_side() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let keys: Vec<_> = (0..50).map(|key| key.to_string()).collect();
    let _ = two.cache.set_many(keys.iter().map(|key| (key, 1))).await.unwrap();
    pass(Duration::from_millis(50)).await;
    let gate = Gate::new();
    one.l2.next(L2Op::ReadMany, Fate::HoldReply(gate.clone()));
    one.l2.always(L2Op::Look, Fate::Delay(Duration::from_millis(100)));
    let cache = one.cache.clone();
    let read = go(async move { cache.get_many::<i32>(&keys).await });
    gate.reached().await;
    one.bus.lag();
    pass(Duration::from_millis(50)).await;
    let opened = Instant::now();
    gate.open();
    let read = read.await.unwrap().unwrap();
    assert_eq!(read.iter().flatten().filter(|value| ***value == 1).count(), 50);
    assert!(opened.elapsed() <= Duration::from_millis(200), "{:?}", opened.elapsed());
}

/// A hit is a hit, in a batch too.
#[tokio::test(start_paused = true)]
async fn a_hit_in_a_batch_prolongs_a_sliding_life() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let sliding = EntryOptions::new(Duration::from_secs(10)).sliding(true);
        let _ = cache.set("key", 1_usize).options(sliding).await.unwrap();
        for _ in 0..5 {
            pass(Duration::from_secs(4)).await;
            assert!(cache.get_many::<usize>(["key"]).await.unwrap()[0].is_some());
        }
        for _ in 0..5 {
            pass(Duration::from_secs(4)).await;
            let batch = Batch::default();
            let _ = cache.get_or_set_many(["key"], batch.load(None)).await.unwrap();
            assert!(batch.asked().is_empty());
        }
    }
}

/// More than are on their way at the same time, and their caller goes away.
#[tokio::test(start_paused = true)]
async fn a_dropped_removal_of_many_keys_holds_for_all_of_them() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let keys: Vec<_> = (0..600).map(|n| format!("key{n}")).collect();
    one.cache.set_many(keys.iter().map(|key| (key, 1))).await.unwrap();
    let gate = Gate::new();
    one.l2.always(L2Op::Remove, Fate::Hold(gate.clone()));
    let (cache, removed) = (one.cache.clone(), keys.clone());
    let call = go(async move { cache.remove_many(removed).await });
    gate.reached().await;
    call.abort();
    one.l2.heal();
    gate.open();
    pass(Duration::from_secs(10)).await;
    for node in [&one, &two] {
        let found: Vec<Option<Cached<i32>>> = node.cache.get_many(&keys).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 0);
    }
    assert_eq!(one.cache.health().recovery_backlog, 0);
}
