//! An L2 of several servers, one of which does not answer: keys on the others notice nothing.

use std::time::Duration;

use crinkle_core::{EntryOptions, Source, WriteStatus, ok};
use crinkle_testkit::chaos::{Fate, L2Handle, L2Op};
use crinkle_tests::{Node, World, go, pass, server_of, servers_down, until};

async fn node(world: &World) -> Node {
    let node = world.cold(
        |builder| builder.default_options(EntryOptions::new(Duration::from_secs(3600))),
        |l2, _| {
            l2.servers(&["a", "b"], server_of);
            l2.ledger_far();
        },
    );
    node.cache.ready().await.expect("a healthy world");
    pass(Duration::from_millis(50)).await;
    node
}

fn asked(l2: &L2Handle, op: L2Op, server: &str) -> usize {
    l2.calls().iter().filter(|call| call.op == op && server_of(&call.key) == server).count()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_left_alone_and_the_others_are_not() {
    for fate in [Fate::Hang, Fate::Fail(crinkle_core::l2::L2ErrorKind::Disconnected)] {
        let world = World::new().await;
        let node = node(&world).await;
        assert!(servers_down(&node.cache).is_empty());
        assert_eq!(node.cache.health().l2_servers.len(), 2);
        node.l2.server("b", fate);
        node.l2.forget();
        for n in 0..20 {
            let read = node.cache.get::<u32>(format!("on-b:{n}")).await.unwrap();
            assert!(read.is_none());
            let key = format!("on-a:{n}");
            assert_eq!(node.cache.set(&key, n).await.unwrap().l2(), WriteStatus::Done);
            assert_eq!(node.cache.get::<u32>(&key).await.unwrap().as_deref(), Some(&n));
        }
        assert_eq!(asked(&node.l2, L2Op::Look, "b"), 5, "answers of the others do not count");
        assert_eq!(servers_down(&node.cache), ["b"]);
        let health = node.cache.health();
        assert_eq!((health.l2_up, health.coherent), (false, true));
        let write = node.cache.set("on-b:0", 1_u32).await.unwrap();
        assert_eq!((write.l2(), asked(&node.l2, L2Op::Set, "b")), (WriteStatus::Queued, 0));
        // Nothing is found to be in order again, so nothing is verified again.
        pass(Duration::from_secs(5)).await;
        assert_eq!(servers_down(&node.cache), ["b"], "only its own answer closes a breaker");
        assert_eq!(node.cache.stats().resyncs_l2_back, 0);
        assert_eq!(asked(&node.l2, L2Op::Heads, "a"), 0);

        node.l2.heal();
        until("b is used again", || servers_down(&node.cache).is_empty()).await;
        until("what waited is sent", || node.cache.health().recovery_backlog == 0).await;
        assert_eq!(node.cache.stats().resyncs_l2_back, 1, "an outage costs one resync");
        assert!(node.cache.health().l2_up);
        assert_eq!(node.cache.set("on-b:0", 2_u32).await.unwrap().l2(), WriteStatus::Done);
    }
}

/// The poll is not answered, but no key needs it to be.
#[tokio::test(start_paused = true)]
async fn records_are_read_and_written_while_the_server_of_the_ledger_is_left_alone() {
    let world = World::new().await;
    let node = node(&world).await;
    node.l2.server("a", Fate::Hang);
    until("the circuit breaker of a is open", || servers_down(&node.cache) == ["a"]).await;
    node.l2.forget();
    for n in 0..10_u32 {
        let key = format!("on-b:{n}");
        assert_eq!(node.cache.set(&key, n).await.unwrap().l2(), WriteStatus::Done);
        let read = node.cache.get::<u32>(&key).skip_l1_read(true).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().source()), (n, Source::L2));
        let read = node.cache.get::<u32>(format!("on-a:{n}")).await.unwrap();
        assert!(read.is_none());
    }
    assert_eq!(node.cache.remove_by_tag("tag").await.unwrap().l2(), WriteStatus::Queued);
    assert_eq!(asked(&node.l2, L2Op::Look, "a") + asked(&node.l2, L2Op::Advance, "a"), 0);
    node.l2.heal();
    until("a is used again", || servers_down(&node.cache).is_empty()).await;
    until("the removal is sent", || node.cache.health().pending_removals == 0).await;
    assert_eq!(node.cache.stats().resyncs_l2_back, 1);
}

