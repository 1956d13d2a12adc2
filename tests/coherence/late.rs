//! A `set` that is stuck on its way and runs late: S10, for every limit of a call.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{EntryOptions, ErrorKind, Settings, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, Node, World, options, pass, until};

/// What the deadline of a `set` is beyond the limit of its call.
const SLACK: Duration = Duration::from_millis(500);

fn long(limit: Duration) -> EntryOptions {
    options().duration(Duration::from_secs(600)).l2_hard_timeout(limit)
}

/// When a `set` with this limit runs at the latest: where the clock of the server loses an eighth of the time
/// from the oldest sample that counts, and steps back by half a second as well.
fn edge(limit: Duration) -> Duration {
    let deadline = limit + SLACK;
    deadline + (deadline + Duration::from_secs(5)) / 7 + Duration::from_millis(499)
}

async fn pair(world: &World, limit: Duration) -> (Node, Node) {
    let settings = Settings::default().coherence_ttl(Duration::from_secs(60));
    let make = |options: EntryOptions| {
        let settings = settings.clone();
        world.node_with(|builder| builder.settings(settings).default_options(options))
    };
    (make(long(limit)).await, make(long(limit)).await)
}

async fn shows_nothing_older(nodes: [&Node; 2], case: &str) {
    for node in nodes {
        let read = node.cache.get::<i32>("key").await.expect("no error");
        assert!(read.as_deref() != Some(&1), "{case}: the older value is back");
    }
}

/// The stuck one runs at the last moment, over a newer one; what follows it comes after that, whether its
/// caller has waited for it or gone away at once.
#[tokio::test(start_paused = true)]
async fn a_set_that_runs_at_the_edge_of_its_deadline_is_followed_up_for_every_limit() {
    for ms in [1, 50, 1000, 3000, 10_000] {
        for waits in [true, false] {
            let (limit, world) = (Duration::from_millis(ms), World::new().await);
            let (one, two) = pair(&world, limit).await;
            let case = format!("{limit:?}, waits: {waits}");
            one.l2.next(L2Op::Set, Fate::RunLate(edge(limit)));
            let call = one.cache.set("key", 1);
            let patience = if waits { limit * 2 } else { limit / 2 };
            let receipt = tokio::time::timeout(patience, call.into_future()).await;
            match receipt {
                Ok(receipt) => assert_eq!(receipt.unwrap().l2(), WriteStatus::Unknown, "{case}"),
                Err(_) => assert!(!waits, "{case}"),
            }
            let newer = two.cache.set("key", 2).await.unwrap();
            assert_eq!(newer.l2(), WriteStatus::Done, "{case}");
            pass(edge(limit) + Duration::from_millis(1)).await;
            until("nothing waits", || one.cache.health().recovery_backlog == 0).await;
            pass(Duration::from_millis(50)).await;
            shows_nothing_older([&one, &two], &case).await;
        }
    }
}

/// The answer "late" ends the matter: nothing is removed once more, and L2 is well.
#[tokio::test(start_paused = true)]
async fn a_late_set_is_an_answer_that_opens_no_breaker_and_removes_nothing_later() {
    for announces in [true, false] {
        let world = if announces { World::new().await } else { World::apart().await };
        let (one, two) = pair(&world, Duration::from_secs(3)).await;
        let _ = one.cache.set("key", 1).await.unwrap();
        for _ in 0..10 {
            // The server says so of its own, long before the deadline: its clock is off.
            one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Late));
            let receipt = one.cache.set("key", 2).await.unwrap();
            assert_eq!(receipt.l2(), WriteStatus::Late);
            assert!(!receipt.is_propagated());
        }
        let health = one.cache.health();
        assert_eq!((health.l2_up, health.recovery_backlog), (true, 0));
        let error = one.cache.health().last_l2_error.expect("it is told").what;
        assert!(!error.contains("in time"), "{error}");
        one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Late));
        let error = one.cache.set("key", 2).require_propagation().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPropagated);
        assert!(error.to_string().contains("removed"), "{error}");
        let _ = two.cache.remove("key").await.unwrap();
        pass(Duration::from_millis(50)).await;
        let load = two.cache.get_or_set("key", Loads::new().value(3));
        assert_eq!(*load.await.unwrap(), 3);
        pass(Duration::from_secs(20)).await;
        for node in [&one, &two] {
            let read = node.cache.get_or_set("key", Loads::new().value(4)).await.unwrap();
            assert_eq!(*read, 3, "what was loaded after the late set is still there");
        }
    }
}

/// A `set` that does come late removes what is there and tells the others.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_delivered_after_its_deadline_removes_and_tells_everybody() {
    for announces in [true, false] {
        let world = if announces { World::new().await } else { World::apart().await };
        let (one, two) = pair(&world, Duration::from_secs(3)).await;
        let _ = two.cache.set("key", 2).await.unwrap();
        // The bus holds the call up until the store finds its deadline over.
        let limit = Duration::from_millis(100);
        one.l2.next(L2Op::Set, Fate::Delay(limit + SLACK));
        let _ = one.cache.set("key", 1).l2_hard_timeout(limit).await.unwrap();
        pass(Duration::from_secs(4)).await;
        shows_nothing_older([&two, &two], "delivered late").await;
        assert_eq!(one.cache.health().recovery_backlog, 0);
    }
}

/// Where L2 does not announce, a `set` is announced before it is sent. Who reads after that, and before the late
/// `set` has removed what is there, is told of the removal.
#[tokio::test(start_paused = true)]
async fn what_a_late_set_has_removed_is_told_after_it() {
    let world = World::apart().await;
    let (one, two) = pair(&world, Duration::from_secs(3)).await;
    let _ = one.cache.set("key", 1).await.unwrap();
    pass(Duration::from_millis(50)).await;
    two.bus.hold(true);
    one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Late));
    assert_eq!(one.cache.set("key", 2).await.unwrap().l2(), WriteStatus::Late);
    pass(Duration::from_millis(10)).await;
    let told = two.bus.take_held();
    two.bus.hold(false);
    assert_eq!(told.len(), 2, "before and after");
    two.bus.deliver(told[0].clone());
    pass(Duration::from_millis(10)).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    world.store.evict(&World::record("key"));
    two.bus.deliver(told[1].clone());
    pass(Duration::from_millis(10)).await;
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
}

/// What had waited for L2 before it is settled by it: the key is removed.
#[tokio::test(start_paused = true)]
async fn a_late_set_settles_the_invalidation_that_waits() {
    let world = World::new().await;
    let (one, _) = pair(&world, Duration::from_secs(3)).await;
    one.l2.always(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
    assert_eq!(one.cache.remove("key").await.unwrap().l2(), WriteStatus::Queued);
    assert_eq!(one.cache.health().recovery_backlog, 1);
    one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Late));
    assert_eq!(one.cache.set("key", 2).await.unwrap().l2(), WriteStatus::Late);
    assert_eq!(one.cache.health().recovery_backlog, 0);
}
