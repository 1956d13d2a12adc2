//! Keys and tags removed by one call: as much as the two calls, at the price of one.

use std::future::IntoFuture;
use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, EntryOptions, ErrorKind, Receipt, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, long_fail_safe, ms, pass, until};
use futures_util::FutureExt;
use tokio::time::Instant;

const SOON: Duration = Duration::from_millis(50);

/// What happens to a node before it makes the call.
type Trouble = Box<dyn Fn(&Node)>;

async fn fill(cache: &Cache) {
    for (key, tag) in [("key", "own"), ("tagged", "a"), ("second", "b"), ("other", "c")] {
        let _ = cache.set(key, 1).tags([tag]).options(long_fail_safe()).await.expect("stored");
    }
}

/// What a node answers of each of these, stale or not.
async fn answers(cache: &Cache) -> Vec<Option<i32>> {
    let mut all = Vec::new();
    for key in ["key", "tagged", "second", "other"] {
        let got = cache.get::<i32>(key).allow_stale().await.expect("an answer");
        all.push(got.map(|got| *got));
    }
    all
}

/// Two nodes that both hold everything. `far`: the ledger is elsewhere.
async fn two(world: &World, far: bool) -> [Node; 2] {
    let nodes = [world.node().await, world.node().await];
    if far {
        nodes.iter().for_each(|node| node.l2.ledger_far());
    }
    fill(&nodes[0].cache).await;
    pass(SOON).await;
    for node in &nodes {
        assert_eq!(answers(&node.cache).await, [Some(1); 4]);
    }
    nodes
}

/// One world of each kind, and whether the ledger is elsewhere there.
async fn worlds() -> [(World, bool); 3] {
    [world(0).await, world(1).await, world(2).await]
}

async fn world(kind: usize) -> (World, bool) {
    match kind {
        0 => (World::new().await, false),
        1 => (World::apart().await, false),
        _ => (World::new().await, true),
    }
}

fn reaches(receipt: Receipt) -> (WriteStatus, WriteStatus, bool) {
    (receipt.l2(), receipt.backplane(), receipt.token().is_some())
}

/// What became of it: the receipts of both parts, what every node answers then and when all is well again, and
/// what waits.
async fn outcome(
    (world, far): &(World, bool),
    trouble: impl Fn(&Node),
    together: bool,
    chosen: &EntryOptions,
) -> String {
    let [one, other] = two(world, *far).await;
    trouble(&one);
    let parts = if together {
        let call = one.cache.remove("key").and_tags(["a", "b"]).options(chosen.clone());
        let receipt = call.await.expect("a receipt");
        let [keys, tags] =
            [receipt.keys_part(), receipt.tags_part()].map(|part| part.expect("both"));
        assert_eq!(receipt.token(), tags.token(), "a key has no number");
        [keys, tags]
    } else {
        let key = one.cache.remove("key").options(chosen.clone()).await.expect("a receipt");
        let tags = one.cache.remove_by_tags(["a", "b"]).options(chosen.clone()).await;
        [key, tags.expect("a receipt")]
    };
    let here = answers(&one.cache).await;
    let waiting = (one.cache.health().recovery_backlog, one.cache.health().pending_removals);
    one.l2.heal();
    until("nothing waits", || {
        let health = one.cache.health();
        health.recovery_backlog + health.pending_removals == 0
    })
    .await;
    pass(Duration::from_secs(2)).await;
    let stats = one.cache.stats();
    let counted = (stats.removes, stats.tag_removals, stats.queued);
    let there = answers(&other.cache).await;
    format!(
        "{:?}, here {here:?}, {waiting:?} wait, there {there:?}, {counted:?}",
        parts.map(reaches)
    )
}

