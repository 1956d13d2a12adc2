//! One load for many callers: on one node, on several, and when it goes wrong.

use crinkle_core::{Cache, EntryOptions, ErrorKind, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{
    Loads, TestError, World, both, gated, kind_of, load, long, ms, options, pass, until,
};
use tokio::time::Instant;

use crate::{SHORT, fresh, nodes, put, secs};

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_on_each_of_three_nodes_cause_one_load() {
    let world = World::new().await;
    let all = nodes(&world).await;
    let (gate, loads) = (Gate::new(), Loads::new());
    let callers: Vec<_> = (0..300)
        .map(|number| {
            let cache = &all[number % 3].cache;
            load(cache, "key", &[], long(), loads.gated(&gate, 1))
        })
        .collect();
    gate.reached().await;
    pass(ms(500)).await;
    gate.open();
    for caller in callers {
        let read = caller.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, false));
    }
    assert_eq!(loads.count(), 1);
}

/// A stale value and a soft timeout: one load, and nobody waits longer than that.
#[tokio::test(start_paused = true)]
async fn many_callers_of_a_stale_key_cause_one_load_and_wait_one_soft_timeout() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let (gate, loads) = (Gate::new(), Loads::new());
        let asked = Instant::now();
        let soft = options().factory_soft_timeout(ms(100));
        let callers: Vec<_> = (0..1_000)
            .map(|_| load(&cache, "key", &[], soft.clone(), loads.gated(&gate, 2)))
            .collect();
        for caller in callers {
            let read = caller.await.unwrap().unwrap();
            assert_eq!((*read, read.meta().is_stale()), (1, true));
        }
        assert_eq!((loads.count(), asked.elapsed().as_millis()), (1, 100));
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        assert_eq!(fresh(&cache, "key").await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn many_callers_of_a_warm_key_cause_no_load() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &[]).await;
        let loads = Loads::new();
        let callers: Vec<_> =
            (0..1_000).map(|_| load(&cache, "key", &[], long(), loads.value(2))).collect();
        for caller in callers {
            assert_eq!(*caller.await.unwrap().unwrap(), 1);
        }
        assert_eq!((loads.count(), cache.stats().joined), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keys_at_once_are_a_thousand_loads() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let callers: Vec<_> = (0..1_000)
            .map(|n| load(&cache, &n.to_string(), &[], long(), loads.gated(&gate, n)))
            .collect();
        gate.reached_by(1_000).await;
        gate.open();
        for (number, caller) in callers.into_iter().enumerate() {
            assert_eq!(*caller.await.unwrap().unwrap(), number);
        }
        assert_eq!(loads.count(), 1_000);
        assert_eq!(cache.health().in_flight, 0);
    }
}

/// A read that loads nothing waits for nobody who does.
#[tokio::test(start_paused = true)]
async fn a_get_does_not_wait_for_a_running_load() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], long(), gated(&gate, 1));
        gate.reached().await;
        let asked = Instant::now();
        assert_eq!(fresh::<i32>(&cache, "key").await, None);
        assert_eq!(*cache.get_or("key", 7).await.unwrap(), 7);
        assert_eq!(asked.elapsed(), secs(0));
        gate.open();
        leader.await.unwrap().unwrap();
    }
}

/// No dogpile after a failure: those who come later are one load again.
#[tokio::test(start_paused = true)]
async fn after_a_shared_failure_the_next_callers_share_the_next_load() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let held = gate.clone();
        let failing = load(&cache, "key", &[], long(), move |_| async move {
            held.pass().await;
            Err::<i32, _>(TestError::new())
        });
        gate.reached().await;
        gate.open();
        assert_eq!(kind_of(failing.await.unwrap()), ErrorKind::Factory);
        let (gate, loads) = (Gate::new(), Loads::new());
        let callers: Vec<_> =
            (0..100).map(|_| load(&cache, "key", &[], long(), loads.gated(&gate, 2))).collect();
        gate.reached().await;
        pass(ms(10)).await;
        gate.open();
        for caller in callers {
            assert_eq!(*caller.await.unwrap().unwrap(), 2);
        }
        assert_eq!(loads.count(), 1);
    }
}

