//! Keys of one batch: whatever is asked together, each key has its own limits, and needs only what its own
//! options say.

use std::collections::HashMap;
use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, EntryOptions, ErrorKind, ok};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, Node, World, long, ms, pass};
use tokio::time::Instant;

/// What each key of the name has: `hasty` gives L2 20 ms, `strict` is strict, `plain` is neither, any other
/// requires L2.
fn of(key: &str) -> EntryOptions {
    match key {
        "hasty" => long().l2_hard_timeout(ms(20)).l2_soft_timeout(ms(20)),
        "strict" => long().strict(true),
        "plain" => long(),
        _ => long().require_l2(true),
    }
}

/// L2 answers each read after this long.
fn slow(node: &Node, by: Duration) {
    for op in [L2Op::Heads, L2Op::Look, L2Op::ReadMany, L2Op::Read] {
        node.l2.always(op, Fate::Delay(by));
    }
}

/// A node with these keys in L2: its copies of them are unverified, or it has none.
async fn node(keys: &[&str], copies: bool) -> Node {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.default_options_for(|key| Some(of(key)))).await;
    let other = world.node().await;
    let from = if copies { &node.cache } else { &other.cache };
    for key in keys {
        let _ = from.set(*key, 1).options(long()).await.expect("no trouble");
    }
    pass(ms(10)).await;
    node.bus.disconnect();
    pass(ms(50)).await;
    node
}

type Answer = Result<(i32, bool), ErrorKind>;

/// The first key of a batch.
async fn first(cache: &Cache, keys: &[&str], loads: bool) -> Answer {
    if loads {
        let load = |keys: Vec<String>| async {
            ok(keys.into_iter().map(|key| (key, 2)).collect::<HashMap<_, _>>())
        };
        let all = cache.get_or_set_many(keys, load).await;
        return all.map(|all| (*all[0], all[0].meta().is_stale())).map_err(|error| error.kind());
    }
    let all = cache.get_many::<i32>(keys).await;
    let first = |read: Option<_>| {
        read.map_or((0, false), |read: crinkle_core::Cached<i32>| (*read, read.meta().is_stale()))
    };
    all.map(|mut all| first(all.remove(0))).map_err(|error| error.kind())
}

/// L2 answers after 100 ms: too late for one key, and in time for the others.
#[tokio::test(start_paused = true)]
async fn a_key_has_its_own_limit_whatever_that_of_another() {
    for (of, copies, loads) in [
        ("needs", true, false),
        ("needs", true, true),
        ("plain", true, false),
        ("plain", true, true),
        ("needs", false, false),
        ("needs", false, true),
        ("plain", false, false),
        ("plain", false, true),
    ] {
        for keys in [&[of][..], &[of, "hasty"]] {
            let node = node(keys, copies).await;
            slow(&node, ms(100));
            let (began, answer) = (Instant::now(), first(&node.cache, keys, loads).await);
            let case = format!("{keys:?}, copies: {copies}, loads: {loads}");
            assert_eq!((answer, began.elapsed()), (Ok((1, false)), ms(100)), "{case}");
        }
    }
}

/// The ledger, on another server, does not answer: only the strict key needs it, and waits for it.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_strict_does_not_need_the_ledger() {
    for fate in [Fate::Fail(L2ErrorKind::Disconnected), Fate::Hang] {
        for (copies, loads) in [(true, false), (true, true), (false, false), (false, true)] {
            for keys in [&["needs"][..], &["needs", "strict"]] {
                let node = node(keys, copies).await;
                node.l2.ledger_far();
                node.l2.always(L2Op::Frontier, fate.clone());
                let answer = first(&node.cache, keys, loads).await;
                let case = format!("{keys:?}, copies: {copies}, loads: {loads}, {fate:?}");
                assert_eq!(answer, Ok((1, false)), "{case}");
            }
        }
    }
}

