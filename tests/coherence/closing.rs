//! How long `close` takes, at worst.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{EntryOptions, PendingWrites};
use crinkle_testkit::chaos::{self, Fate, Gate, L2Op};
use crinkle_tests::{World, gated, load, options, pass, until};
use tokio::time::Instant;

/// Two timeouts of L2 for the poll and a question of its own, 5 s for loads, and a timeout for another question: what
/// the page on health checks says, wherever the poll is, and however many regions there are.
#[tokio::test(start_paused = true)]
async fn closing_takes_what_its_page_says_while_nothing_answers() {
    let mut worst = Duration::ZERO;
    for phase in (0..1000).step_by(50) {
        let (home, other) = (World::new().await, World::new().await);
        let (store, there) = chaos::l2(Arc::new(other.store.clone()));
        let bus = other.bus.clone();
        let one = home.node_with(|builder| builder.region("other", store, bus)).await;
        let region = || one.cache.health().regions[0].health.subscribed;
        until("the other region is known", region).await;
        let gate = Gate::new();
        drop(load(&one.cache, "hangs", &[], options(), gated(&gate, 1)));
        gate.reached().await;
        pass(Duration::from_millis(1500)).await;
        one.l2.hang();
        there.hang();
        pass(Duration::from_millis(phase)).await;
        let _ = one.cache.remove("key").background_l2(true).and_tags(["t"]).await.unwrap();
        let began = Instant::now();
        let closed = one.cache.close().await.unwrap_err().to_string();
        assert!(closed.contains("1 invalidations of keys and 1 removals by tag"), "{closed}");
        assert!(closed.contains("shop@other"), "{closed}");
        worst = worst.max(began.elapsed());
    }
    assert!(worst <= Duration::from_secs(8), "{worst:?}");
}

/// More than can be sent in 5 s, and one that may take longer: what has not been sent by then is named.
#[tokio::test(start_paused = true)]
async fn closing_counts_what_the_background_did_not_get_to() {
    let keys: Vec<_> = (0..4000).map(|at| format!("key:{at}")).collect();
    let long = EntryOptions::new(Duration::from_secs(600));
    for patient in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = two
            .cache
            .set_many(keys.iter().map(|key| (key, 1)))
            .options(long.clone())
            .await
            .unwrap();
        let sent = if patient { &keys[..1] } else { &keys[..] };
        let fate =
            if patient { Fate::Hold(Gate::new()) } else { Fate::Delay(Duration::from_millis(500)) };
        one.l2.always(L2Op::Remove, fate);
        let limit = Duration::from_secs(if patient { 60 } else { 1 });
        let removal = one.cache.remove_many(sent).background_l2(true).l2_hard_timeout(limit);
        let _ = removal.await.unwrap();
        let began = Instant::now();
        let error = one.cache.close().await.unwrap_err();
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
        let pending = error.downcast_ref::<PendingWrites>().expect("what is lost");
        let found = two.cache.get_many::<i32>(sent).skip_l1_read(true).await.unwrap();
        let left = found.iter().flatten().count();
        assert!(left > 0 && left <= pending.keys && pending.keys < 2000, "{left}: {pending}");
        assert_eq!(pending.removals, 0);
    }
}

/// What fails to be sent in time, and is sent with what waits, is no error.
#[tokio::test(start_paused = true)]
async fn closing_sends_what_the_background_did_not_get_to() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).await.unwrap();
    one.l2.next(L2Op::Remove, Fate::Hold(Gate::new()));
    let limit = Duration::from_secs(60);
    let _ = one.cache.remove("key").background_l2(true).l2_hard_timeout(limit).await.unwrap();
    one.cache.close().await.unwrap();
    pass(Duration::from_millis(50)).await;
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
}