/// Two caches on one store: the same key of another cache is another key.
#[tokio::test(start_paused = true)]
async fn caches_of_different_prefixes_do_not_wait_for_each_other() {
    let world = World::new().await;
    let shop = world.node().await;
    let other = world.node_with(|builder| builder.key_prefix("other:")).await;
    let gate = Gate::new();
    let slow = load(&shop.cache, "key", &[], long(), gated(&gate, 1));
    gate.reached().await;
    let asked = Instant::now();
    assert_eq!(*other.cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
    assert_eq!(asked.elapsed(), secs(0));
    gate.open();
    assert_eq!(*slow.await.unwrap().unwrap(), 1);
}

/// A node that waits for another's load takes a value that somebody sets meanwhile.
#[tokio::test(start_paused = true)]
async fn a_set_ends_the_wait_for_another_nodes_load() {
    let world = World::new().await;
    let [one, two, three] = nodes(&world).await;
    let gate = Gate::new();
    let slow = load(&one.cache, "key", &[], long(), gated(&gate, 1));
    gate.reached().await;
    let loads = Loads::new();
    let waiter = load(&two.cache, "key", &[], long(), loads.value(9));
    until("it waits", || two.cache.stats().load_lock_waits > 0).await;
    let asked = Instant::now();
    put(&three.cache, "key", 3, &[]).await;
    let read = waiter.await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source(), loads.count()), (3, Source::L2, 0));
    assert!(asked.elapsed() < ms(5), "it was woken");
    gate.open();
    slow.await.unwrap().unwrap();
    assert_eq!(fresh(&one.cache, "key").await, Some(3));
}

/// The node that loads fails: a waiting one loads at once, not after `load_lock_wait`.
#[tokio::test(start_paused = true)]
async fn a_failed_load_hands_over_to_a_node_that_waits() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let held = gate.clone();
    let failing = load(&one.cache, "key", &[], long(), move |_| async move {
        held.pass().await;
        Err::<i32, _>(TestError::new())
    });
    gate.reached().await;
    let patient = long().load_lock_wait(secs(60));
    let waiter = load(&two.cache, "key", &[], patient, Loads::new().value(2));
    until("it waits", || two.cache.stats().load_lock_waits > 0).await;
    let asked = Instant::now();
    gate.open();
    assert_eq!(kind_of(failing.await.unwrap()), ErrorKind::Factory);
    assert_eq!(*waiter.await.unwrap().unwrap(), 2);
    assert!(asked.elapsed() <= secs(1), "{:?}", asked.elapsed());
}

/// With L2 down there is one load per node, and no more.
#[tokio::test(start_paused = true)]
async fn without_l2_every_node_loads_once() {
    let world = World::new().await;
    let all = nodes(&world).await;
    for node in &all {
        node.l2.down();
    }
    let (gate, loads) = (Gate::new(), Loads::new());
    let callers: Vec<_> = (0..90)
        .map(|n| load(&all[n % 3].cache, "key", &[], long(), loads.gated(&gate, 1)))
        .collect();
    gate.reached_by(3).await;
    pass(SHORT).await;
    gate.open();
    for caller in callers {
        assert_eq!(*caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!(loads.count(), 3);
}

/// Loads of one node wait for no lock of their own: callers of other keys, many of one key.
#[tokio::test(start_paused = true)]
async fn a_hung_factory_holds_up_its_own_key_only() {
    let world = World::new().await;
    for cache in both(&world).await {
        let hung = load(&cache, "hung", &[], EntryOptions::default(), gated(&Gate::new(), 1));
        pass(ms(10)).await;
        for number in 0..100 {
            assert_eq!(load_other(&cache, number).await, number);
        }
        assert_eq!(kind_of(hung.await.unwrap()), ErrorKind::FactoryTimeout, "its deadline");
        assert_eq!(*cache.get_or_set("hung", Loads::new().value(2)).await.unwrap(), 2);
    }
}

async fn load_other(cache: &Cache, number: i32) -> i32 {
    let asked = Instant::now();
    let key = number.to_string();
    let read = cache.get_or_set(&key, Loads::new().value(number)).await.expect("no trouble");
    assert_eq!(asked.elapsed(), secs(0));
    *read
}
