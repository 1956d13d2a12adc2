//! What holds on a node from the first poll of a write there, while L2 has not heard of it (W1).

use std::time::Duration;

use crinkle_core::{Cache, EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, go, long, pass, until};
use tokio::task::JoinHandle;

fn kept() -> EntryOptions {
    long().fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
}

/// The ways to invalidate one key, and whether what was there may still stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Remove,
    Expire,
    AndTags,
    Many,
}

const WAYS: [Way; 4] = [Way::Remove, Way::Expire, Way::AndTags, Way::Many];

/// It has begun, and L2 does not hear of it before the gate opens.
async fn begin(node: &Node, way: Way) -> (Gate, JoinHandle<()>) {
    let _ = node.cache.set("key", 1).options(kept()).await.expect("stored");
    let gate = Gate::new();
    let op = if way == Way::Expire { L2Op::Expire } else { L2Op::Remove };
    node.l2.next(op, Fate::Hold(gate.clone()));
    let cache: Cache = node.cache.clone();
    let call = go(async move {
        let receipt = match way {
            Way::Remove => cache.remove("key").await,
            Way::Expire => cache.expire("key").await,
            Way::AndTags => cache.remove("key").and_tags(["tag"]).await,
            Way::Many => cache.remove_many(["key"]).await,
        };
        let _ = receipt.expect("a receipt");
    });
    gate.reached().await;
    (gate, call)
}

#[tokio::test(start_paused = true)]
async fn what_is_being_invalidated_is_loaded_again() {
    for world in [World::new().await, World::apart().await] {
        for way in WAYS {
            let one = world.node().await;
            let (gate, call) = begin(&one, way).await;
            assert!(one.cache.get::<i32>("key").await.unwrap().is_none(), "{way:?}");
            assert!(!one.cache.contains("key").await.unwrap(), "{way:?}");
            let loads = Loads::new();
            let read = one.cache.get_or_set("key", loads.value(7)).options(long()).await.unwrap();
            assert_eq!((*read, loads.count()), (7, 1), "{way:?}");
            gate.open();
            call.await.unwrap();
            assert!(one.cache.get::<i32>("key").await.unwrap().is_none(), "{way:?}");
            let again = one.cache.get_or_set("key", loads.value(8)).options(long()).await.unwrap();
            assert_eq!((*again, loads.count()), (8, 2), "{way:?}: nothing hides it any more");
            let read = one.cache.get::<i32>("key").skip_l1_read(true).await.unwrap();
            assert_eq!(
                read.map(|read| (*read, read.meta().source())),
                Some((8, Source::L2)),
                "{way:?}"
            );
        }
    }
}

/// S9; what is only expired may stand in.
#[tokio::test(start_paused = true)]
async fn what_is_being_removed_is_no_fallback() {
    for way in WAYS {
        let world = World::new().await;
        let one = world.node().await;
        let (gate, call) = begin(&one, way).await;
        let read = one.cache.get::<i32>("key").allow_stale().await.unwrap();
        let fails = Loads::new().fail::<_, i32>();
        let load = one.cache.get_or_set("key", fails).options(kept()).await;
        let stands = way == Way::Expire;
        assert_eq!((read.is_some(), load.is_ok()), (stands, stands), "{way:?}");
        gate.open();
        call.await.unwrap();
    }
}

/// A call that is given up is queued, and hides the key until L2 has heard of it.
#[tokio::test(start_paused = true)]
async fn what_a_cancelled_call_began_stays_hidden_until_l2_has_heard_of_it() {
    for way in WAYS {
        let world = World::new().await;
        let one = world.node().await;
        let (_gate, call) = begin(&one, way).await;
        call.abort();
        let _ = call.await;
        assert_eq!(one.cache.health().recovery_backlog, 1, "{way:?}");
        assert!(one.cache.get::<i32>("key").await.unwrap().is_none(), "{way:?}");
        until("it was repeated", || one.cache.health().recovery_backlog == 0).await;
        let _ = one.cache.set("key", 2).skip_l1_write(true).await.unwrap();
        let read = one.cache.get::<i32>("key").await.unwrap();
        assert_eq!(read.as_deref(), Some(&2), "{way:?}: nothing hides it any more");
    }
}

fn keys() -> Vec<String> {
    (0..600).map(|at| format!("key:{at}")).collect()
}

