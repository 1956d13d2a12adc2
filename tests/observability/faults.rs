//! One WARN when a fault begins, one INFO when it is over, with the cache, the server, the reason and what to do.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, ErrorKind};
use crinkle_testkit::chaos::{Fate, L2Handle, L2Op};
use crinkle_tests::{Loads, Node, World, options, pass, until};
use tokio::time::timeout;

use crate::capture::Capture;

const OPS: [L2Op; 8] = [
    L2Op::Look,
    L2Op::Read,
    L2Op::Put,
    L2Op::Set,
    L2Op::Remove,
    L2Op::Expire,
    L2Op::Advance,
    L2Op::Sync,
];

fn refuse(node: &Node, ops: &[L2Op], kind: L2ErrorKind) {
    ops.iter().for_each(|op| node.l2.always(*op, Fate::Fail(kind)));
}

/// Uses everything that goes to L2.
async fn use_it(cache: &Cache) {
    let _ = cache.get::<u32>("absent").await.expect("no error");
    let _ = cache
        .get_or_set("key", Loads::new().value(1_u32))
        .options(options())
        .await
        .expect("no error");
    let _ = cache.set("key", 1_u32).await.expect("no error");
    let _ = cache.remove("key").await.expect("no error");
    let _ = cache.expire("key").await.expect("no error");
    let _ = cache.remove_by_tag("tag").await.expect("no error");
}

/// The lines that name this fault and no other.
fn only(capture: &Capture, level: &str, what: &str) -> String {
    let told = capture.told();
    let [line] = &told[..] else { panic!("one line: {told:#?}") };
    assert!(line.starts_with(level) && line.contains(what), "{told:#?}");
    assert!(line.contains("cache=shop") && line.contains("server=memory:"), "{line}");
    line.clone()
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_l2_is_told_once_when_it_begins_and_once_when_it_is_over() {
    let cases = [
        (&OPS[..], L2ErrorKind::Denied, "L2 refuses this client", "L2 accepts this client again"),
        (&OPS[1..7], L2ErrorKind::Denied, "L2 refuses this client", "L2 accepts this client again"),
        (&OPS[1..7], L2ErrorKind::Full, "L2 is out of memory", "L2 takes writes again"),
        (&OPS[..], L2ErrorKind::Other, "L2 answers with errors", "L2 answers again"),
        (&OPS[..], L2ErrorKind::Disconnected, "L2 does not answer", "L2 answers again"),
    ];
    for (ops, kind, begins, ends) in cases {
        let world = World::new().await;
        let node = world.node().await;
        let (capture, _guard) = Capture::begin();
        refuse(&node, ops, kind);
        for _ in 0..5 {
            use_it(&node.cache).await;
            let _ = node.cache.remove("queued").await.unwrap();
            pass(Duration::from_secs(1)).await;
        }
        let line = only(&capture, "WARN", begins);
        assert!(line.contains("reason="), "{line}");
        capture.forget();
        node.l2.heal();
        for _ in 0..12 {
            use_it(&node.cache).await;
            pass(Duration::from_secs(1)).await;
        }
        let line = only(&capture, "INFO", ends);
        assert!(!line.contains("keys_sent=0 ") && line.contains("removals_sent="), "{line}");
        assert!(line.contains("waiting=0") && line.contains("lasted="), "{line}");
        capture.forget();
        refuse(&node, ops, kind);
        use_it(&node.cache).await;
        pass(Duration::from_secs(7)).await;
        only(&capture, "WARN", begins);
    }
}

fn server_of(key: &str) -> &'static str {
    let of = ["b", "c"].into_iter().find(|server| key.contains(&format!("on-{server}")));
    of.unwrap_or("a")
}

