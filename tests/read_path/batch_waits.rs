//! L9: a key of a batch waits for no other key of it: not for the lock that another node holds, not for the
//! limit that L2 has for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{EntryOptions, FailSafe};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, TestError, World, gated, go, load, pass};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Far longer than anything here takes.
fn patient() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(60)).load_lock_wait(Duration::from_secs(30))
}

/// A batch that loads each key as 3, and what its factory was asked for.
async fn batch(
    node: &Node,
    keys: &[&'static str],
    options: EntryOptions,
) -> Arc<Mutex<Vec<Vec<String>>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (cache, keys, told) = (node.cache.clone(), keys.to_vec(), Arc::clone(&asked));
    let reads = node.l2.count(L2Op::ReadMany);
    drop(go(async move {
        let load = move |mut keys: Vec<String>| {
            keys.sort();
            told.lock().push(keys.clone());
            async move {
                crinkle_core::ok(HashMap::<_, _>::from_iter(keys.into_iter().map(|key| (key, 3))))
            }
        };
        cache.get_or_set_many(keys, load).options(options).await
    }));
    crinkle_tests::until("L2 is asked", || node.l2.count(L2Op::ReadMany) > reads).await;
    asked
}

/// Another node has filled one key, and goes on loading the other.
#[tokio::test(start_paused = true)]
async fn a_key_that_another_node_has_filled_is_answered_at_once() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (quick, slow) = (Gate::new(), Gate::new());
    let others = [("quick", &quick), ("slow", &slow)]
        .map(|(key, gate)| load(&two.cache, key, &[], patient(), gated(gate, 2)));
    quick.reached().await;
    slow.reached().await;
    let asked = batch(&one, &["quick", "slow"], patient()).await;
    let joined = load(&one.cache, "quick", &[], patient(), Loads::new().value(1));
    pass(Duration::from_millis(10)).await;
    quick.open();
    let began = Instant::now();
    assert_eq!(*joined.await.unwrap().unwrap(), 2);
    assert!(began.elapsed() < Duration::from_millis(200), "it waited {:?}", began.elapsed());
    slow.open();
    for other in others {
        assert_eq!(*other.await.unwrap().unwrap(), 2);
    }
    assert!(asked.lock().is_empty());
}

/// Another node could not load two of the keys, and goes on loading the third.
#[tokio::test(start_paused = true)]
async fn keys_whose_locks_are_given_back_are_loaded_in_one_call() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (quick, slow) = (Gate::new(), Gate::new());
    let fails = ["a", "b"].map(|key| {
        let gate = quick.clone();
        let fails = move |_| async move {
            gate.pass().await;
            Err::<i32, _>(TestError::new())
        };
        load(&two.cache, key, &[], patient(), fails)
    });
    let other = load(&two.cache, "slow", &[], patient(), gated(&slow, 2));
    quick.reached().await;
    slow.reached().await;
    let asked = batch(&one, &["a", "b", "slow"], patient()).await;
    let joined = load(&one.cache, "b", &[], patient(), Loads::new().value(1));
    pass(Duration::from_millis(10)).await;
    quick.open();
    let began = Instant::now();
    assert_eq!(*joined.await.unwrap().unwrap(), 3);
    assert!(began.elapsed() < Duration::from_millis(300), "it waited {:?}", began.elapsed());
    assert_eq!(*asked.lock(), [["a", "b"]]);
    slow.open();
    assert_eq!(*other.await.unwrap().unwrap(), 2);
    for other in fails {
        assert!(other.await.unwrap().is_err());
    }
}

/// L2 does not answer. A key with a fallback is given less time than one without.
#[tokio::test(start_paused = true)]
async fn a_key_with_a_fallback_does_not_wait_as_long_as_one_without() {
    let world = World::new().await;
    let node = world.node().await;
    let options = patient()
        .duration(Duration::from_secs(10))
        .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
        .l2_soft_timeout(Duration::from_millis(50))
        .l2_hard_timeout(Duration::from_secs(5));
    let _ = node.cache.set("known", 1).options(options.clone()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    node.l2.always(L2Op::ReadMany, Fate::Fail(L2ErrorKind::Foreign));
    node.l2.always(L2Op::Read, Fate::Hang);
    let began = Instant::now();
    let asked = batch(&node, &["known", "new"], options.clone()).await;
    let joined = load(&node.cache, "known", &[], options, Loads::new().value(2));
    assert_eq!(*joined.await.unwrap().unwrap(), 3);
    assert!(began.elapsed() < Duration::from_millis(300), "it waited {:?}", began.elapsed());
    assert_eq!(*asked.lock(), [["known"]]);
}
