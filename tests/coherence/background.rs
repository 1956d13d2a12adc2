//! What is written in the background, and what is written after it.

use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::MemoryL2;
use crinkle_core::{Cache, EntryOptions};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{World, pass, until};

const SHORT: Duration = Duration::from_millis(50);

fn later() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(100)).background_l2(true)
}

/// Whether the first write is on its way for long.
const PACES: [Option<Duration>; 2] = [None, Some(Duration::from_millis(500))];

/// S1, S9: the removal was called after the `set` had returned, so it stands, however long the `set`
/// is on its way.
#[tokio::test(start_paused = true)]
async fn a_removal_after_a_set_in_the_background_stands() {
    for world in [World::new().await, World::apart().await] {
        for (pace, background) in PACES.into_iter().zip([true, false].into_iter().cycle()) {
            removal_stands(&world, pace, background).await;
            removal_stands(&world, pace, !background).await;
        }
    }
}

async fn removal_stands(world: &World, pace: Option<Duration>, background: bool) {
    let (one, two) = (world.node().await, world.node().await);
    if let Some(pace) = pace {
        one.l2.next(L2Op::Set, Fate::Delay(pace));
    }
    let _ = one.cache.set("key", 1).options(later()).await.expect("no trouble");
    let _ = one.cache.remove("key").background_l2(background).await.expect("no trouble");
    for _ in 0..200 {
        let read = one.cache.get::<i32>("key").allow_stale().await.expect("no trouble");
        assert!(read.is_none(), "{pace:?} {background}");
        pass(Duration::from_millis(10)).await;
    }
    assert!(
        two.cache.get::<i32>("key").await.expect("no trouble").is_none(),
        "{pace:?} {background}"
    );
}

/// The last of several writes of one caller is what remains.
#[tokio::test(start_paused = true)]
async fn the_last_of_several_sets_in_the_background_remains() {
    for world in [World::new().await, World::apart().await] {
        for pace in PACES {
            for last in [later(), later().background_l2(false)] {
                let (one, two) = (world.node().await, world.node().await);
                if let Some(pace) = pace {
                    one.l2.next(L2Op::Set, Fate::Delay(pace));
                }
                for value in 1..9 {
                    let _ = one.cache.set("key", value).options(later()).await.unwrap();
                }
                let _ = one.cache.set("key", 9).options(last).await.unwrap();
                for _ in 0..20 {
                    let read = one.cache.get::<i32>("key").await.unwrap();
                    assert!(read.is_none_or(|read| *read == 9));
                    pass(SHORT).await;
                }
                pass(Duration::from_secs(3)).await;
                for node in [&one, &two] {
                    let read = node.cache.get::<i32>("key").await.unwrap();
                    assert_eq!(read.as_deref(), Some(&9), "{pace:?}");
                }
            }
        }
    }
}

/// A write that waits without effect for an earlier one becomes an invalidation, which comes after both.
#[tokio::test(start_paused = true)]
async fn a_removal_that_waits_in_vain_for_a_set_in_the_background_is_repeated_after_it() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    one.l2.next(L2Op::Set, Fate::Hold(gate.clone()));
    let patient = later().l2_hard_timeout(Duration::from_secs(60));
    let _ = one.cache.set("key", 1).options(patient).await.unwrap();
    gate.reached().await;
    let receipt = one.cache.remove("key").await.unwrap();
    assert!(!receipt.is_propagated());
    pass(Duration::from_secs(3)).await;
    gate.open();
    for _ in 0..300 {
        assert!(one.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
        pass(Duration::from_millis(10)).await;
    }
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
    assert_eq!(one.cache.health().recovery_backlog, 0);
}

/// The same where L2 holds the ledger alone, and notices are all there is.
#[tokio::test(start_paused = true)]
async fn a_removal_after_a_set_in_the_background_stands_without_records() {
    let world = World::new().await;
    let cache: Cache = Cache::builder("shop")
        .clock(world.clock)
        .ledger(MemoryL2::with_clock(std::sync::Arc::new(world.clock)))
        .backplane(MemoryBackplane::new())
        .build()
        .unwrap();
    cache.ready().await.unwrap();
    for background in [true, false] {
        let _ = cache.set("key", 1).options(later()).await.unwrap();
        let _ = cache.remove("key").background_l2(background).await.unwrap();
        for _ in 0..10 {
            assert!(cache.get::<i32>("key").await.unwrap().is_none());
            pass(Duration::from_millis(1)).await;
        }
    }
}