/// What is on healthy servers is answered from there in one round trip, in every kind of batch.
#[tokio::test(start_paused = true)]
async fn a_batch_gets_what_the_servers_that_answer_hold() {
    let world = World::new().await;
    let node = node(&world).await;
    let other = world.node().await.cache;
    let name = |n| format!("on-{}:{n}", if n % 2 == 0 { "a" } else { "b" });
    let keys: Vec<_> = (0..20).map(name).collect();
    other.set_many(keys.iter().map(|key| (key, 1_u32))).await.unwrap();
    node.l2.server("b", Fate::Hang);
    node.l2.forget();
    let found = node.cache.get_many::<u32>(&keys).await.unwrap();
    let places = found.iter().enumerate().filter(|(_, found)| found.is_some());
    assert!(places.map(|(at, _)| at).eq((0..20).step_by(2)), "{found:?}");
    assert_eq!(asked(&node.l2, L2Op::ReadMany, "a"), 1);
    assert_eq!(asked(&node.l2, L2Op::Look, "a"), 0, "nobody asks twice");
    assert_eq!(node.l2.count_on("b"), 1, "nor for what has had its time");
    for _ in 0..4 {
        let _ = node.cache.get_many::<u32>(&keys).await.unwrap();
    }
    until("the circuit breaker of b is open", || servers_down(&node.cache) == ["b"]).await;

    node.cache.expire_all().await.unwrap();
    other.set_many(keys.iter().map(|key| (key, 2_u32))).await.unwrap();
    node.l2.forget();
    let load = |missing: Vec<String>| async move {
        ok(missing.into_iter().map(|key| (key, 3_u32)).collect::<Vec<_>>())
    };
    let loaded = node.cache.get_or_set_many(&keys, load).await.unwrap();
    for (key, value) in keys.iter().zip(loaded) {
        assert_eq!(*value, if server_of(key) == "a" { 2 } else { 3 }, "{key}");
    }
    assert_eq!(node.cache.stats().factory_calls, 1);
    assert_eq!(node.l2.count_on("b"), asked(&node.l2, L2Op::Heads, "b"), "only the probe");
}

/// A slot that has moved, or a failover: its keys are on another server, which has a breaker of its own.
#[tokio::test(start_paused = true)]
async fn a_key_that_has_moved_is_not_left_alone() {
    let world = World::new().await;
    let node = node(&world).await;
    node.l2.server("b", Fate::Hang);
    for n in 0..5 {
        let _ = node.cache.get::<u32>(format!("on-b:{n}")).await.unwrap();
    }
    assert_eq!(servers_down(&node.cache), ["b"]);
    node.l2.servers(&["a", "c"], |key| if key.contains("on-b") { "c" } else { "a" });
    assert_eq!(node.cache.set("on-b:0", 1_u32).await.unwrap().l2(), WriteStatus::Done);
    until("b is forgotten", || servers_down(&node.cache).is_empty()).await;
    assert_eq!(node.cache.health().l2_servers.len(), 2);
    assert_eq!(node.cache.stats().resyncs_l2_back, 1);
}

/// Callers who do not wait for as long as a call may take are no reason to leave the servers alone that answer.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_given_up_has_the_servers_asked_which_of_them_it_was() {
    let world = World::new().await;
    let node = node(&world).await;
    node.l2.server("b", Fate::Hang);
    let impatient =
        EntryOptions::new(Duration::from_secs(3600)).l2_hard_timeout(Duration::from_millis(100));
    for n in 0..10 {
        let keys = [format!("on-a:{n}"), format!("on-b:{n}")];
        let cache = node.cache.clone();
        let led = keys.clone();
        let batch = go(async move {
            let load = |missing: Vec<String>| async move {
                ok(missing.into_iter().map(|key| (key, 1_u32)).collect::<Vec<_>>())
            };
            cache.get_or_set_many(&led, load).await
        });
        pass(Duration::from_millis(1)).await;
        let joined = node.cache.get_or_set(&keys[1], |_| async { ok(1_u32) });
        assert_eq!(*joined.options(impatient.clone()).await.unwrap(), 1);
        assert!(batch.await.unwrap().is_ok());
        assert!(!servers_down(&node.cache).contains(&"a".to_owned()));
    }
    until("the circuit breaker of b is open", || servers_down(&node.cache) == ["b"]).await;
}