/// A cluster: each server that does not answer is told, and the end once all of them answer.
#[tokio::test(start_paused = true)]
async fn servers_of_l2_that_do_not_answer_are_told_one_by_one_and_are_over_together() {
    let world = World::new().await;
    let node = world.cold(|builder| builder, |l2, _| l2.servers(&["a", "b", "c"], server_of));
    node.cache.ready().await.expect("a healthy world");
    pass(Duration::from_secs(1)).await;
    let (capture, _guard) = Capture::begin();
    for server in ["b", "c"] {
        node.l2.server(server, Fate::Hang);
        for n in 0..10 {
            let _ = node.cache.get::<u32>(format!("on-{server}:{n}")).await.unwrap();
        }
        pass(Duration::from_secs(7)).await;
        let line = only(&capture, "WARN", "a server of L2 does not answer");
        assert!(line.contains(&format!("reason={server}: ")), "{line}");
        capture.forget();
    }
    node.l2.server("b", Fate::Pass);
    until("b is used again", || {
        node.cache.health().l2_servers.iter().any(|s| &*s.name == "b" && s.up)
    })
    .await;
    pass(Duration::from_secs(7)).await;
    assert!(capture.told().is_empty(), "c does not answer: {:#?}", capture.told());
    assert!(!node.cache.health().l2_up);
    node.l2.heal();
    until("all are used", || node.cache.health().l2_up).await;
    pass(Duration::from_secs(7)).await;
    only(&capture, "INFO", "L2 answers again");
}