/// S3: what is called after it makes nothing of it, but is told to nobody.
#[tokio::test(start_paused = true)]
async fn an_invalidation_that_a_quiet_write_replaces_is_told_all_the_same() {
    for case in 0..8 {
        let [expires, removes, background] = [1, 2, 4].map(|bit| case & bit != 0);
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let quiet = |background| later().skip_backplane(true).background_l2(background);
        let _ = one.cache.set("key", 1).options(later().background_l2(false)).await.unwrap();
        assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
        one.l2.next(L2Op::Set, Fate::Delay(Duration::from_millis(300)));
        let _ = one.cache.set("key", 2).options(quiet(true)).await.unwrap();
        let _ = match expires {
            true => one.cache.expire("key").background_l2(true).await.unwrap(),
            false => one.cache.remove("key").background_l2(true).await.unwrap(),
        };
        let _ = match removes {
            true => one.cache.remove("key").options(quiet(background)).await.unwrap(),
            false => one.cache.set("key", 3).options(quiet(background)).await.unwrap(),
        };
        pass(Duration::from_secs(3)).await;
        let read = two.cache.get::<i32>("key").await.unwrap();
        let last = (!removes).then_some(3);
        assert_eq!(read.as_deref(), last.as_ref(), "expires {expires}, background {background}");
    }
}

/// A cache that is closed has no tasks any more, so the caller waits.
#[tokio::test(start_paused = true)]
async fn what_is_written_in_the_background_after_closing_is_sent() {
    for kind in 0..5 {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = two.cache.set("key", 1).tags(["tag"]).await.unwrap();
        one.cache.close().await.unwrap();
        let receipt = match kind {
            0 => one.cache.remove("key").background_l2(true).await,
            1 => one.cache.expire("key").background_l2(true).await,
            2 => one.cache.remove_many(["key"]).background_l2(true).await,
            3 => one.cache.set("key", 2).options(later()).await,
            _ => one.cache.set_many([("key", 2)]).options(later()).await,
        };
        assert!(receipt.unwrap().is_propagated(), "{kind}");
        pass(SHORT).await;
        let read = two.cache.get::<i32>("key").await.unwrap();
        assert_eq!(read.as_deref(), (kind > 2).then_some(&2), "{kind}");
    }
}

/// All of them at once would run into their own timeouts, and what fails then fills the queue.
#[tokio::test(start_paused = true)]
async fn writes_in_the_background_are_sent_some_at_a_time() {
    let world = World::new().await;
    let one = world.node().await;
    let keys: Vec<_> = (0..1000).map(|at| format!("key:{at}")).collect();
    for op in [L2Op::Set, L2Op::Remove, L2Op::Expire] {
        one.l2.always(op, Fate::Delay(SHORT));
    }
    for (case, op) in [L2Op::Set, L2Op::Remove, L2Op::Expire].into_iter().enumerate() {
        one.l2.forget();
        let _ = match case {
            0 => one.cache.set_many(keys.iter().map(|key| (key, 1))).options(later()).await,
            1 => one.cache.remove_many(&keys).background_l2(true).await,
            _ => {
                let (last, others) = keys.split_last().unwrap();
                for key in others {
                    let _ = one.cache.expire(key).background_l2(true).await.unwrap();
                }
                one.cache.expire(last).background_l2(true).await
            }
        }
        .unwrap();
        for round in 1..=4 {
            pass(SHORT / 2).await;
            assert_eq!(one.l2.count(op), keys.len().min(256 * round), "{op:?}");
            pass(SHORT / 2).await;
        }
        until("all are sent", || one.cache.health().in_flight == 0).await;
        assert_eq!(one.cache.stats().queued, 0, "{op:?}");
    }
}

/// L6: what a caller waits for is not held up by the many that nobody waits for.
#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_waits_waits_for_no_place_of_those_before_it() {
    let world = World::new().await;
    for removed in [true, false] {
        for way in 0..3 {
            let (one, two) = (world.node().await, world.node().await);
            for op in [L2Op::Set, L2Op::Remove, L2Op::Expire] {
                one.l2.always(op, Fate::Delay(SHORT));
            }
            let keys: Vec<_> = (0..10_000).map(|at| format!("key:{removed}:{way}:{at}")).collect();
            let _ = match removed {
                true => one.cache.remove_many(&keys).background_l2(true).await.unwrap(),
                false => {
                    let entries = keys.iter().map(|key| (key, 1));
                    one.cache.set_many(entries).options(later()).await.unwrap()
                }
            };
            let last = keys.last().unwrap();
            let began = tokio::time::Instant::now();
            let receipt = match way {
                0 => one.cache.remove(last).await,
                1 => one.cache.set(last, 2).await,
                _ => one.cache.expire(last).await,
            };
            assert!(receipt.unwrap().is_propagated(), "removed: {removed}, {way}");
            assert!(
                began.elapsed() <= SHORT * 3,
                "removed: {removed}, {way}: {:?}",
                began.elapsed()
            );
            let read = two.cache.get::<i32>(last).await.unwrap();
            assert_eq!(read.as_deref(), (way == 1).then_some(&2), "removed: {removed}, {way}");
            until("all are sent", || one.cache.health().in_flight == 0).await;
            let read = two.cache.get::<i32>(last).skip_l1_read(true).await.unwrap();
            assert_eq!(read.as_deref(), (way == 1).then_some(&2), "removed: {removed}, {way}");
            assert_eq!(one.cache.stats().queued, 0, "removed: {removed}, {way}");
        }
    }
}