/// A server refuses to look at one of many keys, where something else is.
#[tokio::test(start_paused = true)]
async fn a_key_that_holds_something_else_keeps_no_copy_of_another_from_being_verified() {
    for loads in [false, true] {
        let node = node(&["plain", "other", "another"], true).await;
        let options = long();
        // All together, and one of them alone.
        node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
        node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
        let keys = ["plain", "other", "another"];
        let got: Vec<_> = if loads {
            let load = |keys: Vec<String>| async { ok(keys.into_iter().map(|key| (key, 2))) };
            let all = node.cache.get_or_set_many(keys, load).options(options).await.unwrap();
            all.iter().map(|read| (**read, read.meta().is_stale())).collect()
        } else {
            let all = node.cache.get_many::<i32>(keys).options(options).await.unwrap();
            all.iter().flatten().map(|read| (**read, read.meta().is_stale())).collect()
        };
        let count = |stale| got.iter().filter(|read| **read == (1, stale)).count();
        assert_eq!((count(true), count(false)), (1, 2), "loads: {loads}: {got:?}");
    }
}

/// L2 hangs. Whatever it is asked for a key, and however often: that takes one limit.
#[tokio::test(start_paused = true)]
async fn a_hanging_l2_costs_a_call_one_limit_whatever_it_asks() {
    let mut took = Vec::new();
    for what in ["get", "get_many", "get_or_set", "get_or_set_many", "contains"] {
        let node = node(&["plain"], true).await;
        node.l2.hang();
        let (cache, keys, began) = (&node.cache, ["plain", "absent"], Instant::now());
        let load = |keys: Vec<String>| async { ok(keys.into_iter().map(|key| (key, 2))) };
        match what {
            "get" => drop(cache.get::<i32>("plain").options(long()).await),
            "get_many" => drop(cache.get_many::<i32>(keys).options(long()).await),
            "get_or_set" => {
                drop(cache.get_or_set("absent", Loads::new().value(2)).options(long()).await);
            }
            "get_or_set_many" => drop(cache.get_or_set_many(keys, load).options(long()).await),
            _ => drop(cache.contains("plain").await),
        }
        took.push((what, began.elapsed()));
    }
    assert!(took.iter().all(|(_, took)| *took == ms(1000)), "{took:?}");
}

/// It answers some of what a plain read asks, slowly: that is part of the same limit.
#[tokio::test(start_paused = true)]
async fn a_plain_read_gives_a_slow_l2_one_limit_in_all() {
    for what in ["get", "get_many", "contains"] {
        let world = World::new().await;
        let (node, other) = (world.node().await, world.node().await);
        let _ = node.cache.set("key", 1).options(long()).await.unwrap();
        // The copy is not what L2 holds, so that L2 is asked twice.
        let _ = other.cache.set("key", 2).options(long().skip_backplane(true)).await.unwrap();
        node.bus.disconnect();
        pass(ms(50)).await;
        slow(&node, ms(600));
        let (cache, began) = (&node.cache, Instant::now());
        match what {
            "get" => drop(cache.get::<i32>("key").await),
            "get_many" => drop(cache.get_many::<i32>(["key"]).await),
            _ => drop(cache.contains("key").await),
        }
        assert_eq!(began.elapsed(), ms(1000), "{what}");
    }
}

/// A server refuses to look at many keys together: what is asked for one by one is not asked all at once, nor when the
/// limit is over.
#[tokio::test(start_paused = true)]
async fn keys_that_are_asked_for_one_by_one_do_not_flood_l2() {
    let keys: Vec<_> = (0..200).map(|at| format!("plain {at}")).collect();
    let names: Vec<_> = keys.iter().map(String::as_str).collect();
    let node = node(&names, true).await;
    node.l2.forget();
    node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Foreign));
    node.l2.always(L2Op::Heads, Fate::Hang);
    let began = Instant::now();
    let limits = long().l2_hard_timeout(ms(300)).l2_soft_timeout(ms(300));
    drop(node.cache.get_many::<i32>(&keys).options(limits).await);
    assert_eq!(began.elapsed(), ms(300));
    let singly = node.l2.count(L2Op::Heads) - 1;
    assert!((1..=64).contains(&singly), "{singly} at once");
}
