//! L2 slow, hung, failing and down: what a call pays for it.

use std::time::Duration;

use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{L2, L2ErrorKind};
use crinkle_core::protocol::Version;
use crinkle_core::{EntryOptions, Settings, Source};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, World, go, options, pass, until};
use tokio::time::Instant;

const SOFT: u128 = 250;
const HARD: u128 = 1000;

/// Without a poll that opens the breaker meanwhile.
fn calm() -> Settings {
    let minute = Duration::from_secs(60);
    Settings::default().poll(minute).coherence_ttl(minute * 5)
}

#[tokio::test(start_paused = true)]
async fn a_hung_l2_costs_a_load_one_hard_timeout() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.settings(calm())).await;
    node.l2.hang();
    let asked = Instant::now();
    let read = node.cache.get_or_set("key", Loads::new().value(1)).await.unwrap();
    assert_eq!((*read, read.meta().source()), (1, Source::Factory));
    assert_eq!(asked.elapsed().as_millis(), HARD);
    let asked = Instant::now();
    assert!(node.cache.get::<i32>("other").await.unwrap().is_none());
    assert_eq!(asked.elapsed().as_millis(), HARD);
    assert!(node.cache.peek::<i32>("key").is_some(), "it stays here for a while");
}

#[tokio::test(start_paused = true)]
async fn a_hung_l2_costs_one_soft_timeout_where_there_is_a_fallback() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.settings(calm())).await;
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    node.l2.hang();
    let asked = Instant::now();
    let read = node.cache.get::<i32>("key").allow_stale().await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, true));
    assert_eq!(asked.elapsed().as_millis(), SOFT);
    let asked = Instant::now();
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
    assert!(read.await.unwrap().meta().is_stale());
    assert_eq!(asked.elapsed().as_millis(), SOFT);
}

#[tokio::test(start_paused = true)]
async fn a_hung_l2_costs_a_write_one_hard_timeout() {
    let world = World::new().await;
    let met = world.node_with(|builder| builder.settings(calm())).await;
    met.l2.hang();
    let cold = world.cold(|builder| builder.settings(calm()), |l2, _| l2.hang());
    for node in [&met, &cold] {
        let asked = Instant::now();
        assert!(!node.cache.set("key", 1).await.unwrap().is_propagated());
        // Less on the cold one, if the poll that would meet the ledger fails meanwhile.
        assert!(asked.elapsed().as_millis() <= HARD);
        let asked = Instant::now();
        assert!(!node.cache.remove("key").await.unwrap().is_propagated());
        assert_eq!(asked.elapsed().as_millis(), HARD);
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_a_call_are_its_own() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.settings(calm())).await;
    node.l2.hang();
    let limit = Duration::from_millis(30);
    let asked = Instant::now();
    assert!(node.cache.get::<i32>("key").l2_hard_timeout(limit).await.unwrap().is_none());
    assert_eq!(asked.elapsed().as_millis(), 30);
    let asked = Instant::now();
    let read = node.cache.get_or_set("key", Loads::new().value(1)).l2_hard_timeout(limit);
    assert_eq!(*read.await.unwrap(), 1);
    assert_eq!(asked.elapsed().as_millis(), 30);
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_nobody_pays_until_a_poll_is_answered() {
    let world = World::new().await;
    let settings = Settings::default().poll(Duration::from_secs(20));
    let settings = settings.coherence_ttl(Duration::from_secs(120));
    let node = world.node_with(|builder| builder.settings(settings)).await;
    node.l2.hang();
    for number in 0..5 {
        assert!(node.cache.health().l2_up);
        let asked = Instant::now();
        assert!(node.cache.get::<i32>(number.to_string()).await.unwrap().is_none());
        assert_eq!(asked.elapsed().as_millis(), HARD);
    }
    assert!(!node.cache.health().l2_up);
    node.l2.forget();
    let asked = Instant::now();
    assert_eq!(*node.cache.get_or_set("key", Loads::new().value(1)).await.unwrap(), 1);
    assert!(node.cache.get::<i32>("other").await.unwrap().is_none());
    let _ = node.cache.set("set", 1).await.unwrap();
    let _ = node.cache.remove("removed").await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(node.l2.calls(), []);
    node.l2.heal();
    until("a poll is answered", || node.cache.health().l2_up).await;
    let _ = node.cache.set("key", 2).await.unwrap();
    assert!(world.node().await.cache.get::<i32>("key").await.unwrap().is_some());
}

/// Refusals of single commands are answers: they open nothing.
#[tokio::test(start_paused = true)]
async fn refusals_do_not_open_the_breaker() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Set, Fate::Fail(L2ErrorKind::Full));
    for _ in 0..20 {
        assert!(!node.cache.set("key", 1).await.unwrap().is_propagated());
    }
    assert!(node.cache.health().l2_up);
}

