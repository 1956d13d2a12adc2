//! A failover of one server among several, while another does not answer: recent writes on the others are
//! asserted again at once, and those on the one that does not answer once it does.

use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_core::l2::L2ErrorKind;
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, long_fail_safe, options, pass, server_of, until};

async fn node(world: &World) -> Node {
    let node = world.cold(|builder| builder, |l2, _| l2.servers(&["a", "b"], server_of));
    node.cache.ready().await.expect("a healthy world");
    pass(Duration::from_millis(1500)).await;
    node
}

async fn holds(world: &World, key: &str) -> bool {
    world.node().await.cache.get::<i32>(key).allow_stale().await.expect("no trouble").is_some()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_keeps_no_write_on_another_from_being_asserted_again() {
    for fate in [Fate::Hang, Fate::Fail(L2ErrorKind::Disconnected)] {
        let world = World::new().await;
        let node = node(&world).await;
        for key in ["on-a", "on-b"] {
            let _ = node.cache.set(key, 1).options(long_fail_safe()).await.expect("stored");
        }
        pass(Duration::from_millis(1500)).await;
        let replica = world.store.snapshot();
        for key in ["on-a", "on-b"] {
            let _ = node.cache.remove(key).await.expect("removed");
        }
        node.l2.server("b", fate);
        world.fail_over(replica);
        until("on-a is asserted again", || node.cache.stats().reasserted >= 2).await;
        until("L2 has it", || node.cache.health().recovery_backlog == 0).await;
        assert!(!holds(&world, "on-a").await);
        assert!(holds(&world, "on-b").await, "nobody can say so on b");
        // Longer than a failover reaches, while others are written.
        for n in 0..60 {
            let _ = node
                .cache
                .set(format!("on-a:{n}"), 1)
                .options(long_fail_safe())
                .await
                .expect("stored");
            pass(Duration::from_secs(1)).await;
        }
        assert_eq!(node.cache.stats().reasserted, 2, "nothing is done twice meanwhile");
        node.l2.heal();
        until("on-b is asserted again", || node.cache.stats().reasserted > 2).await;
        until("L2 has it", || node.cache.health().recovery_backlog == 0).await;
        assert!(!holds(&world, "on-b").await);
        assert!(holds(&world, "on-a:0").await, "nothing else is hidden");
        assert_eq!(node.cache.stats().reassert_forgotten, 0);
    }
}

/// An outage is no failover: what is still there stays.
#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_as_it_was_loses_nothing() {
    let world = World::new().await;
    let node = node(&world).await;
    for key in ["on-a", "on-b"] {
        let _ = node.cache.set(key, 1).options(long_fail_safe()).await.expect("stored");
    }
    node.l2.server("b", Fate::Hang);
    pass(Duration::from_secs(60)).await;
    node.l2.heal();
    pass(Duration::from_secs(10)).await;
    assert!(holds(&world, "on-a").await && holds(&world, "on-b").await);
    assert_eq!(node.cache.stats().reasserted, 0);
}

/// What takes the place of a server that is gone may lack what that had acknowledged.
#[tokio::test(start_paused = true)]
async fn what_a_server_held_that_is_gone_is_asserted_again_where_its_keys_are_now() {
    let world = World::new().await;
    let node = node(&world).await;
    let _ = node.cache.set("on-b", 1).options(long_fail_safe()).await.expect("stored");
    pass(Duration::from_millis(1500)).await;
    let replica = world.store.snapshot();
    let _ = node.cache.remove("on-b").await.expect("removed");
    node.l2.server("b", Fate::Hang);
    pass(Duration::from_secs(30)).await;
    node.l2.servers(&["a", "c"], |key| if key.contains("on-b") { "c" } else { "a" });
    world.fail_over(replica);
    until("it is asserted again", || node.cache.stats().reasserted > 0).await;
    until("L2 has it", || node.cache.health().recovery_backlog == 0).await;
    assert!(!holds(&world, "on-b").await);
}

/// Keys may be long: what is remembered is bounded in bytes, the newest stay, and what falls out is counted.
#[tokio::test(start_paused = true)]
async fn writes_that_there_is_no_room_for_are_counted_when_they_should_be_compared() {
    let world = World::new().await;
    let node = world.node().await;
    let key = |n: u64| format!("{n:0>32000}");
    for n in 0..1000 {
        let _ = node.cache.remove(key(n)).await.expect("removed");
    }
    assert_eq!(node.cache.stats().reassert_forgotten, 0, "no server may have lost any");
    world.fail_over(world.store.snapshot());
    until("what is remembered is asserted", || node.cache.stats().reasserted > 900).await;
    pass(Duration::from_secs(5)).await;
    let stats = node.cache.stats();
    assert_eq!(stats.reassert_forgotten + stats.reasserted / 2, 1000);
    assert!((450..550).contains(&(stats.reasserted / 2)), "{}", stats.reasserted);
}

/// One key that a server refuses to look at fails all that were asked for with it.
#[tokio::test(start_paused = true)]
async fn a_key_that_holds_something_else_keeps_no_other_from_being_compared() {
    let world = World::new().await;
    let node = world.node().await;
    for key in ["a", "b"] {
        let _ = node.cache.set(key, 1).options(long_fail_safe()).await.expect("stored");
    }
    pass(Duration::from_millis(1500)).await;
    // Both are asked for, then each by itself: `a` holds something else.
    node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
    node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
    world.fail_over(world.store.snapshot());
    until("a is asserted again", || node.cache.stats().reasserted > 0).await;
    pass(Duration::from_secs(5)).await;
    assert!(!holds(&world, "a").await && holds(&world, "b").await);
}

/// No call goes to the keys of a server that hangs, so its breaker stays closed: each question which history of
/// writes it is in takes the whole timeout.
#[tokio::test(start_paused = true)]
async fn what_waits_goes_out_while_a_server_without_calls_does_not_answer() {
    let world = World::new().await;
    let patient = |options: EntryOptions| options.l2_hard_timeout(Duration::from_secs(12));
    let node = world.cold(
        |builder| builder.default_options(patient(options())),
        |l2, _| l2.servers(&["a", "b"], server_of),
    );
    node.cache.ready().await.expect("a healthy world");
    let _ = node.cache.set("on-a", 1).options(long_fail_safe()).await.expect("stored");
    node.l2.server("b", Fate::Hang);
    // The question is under way.
    pass(Duration::from_secs(3)).await;
    node.l2.next(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
    let _ = node.cache.remove("on-a").await.expect("queued");
    assert_eq!(node.cache.health().recovery_backlog, 1);
    pass(Duration::from_secs(3)).await;
    assert_eq!(node.cache.health().recovery_backlog, 0, "the next poll has sent it");
}