/// What takes a right away and then another, or corrects a login that then lacks rights, is told again.
#[tokio::test(start_paused = true)]
async fn a_poll_that_is_refused_for_another_reason_is_told_again() {
    let world = World::new().await;
    let node = world.node().await;
    let (capture, _guard) = Capture::begin();
    refuse(&node, &OPS, L2ErrorKind::Full);
    pass(Duration::from_secs(3)).await;
    only(&capture, "WARN", "out of memory");
    capture.forget();
    refuse(&node, &OPS, L2ErrorKind::Denied);
    pass(Duration::from_secs(3)).await;
    only(&capture, "WARN", "refuses this client");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_starts_without_its_l2_says_so() {
    let world = World::new().await;
    let (capture, _guard) = Capture::begin();
    let node = world.cold(|builder| builder, |l2, bus| (l2.down(), bus.cut()).0);
    pass(Duration::from_secs(10)).await;
    let told = capture.told();
    assert_eq!(told.iter().filter(|line| line.contains("since the start")).count(), 1, "{told:#?}");
    assert!(!node.cache.health().l2_up);
    assert!(timeout(Duration::from_secs(60), node.cache.ready()).await.is_err(), "it waits");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_coherence_and_of_the_subscription_are_told_with_their_reason_and_when_over() {
    let world = World::new().await;
    let node = world.node().await;
    let (capture, _guard) = Capture::begin();
    node.bus.cut();
    pass(Duration::from_secs(40)).await;
    let told = capture.told();
    let [lost, incoherent] = &told[..] else { panic!("{told:#?}") };
    assert!(lost.contains("no subscription to the backplane"), "{lost}");
    assert!(incoherent.contains("no heartbeat of this node has come back"), "{incoherent}");
    capture.forget();
    node.bus.reconnect();
    pass(Duration::from_secs(10)).await;
    let told = capture.told();
    assert!(told.iter().all(|line| line.starts_with("INFO")), "{told:#?}");
    for what in ["subscribed to the backplane again", "agrees with L2 again"] {
        assert_eq!(told.iter().filter(|line| line.contains(what)).count(), 1, "{told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_refuses_to_publish_is_told_and_ready_is_an_error() {
    let world = World::apart().await;
    let node = world.node().await;
    let (capture, _guard) = Capture::begin();
    node.bus.deny_publish(true);
    pass(Duration::from_secs(5)).await;
    let told = capture.told();
    let [line] = &told[..] else { panic!("{told:#?}") };
    assert!(line.contains("the backplane refuses what this node publishes"), "{line}");
    assert_eq!(node.cache.ready().await.unwrap_err().kind(), ErrorKind::Backplane);
    node.bus.deny_publish(false);
    pass(Duration::from_secs(5)).await;
    assert!(capture.told()[1].contains("takes what this node publishes again"));
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_l2_before_it_blames_the_backplane() {
    let world = World::apart().await;
    let node = world.cold(
        |builder| builder,
        |l2, bus| {
            l2.always(L2Op::Sync, Fate::Delay(Duration::from_millis(50)));
            bus.deny_publish(true);
        },
    );
    assert_eq!(node.cache.ready().await.unwrap_err().kind(), ErrorKind::Backplane);
    assert!(node.cache.health().l2_up, "L2 has answered by then");
}

/// The backplane follows L2 a moment later; only one that does not is told.
#[tokio::test(start_paused = true)]
async fn a_login_that_one_server_refuses_is_told_once_for_l2_and_backplane() {
    for follows in [true, false] {
        let world = World::new().await;
        let node = world.node().await;
        let (capture, _guard) = Capture::begin();
        refuse(&node, &OPS, L2ErrorKind::Denied);
        node.bus.deny_publish(true);
        pass(Duration::from_secs(5)).await;
        only(&capture, "WARN", "L2 refuses this client");
        node.l2.heal();
        pass(Duration::from_secs(2)).await;
        node.bus.deny_publish(!follows);
        pass(Duration::from_secs(20)).await;
        let told = capture.told();
        assert!(told[1].contains("L2 accepts this client again"), "{told:#?}");
        let more = told.iter().filter(|line| line.contains("refuses what this node publishes"));
        assert_eq!(more.count(), usize::from(!follows), "{told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn l2_is_up_only_once_it_has_answered_and_while_it_does_not_refuse() {
    let world = World::new().await;
    let node = world.cold(|builder| builder, |_, _| ());
    assert!(!node.cache.health().l2_up, "before the first answer");
    node.cache.ready().await.unwrap();
    assert!(node.cache.health().l2_up);
    node.l2.always(L2Op::Sync, Fate::Fail(L2ErrorKind::Denied));
    until("it is refused", || !node.cache.health().l2_up).await;
    let error = node.cache.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::L2);
    assert!(error.to_string().contains("L2 refuses this client"), "{error}");
    node.l2.heal();
    until("it is let in again", || node.cache.health().l2_up).await;
    node.cache.ready().await.unwrap();
}

/// Before L2 has answered once nothing is sent: the write says why.
#[tokio::test(start_paused = true)]
async fn a_write_before_the_first_answer_of_l2_says_why_it_was_not_sent() {
    for (kind, begins) in [
        (L2ErrorKind::Denied, "L2 refuses this client or command: nothing was sent"),
        (L2ErrorKind::Disconnected, "L2 is not connected: nothing was sent"),
    ] {
        let world = World::new().await;
        let refused = |l2: &L2Handle| {
            L2Op::ALL.into_iter().for_each(|op| l2.always(op, Fate::Fail(kind)));
        };
        let node = world.cold(|builder| builder, |l2, _| refused(l2));
        let set = node.cache.set("key", 1).require_propagation().await.unwrap_err();
        let said = set.to_string();
        assert_eq!(set.kind(), ErrorKind::NotPropagated, "{said}");
        assert!(said.contains(begins) && said.contains("The last error: L2 "), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_caches_of_one_process_say_which_they_are() {
    let (capture, _guard) = Capture::begin();
    let world = World::new().await;
    for name in ["shop", "users"] {
        let (store, l2) = crinkle_testkit::chaos::l2(std::sync::Arc::new(world.store.clone()));
        let cache = Cache::builder(name).clock(world.clock).l2(store).build().unwrap();
        l2.down();
        pass(Duration::from_secs(10)).await;
        let told = capture.told();
        assert!(told[0].contains(&format!("cache={name} ")), "{told:#?}");
        drop(cache);
        capture.forget();
    }
}