#[tokio::test(start_paused = true)]
async fn a_slow_l2_is_waited_for_within_its_timeout() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = world.node().await.cache.set("key", 1).await.unwrap();
    node.l2.always(L2Op::Look, Fate::Delay(Duration::from_millis(900)));
    let asked = Instant::now();
    assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    assert_eq!(asked.elapsed().as_millis(), 900);
}

/// L1 keeps answering through an outage; loads are shared all the same.
#[tokio::test(start_paused = true)]
async fn hits_cost_nothing_while_l2_is_down() {
    let world = World::new().await;
    let node = world.node().await;
    let long = options().duration(Duration::from_secs(600));
    let _ = node.cache.set("key", 1).options(long).await.unwrap();
    node.l2.hang();
    for _ in 0..25 {
        let asked = Instant::now();
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
        assert_eq!(asked.elapsed(), Duration::ZERO);
        pass(Duration::from_secs(1)).await;
    }
}

/// A fill that fails is the caller's value all the same.
#[tokio::test(start_paused = true)]
async fn a_failed_fill_is_answered_and_kept_here() {
    let world = World::new().await;
    let node = world.node().await;
    for kind in [L2ErrorKind::Full, L2ErrorKind::Disconnected, L2ErrorKind::Other] {
        node.l2.next(L2Op::Put, Fate::Fail(kind));
        let key = format!("{kind:?}");
        let read = node.cache.get_or_set(&key, Loads::new().value(1)).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, false));
        assert!(node.cache.peek::<i32>(&key).is_some());
    }
}

/// Law Dark: what L2 did not take is loaded again after X, however often it is asked for.
#[tokio::test(start_paused = true)]
async fn hits_do_not_prolong_the_life_of_what_l2_has_not_taken() {
    let world = World::new().await;
    for background in [false, true] {
        let node = world.node().await;
        let loads = Loads::new();
        node.l2.always(L2Op::Put, Fate::Fail(L2ErrorKind::Full));
        let sliding = EntryOptions::new(Duration::from_secs(300)).sliding(true);
        for _ in 0..7 {
            let options = sliding.clone().background_l2(background);
            let _ = node.cache.get_or_set("key", loads.value(1)).options(options).await.unwrap();
            pass(Duration::from_secs(5)).await;
        }
        assert_eq!(loads.count(), 2, "background {background}");
    }
}

/// Somebody writes a record again and again that is removed each time: a load does not follow it for ever.
#[tokio::test(start_paused = true)]
async fn a_record_that_changes_and_stays_removed_does_not_hold_up_a_load() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).tags(["tag"]).await.unwrap();
    let found = world.store.read(&World::record("key"), None).await.unwrap().found.unwrap();
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(Duration::from_millis(50)).await;
    let store = world.store.clone();
    let writer = go(async move {
        let old = Envelope::decode(&found.bytes).unwrap();
        for at in 0..1000 {
            let version = Version(old.version.0 ^ (at + 1));
            let record = Envelope { version, ..old.clone() }.encode();
            store.plant(&World::record("key"), record, Duration::from_secs(60));
            pass(Duration::from_millis(1)).await;
        }
    });
    two.l2.always(L2Op::Read, Fate::Delay(Duration::from_millis(2)));
    let asked = Instant::now();
    let read = two.cache.get_or_set("key", Loads::new().value(2)).await.unwrap();
    assert_eq!(*read, 2);
    assert!(asked.elapsed() < Duration::from_millis(20), "{:?}", asked.elapsed());
    writer.await.unwrap();
}