#[tokio::test(start_paused = true)]
async fn the_call_does_what_the_two_calls_do() {
    let fails = |op, kind| move |node: &Node| node.l2.always(op, Fate::Fail(kind));
    let loses = |op| move |node: &Node| node.l2.next(op, Fate::LoseReply);
    let troubles: [Trouble; 7] = [
        Box::new(|_| ()),
        Box::new(fails(L2Op::Remove, L2ErrorKind::Disconnected)),
        Box::new(fails(L2Op::Remove, L2ErrorKind::Denied)),
        Box::new(fails(L2Op::Advance, L2ErrorKind::Disconnected)),
        Box::new(fails(L2Op::Advance, L2ErrorKind::Full)),
        Box::new(loses(L2Op::Remove)),
        Box::new(loses(L2Op::Advance)),
    ];
    let chosen = [
        EntryOptions::default(),
        EntryOptions::default().background_backplane(false),
        EntryOptions::default().background_l2(true),
        EntryOptions::default().skip_l2_write(true),
        EntryOptions::default().skip_backplane(true),
    ];
    for (case, trouble) in troubles.iter().enumerate() {
        for options in &chosen {
            for kind in 0..3 {
                let mut found = Vec::new();
                for together in [true, false] {
                    found.push(outcome(&world(kind).await, trouble, together, options).await);
                }
                assert_eq!(found[0], found[1], "trouble {case} in world {kind}: {options:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_costs_one_timeout() {
    for (world, far) in worlds().await {
        let [one, _] = two(&world, far).await;
        let many: Vec<_> = (0..200).map(|at| format!("tag:{at}")).collect();
        let limit = Duration::from_secs(1);
        one.l2.hang();
        let asked = Instant::now();
        let receipt = one.cache.remove("key").and_tags(["a"]).await.unwrap();
        assert_eq!(asked.elapsed(), limit, "far: {far}");
        for part in [Some(receipt), receipt.keys_part(), receipt.tags_part()] {
            assert_eq!(
                part.map(reaches).unwrap(),
                (WriteStatus::Unknown, WriteStatus::Unknown, false)
            );
        }
        one.l2.heal();
        until("L2 is back", || one.cache.health().recovery_backlog == 0).await;
        one.l2.hang();
        for tags in [&many[..1], &many] {
            let asked = Instant::now();
            let _ = one.cache.remove_many(["key", "second"]).and_tags(tags).await.unwrap();
            assert!(asked.elapsed() <= limit, "{} tags", tags.len());
        }
        one.l2.heal();
        until("L2 is back", || one.cache.health().pending_removals == 0).await;
        one.l2.hang();
        let asked = Instant::now();
        let _ = one.cache.remove_by_tags(&many).await.unwrap();
        assert_eq!(asked.elapsed(), limit, "as many parts as there are");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_a_key_and_tags_is_one_round_trip() {
    for (world, far) in worlds().await {
        let [one, _] = two(&world, far).await;
        for op in L2Op::ALL {
            one.l2.always(op, Fate::Delay(ms(100)));
        }
        let asked = Instant::now();
        let receipt = one.cache.remove("key").and_tags(["a", "b"]).await.unwrap();
        assert_eq!(asked.elapsed(), ms(100), "far: {far}");
        assert_eq!(receipt.l2(), WriteStatus::Done);
        let asked = Instant::now();
        let _ = one.cache.remove("key").and_tags([] as [&str; 0]).await.unwrap();
        assert_eq!(asked.elapsed(), ms(100), "nothing but the key");
    }
}

#[tokio::test(start_paused = true)]
async fn both_hold_here_before_anything_is_awaited() {
    for (world, far) in worlds().await {
        let [one, other] = two(&world, far).await;
        one.l2.hang();
        let call = one.cache.remove_many(["key", "other"]).and_tags(["a", "b"]).into_future();
        assert!(call.now_or_never().is_none(), "it was dropped after one poll");
        for key in ["key", "tagged", "second", "other"] {
            assert!(one.cache.peek::<i32>(key).is_none(), "{key}");
        }
        one.l2.heal();
        until("it was repeated", || one.cache.health().recovery_backlog == 0).await;
        pass(Duration::from_secs(2)).await;
        assert_eq!(answers(&other.cache).await, [None; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_part_removes_nothing() {
    let world = World::new().await;
    let [one, _] = two(&world, false).await;
    let bad_tag = one.cache.remove("key").and_tags(["a", ""]).await.unwrap_err();
    assert_eq!(bad_tag.kind(), ErrorKind::InvalidTag);
    let bad_key = one.cache.remove_many(["key", ""]).and_tags(["a"]).await.unwrap_err();
    assert_eq!(bad_key.kind(), ErrorKind::InvalidKey);
    assert_eq!(answers(&one.cache).await, [Some(1); 4]);
}

/// Either part may be the one that is not confirmed; the other is done all the same.
#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_is_an_error_for_who_requires_it() {
    for (op, key) in [(L2Op::Remove, Some("key")), (L2Op::Advance, None)] {
        let world = World::new().await;
        let [one, other] = two(&world, false).await;
        one.l2.always(op, Fate::Fail(L2ErrorKind::Full));
        let call = one.cache.remove("key").and_tags(["a", "b", "own"]).require_propagation();
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::NotPropagated, key));
        pass(SOON).await;
        let first = answers(&other.cache).await;
        let done = if key.is_some() {
            [None, None, None, Some(1)]
        } else {
            [None, Some(1), Some(1), Some(1)]
        };
        assert_eq!(first, done, "{op:?} failed");
    }
}

#[tokio::test(start_paused = true)]
async fn without_l2_both_hold_here() {
    let world = World::new().await;
    let cache = world.alone();
    fill(&cache).await;
    let receipt = cache.remove("key").and_tags(["a", "b"]).await.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Skipped);
    assert!(receipt.is_propagated() && receipt.token().is_some());
    assert_eq!(answers(&cache).await, [None, None, None, Some(1)]);
}

/// As many commands as there are in several rounds.
fn many_tags() -> Vec<String> {
    (0..64 * 300).map(|at| format!("tag:{at}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_hangs_costs_many_tags_one_timeout() {
    let world = World::apart().await;
    let [one, _] = two(&world, false).await;
    one.bus.hang_publish(true);
    let asked = Instant::now();
    let receipt = one.cache.remove_by_tags(many_tags()).await.unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(1));
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Unknown));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_token_that_covers_a_part_of_the_tags() {
    let world = World::new().await;
    let [one, _] = two(&world, false).await;
    let whole = one.cache.remove_by_tags(&many_tags()[..200]).await.unwrap();
    assert!(whole.token().is_some());
    one.l2.next(L2Op::Advance, Fate::LoseReply);
    let part = one.cache.remove_by_tags(&many_tags()[..200]).await.unwrap();
    assert_eq!((part.l2(), part.token()), (WriteStatus::Unknown, None));
}
