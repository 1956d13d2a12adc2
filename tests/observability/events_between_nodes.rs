//! Events about other nodes: messages, outages and lost subscriptions.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::{L2, Record};
use crinkle_core::protocol::resync::ResyncReason;
use crinkle_core::{Event, Events, Notice, ok};
use crinkle_tests::{Loads, World, pass, until};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn told(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}

fn published(told: &[Event]) -> Vec<Notice> {
    let notice = |event: &Event| match event {
        Event::Published { notice } => Some(*notice),
        _ => None,
    };
    told.iter().filter_map(notice).collect()
}

fn received(told: &[Event]) -> Vec<(Notice, bool)> {
    let notice = |event: &Event| match event {
        Event::Received { notice, own } => Some((*notice, *own)),
        _ => None,
    };
    told.iter().filter_map(notice).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_node_publishes_all_receive() {
    let world = World::new().await;
    let (one, two) = (world.node().await.cache, world.node().await.cache);
    let (mut at_one, mut at_two) = (one.events(), two.events());
    one.get_or_set("loaded", |_| async { ok(1) }).await.unwrap();
    let _ = one.set("key", 1).await.unwrap();
    let _ = one.expire("key").await.unwrap();
    let _ = one.remove("key").await.unwrap();
    let _ = one.remove_by_tag("tag").await.unwrap();
    pass(Duration::from_millis(10)).await;
    let (one, two) = (told(&mut at_one), told(&mut at_two));
    let said =
        [Notice::Written, Notice::Written, Notice::Expired, Notice::Removed, Notice::Removal];
    assert_eq!(published(&one), said);
    assert_eq!(received(&one), said.map(|notice| (notice, true)));
    assert_eq!(received(&two), said.map(|notice| (notice, false)));
    assert!(published(&two).is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_an_announcing_store_nodes_publish_before_and_after() {
    let world = World::apart().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    let _ = node.cache.remove("key").await.unwrap();
    pass(Duration::from_millis(1)).await;
    let _ = node.cache.expire_all().await.unwrap();
    pass(Duration::from_millis(1)).await;
    let said = [Notice::Before, Notice::Removed, Notice::Removal];
    assert_eq!(published(&told(&mut events)), said);
    assert_eq!(node.cache.stats().messages_published, 3);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_l2_is_told_from_its_first_failure_to_the_last_recovery() {
    let world = World::new().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    node.l2.down();
    for _ in 0..6 {
        let _ = node.cache.remove("key").await.unwrap();
    }
    let during = told(&mut events);
    assert!(during.iter().any(|e| matches!(e, Event::L2Failed { .. })));
    assert!(during.iter().any(|e| matches!(e, Event::L2Breaker { open: true, .. })));
    assert!(
        during.iter().any(|e| matches!(e, Event::Queued { key: Some(key) } if &**key == "key"))
    );
    let health = node.cache.health();
    let error = health.last_l2_error.expect("it is remembered");
    assert!(error.what.contains("L2"), "{error:?}");
    assert_eq!(health.recovery_backlog, 1);

    node.l2.heal();
    until("recovery", || node.cache.health().recovery_backlog == 0).await;
    let after = told(&mut events);
    let place = |what: fn(&Event) -> bool| after.iter().position(what).expect("told");
    let closed = place(|e| matches!(e, Event::L2Breaker { open: false, .. }));
    let session = place(|e| matches!(e, Event::Session { cause: ResyncReason::L2Back }));
    let recovered = place(|e| matches!(e, Event::Recovered { .. }));
    assert!(closed < session && session < recovered, "{after:?}");
    assert_eq!(node.cache.stats().resyncs_l2_back, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_subscription_and_the_end_of_coherence_are_told() {
    let world = World::new().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    node.bus.cut();
    pass(Duration::from_secs(40)).await;
    let lost = told(&mut events);
    assert!(lost.iter().any(|e| matches!(e, Event::Subscription { up: false })));
    assert!(lost.iter().any(|e| matches!(e, Event::Coherence { coherent: false })), "{lost:?}");
    let health = node.cache.health();
    assert!(!health.coherent);
    assert!(health.incoherent_since.is_some_and(|since| since > Duration::from_secs(1)));
    assert_eq!(health.coherent_since, None);
    assert!(health.last_backplane_error.is_some());

    node.bus.reconnect();
    pass(Duration::from_secs(10)).await;
    let back = told(&mut events);
    assert!(back.iter().any(|e| matches!(e, Event::Subscription { up: true })));
    assert!(back.iter().any(|e| matches!(e, Event::Session { cause: ResyncReason::Connected })));
    assert!(back.iter().any(|e| matches!(e, Event::Coherence { coherent: true })));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_ours_are_told() {
    let world = World::new().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    let junk = Record { bytes: Bytes::from_static(b"junk"), ttl_ms: 60_000 };
    world.store.set(&World::record("key"), junk, None, None).await.unwrap();
    assert!(node.cache.get::<u32>("key").await.unwrap().is_none());
    node.bus.deliver(&b"junk"[..]);
    pass(Duration::from_millis(1)).await;
    let undecodable: Vec<_> = told(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::Undecodable { key } => Some(key),
            _ => None,
        })
        .collect();
    assert_eq!(undecodable, [Some("key".into()), None]);
}

/// A value that cannot become bytes.
#[derive(Debug)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_encoded_is_told() {
    let world = World::new().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    node.cache.get_or_set("key", |_| async { ok(Stubborn) }).await.unwrap();
    node.cache.set("key", Stubborn).await.unwrap_err();
    let told = told(&mut events);
    let unencodable = told.iter().filter(|e| matches!(e, Event::Unencodable { .. })).count();
    assert_eq!(unencodable, 2);
    assert_eq!(node.cache.stats().l2_unencodable, 2);
}

/// What a node cannot use, or cannot store, is logged once in a while, with its key and what to do.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_or_stored_is_logged_once_in_a_while() {
    let (capture, _guard) = crate::capture::Capture::begin();
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for round in 1..=2 {
        for key in ["first", "second"] {
            let _ = one.cache.set(key, 7_u32).await.unwrap();
            assert!(two.cache.get::<String>(key).await.is_err());
            let _ = one.cache.get_or_set(format!("{key}:unit"), Loads::new().value(Some(()))).await;
            let _ = one.cache.remove(format!("{key}:unit")).await.unwrap();
        }
        let lines = capture.lines();
        let warned =
            |what: &str| lines.iter().filter(|l| l.starts_with("WARN") && l.contains(what)).count();
        assert_eq!(warned("if this continues after a roll-out"), round, "{lines:#?}");
        assert_eq!(warned("each node loads its own"), round, "{lines:#?}");
        assert!(lines.iter().any(|l| l.starts_with("WARN") && l.contains("first")));
        pass(Duration::from_secs(61)).await;
    }
}