/// More keys than are sent at the same time.
#[tokio::test(start_paused = true)]
async fn the_last_key_of_a_large_removal_is_gone_from_the_first_poll() {
    for cancelled in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let all = keys();
        let _ = one.cache.set_many(all.iter().map(|key| (key, 1))).options(long()).await.unwrap();
        one.l2.always(L2Op::Remove, Fate::Delay(Duration::from_millis(500)));
        let (cache, last) = (one.cache.clone(), all[599].clone());
        let removal = go(async move { cache.remove_many(all).await });
        pass(Duration::from_millis(10)).await;
        for _ in 0..50 {
            let read = one.cache.get::<i32>(&last).allow_stale().await.unwrap();
            assert!(read.is_none() && !one.cache.contains(&last).await.unwrap());
            pass(Duration::from_millis(10)).await;
            if cancelled {
                removal.abort();
            }
        }
        one.l2.heal();
        let _ = removal.await;
        until("all are gone", || one.cache.health().recovery_backlog == 0).await;
        assert!(two.cache.get::<i32>(&last).await.unwrap().is_none());
    }
}

/// What is there until L2 has the new value is never fresh, and no reason to load: the value is on its way.
#[tokio::test(start_paused = true)]
async fn what_a_batch_replaces_is_not_fresh_from_the_first_poll() {
    let world = World::new().await;
    let one = world.node().await;
    let all = keys();
    let _ = one.cache.set_many(all.iter().map(|key| (key, 1))).options(long()).await.unwrap();
    one.l2.always(L2Op::Set, Fate::Delay(Duration::from_millis(500)));
    let (cache, entries) = (one.cache.clone(), all.clone());
    let set = go(async move {
        cache.set_many(entries.into_iter().map(|key| (key, 2))).options(long()).await
    });
    pass(Duration::from_millis(10)).await;
    for key in [&all[0], &all[599]] {
        assert!(one.cache.peek::<i32>(key).is_none(), "{key}");
        assert!(one.cache.get::<i32>(key).await.unwrap().is_none(), "{key}");
        let loads = Loads::new();
        let read = one.cache.get_or_set(key, loads.value(7)).options(long()).await.unwrap();
        assert_eq!((*read, read.meta().is_stale(), loads.count()), (1, true, 0), "{key}");
    }
    let _ = set.await.unwrap().unwrap();
    for key in [&all[0], &all[599]] {
        assert_eq!(one.cache.peek::<i32>(key).as_deref(), Some(&2), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_takes_nothing_away() {
    let world = World::new().await;
    let one = world.node().await;
    let all = keys();
    let _ = one.cache.set_many(all.iter().map(|key| (key, 1))).options(long()).await.unwrap();
    let entries = || all.iter().map(|key| (key, 2));
    let tagged = one.cache.set_many(entries()).tags([""]).await.unwrap_err();
    assert_eq!(tagged.kind(), ErrorKind::InvalidTag);
    let unsound = one.cache.set_many(entries()).l2_hard_timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(unsound.kind(), ErrorKind::InvalidOptions);
    for key in &all {
        assert_eq!(one.cache.peek::<i32>(key).as_deref(), Some(&1), "{key}");
    }
}

/// A value of its own mind, unless it is decoded.
#[derive(serde::Serialize, serde::Deserialize)]
struct Touchy {
    #[serde(skip)]
    armed: bool,
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!self.armed || std::thread::panicking(), "it is dropped");
    }
}

/// W2: what holds here is queued, and hidden for no longer than that.
#[tokio::test(start_paused = true)]
async fn a_batch_of_removals_that_panics_is_queued_as_far_as_it_has_begun() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key:0", 1).options(long()).await.unwrap();
    let _ = one.cache.set("key:1", Touchy { armed: true }).options(long()).await.unwrap();
    let cache = one.cache.clone();
    let removal = go(async move { cache.remove_many(["key:0", "key:1"]).await });
    assert!(removal.await.unwrap_err().is_panic());
    assert_eq!(one.cache.health().recovery_backlog, 2);
    until("both are gone", || one.cache.health().recovery_backlog == 0).await;
    for key in ["key:0", "key:1"] {
        assert!(two.cache.get::<i32>(key).await.unwrap().is_none(), "{key}");
        let _ = one.cache.set(key, 2).skip_l1_write(true).await.unwrap();
        let read = one.cache.get::<i32>(key).await.unwrap();
        assert_eq!(read.as_deref(), Some(&2), "{key}: nothing hides it any more");
    }
}
