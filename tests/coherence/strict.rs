//! S16: a strict read never answers fresh what an acknowledged change of any node had replaced before it began.

use std::time::Duration;

use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{Cached, ErrorKind};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, gated, go, load, long, pass};

/// What another node does.
const CHANGES: [&str; 7] = ["tag", "soft tag", "clear", "hard clear", "set", "remove", "expire"];

/// How the reader asks.
const READS: [&str; 5] = ["get", "get_or_set", "get_many", "get_or_set_many", "contains"];

/// Why the reader has not heard of it.
#[derive(Clone, Copy, Debug)]
enum Bus {
    /// Its messages are on their way.
    Late,
    /// Nothing comes through, and it does not know.
    Cut,
    /// Its subscription has just been killed.
    Killed,
}

async fn change(node: &Node, what: &str) {
    let cache = &node.cache;
    let receipt = match what {
        "tag" => cache.remove_by_tag("t").await,
        "soft tag" => cache.expire_by_tag("t").await,
        "clear" => cache.expire_all().await,
        "hard clear" => cache.remove_all().await,
        "set" => cache.set("key", 2).tags(["t"]).await,
        "remove" => cache.remove("key").await,
        _ => cache.expire("key").await,
    };
    assert!(receipt.expect("no trouble").is_propagated());
}

fn fresh(cached: Option<Cached<i32>>) -> Option<i32> {
    cached.filter(|cached| !cached.meta().is_stale()).map(|cached| *cached)
}

/// What a strict read answers as fresh; a load brings 9.
async fn ask(node: &Node, how: &str) -> Option<i32> {
    let cache = &node.cache;
    let load =
        |keys: Vec<String>| async move { crinkle_core::ok(keys.into_iter().map(|key| (key, 9))) };
    match how {
        "get" => fresh(cache.get("key").allow_stale().strict().await.expect("no trouble")),
        "get_many" => {
            let many = cache.get_many(["key", "other"]).allow_stale(true).strict();
            fresh(many.await.expect("no trouble").remove(0))
        }
        "get_or_set" => {
            let read = cache.get_or_set("key", Loads::new().value(9)).strict();
            fresh(Some(read.await.expect("no trouble")))
        }
        "get_or_set_many" => {
            let many = cache.get_or_set_many(["key", "other"], load).strict();
            fresh(Some(many.await.expect("no trouble").remove(0)))
        }
        _ => cache.contains("key").await.expect("no trouble").then_some(1),
    }
}

/// One change, and one strict read that begins once it has returned. With or without a copy in L1.
async fn one(change_by: &str, how: &str, bus: Bus, held: bool, far: bool) -> Option<i32> {
    let world = World::new().await;
    let writer = world.node().await;
    // `contains` has no options of its own.
    let strict = long().strict(how == "contains");
    let reader = world.node_with(|builder| builder.default_options(strict)).await;
    if far {
        reader.l2.ledger_far();
    }
    writer.cache.set("key", 1).tags(["t"]).options(long()).await.expect("no trouble");
    // A load of another key of the batch would learn of the change, and so help this one.
    writer.cache.set("other", 1).options(long()).await.expect("no trouble");
    pass(Duration::from_millis(20)).await;
    if held {
        assert_eq!(reader.cache.get::<i32>("key").await.expect("no trouble").as_deref(), Some(&1));
    }
    match bus {
        Bus::Late => reader.bus.hold(true),
        Bus::Cut => reader.bus.mute(true),
        Bus::Killed => reader.bus.cut(),
    }
    change(&writer, change_by).await;
    ask(&reader, how).await
}

fn right(change: &str, how: &str, seen: Option<i32>) -> bool {
    match (change, how) {
        ("set", "contains") => seen.is_some(),
        ("set", _) => seen == Some(2),
        (_, "get" | "get_many" | "contains") => seen.is_none(),
        _ => seen == Some(9),
    }
}

#[tokio::test(start_paused = true)]
async fn a_strict_read_sees_every_change_that_had_returned_on_any_node() {
    for what in CHANGES {
        for how in READS {
            for bus in [Bus::Late, Bus::Cut, Bus::Killed] {
                for (held, far) in [(true, false), (false, false), (true, true), (false, true)] {
                    let seen = one(what, how, bus, held, far).await;
                    assert!(
                        right(what, how, seen),
                        "{what}, {how}, {bus:?}, {held}, {far}: {seen:?}"
                    );
                }
            }
        }
    }
}

/// The same matrix, with the rule taken out.
#[tokio::test(start_paused = true)]
async fn without_the_ledger_a_strict_read_answers_what_was_removed_by_tag() {
    plant(Some(Sabotage::StrictIgnoresLedger));
    for how in READS {
        for held in [true, false] {
            let seen = one("tag", how, Bus::Cut, held, false).await;
            assert!(!right("tag", how, seen), "{how}, {held}: {seen:?}");
        }
    }
    plant(None);
}

/// A look that began before the caller came, or a `SYNC`, may not know what it must see.
#[tokio::test(start_paused = true)]
async fn a_strict_read_takes_no_answer_that_was_asked_for_before_it_came() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("key", 1).tags(["t"]).options(long()).await.unwrap();
    two.cache.get::<i32>("key").await.unwrap();
    two.bus.mute(true);
    let gate = Gate::new();
    // A strict read is behind, and its SYNC has been answered but has not arrived.
    one.cache.remove_by_tag("unrelated").await.unwrap();
    two.l2.next(L2Op::Sync, Fate::HoldReply(gate.clone()));
    let cache = two.cache.clone();
    let early = go(async move { cache.get::<i32>("key").strict().await });
    gate.reached().await;
    one.cache.remove_by_tag("t").await.unwrap();
    let cache = two.cache.clone();
    let late = go(async move { cache.get::<i32>("key").strict().await });
    pass(Duration::from_millis(5)).await;
    gate.open();
    assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&1), "it came before");
    assert!(late.await.unwrap().unwrap().is_none(), "it came after");
}

/// Callers that are behind at the same moment compare once for all.
#[tokio::test(start_paused = true)]
async fn strict_reads_that_are_behind_share_one_sync() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("key", 1).options(long()).await.unwrap();
    two.cache.get::<i32>("key").await.unwrap();
    two.bus.mute(true);
    one.cache.remove_by_tag("unrelated").await.unwrap();
    two.l2.forget();
    two.l2.always(L2Op::Sync, Fate::Delay(Duration::from_millis(5)));
    let reads: Vec<_> = (0..100)
        .map(|_| {
            let cache = two.cache.clone();
            go(async move { cache.get::<i32>("key").strict().await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().as_deref(), Some(&1));
    }
    assert!(two.l2.count(L2Op::Sync) <= 2, "one for all, and the poll's");
}

/// A `SYNC` whose caller goes is begun again by the next.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_in_the_middle_of_a_sync_leaves_nothing_behind() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("key", 1).tags(["t"]).options(long()).await.unwrap();
    two.cache.get::<i32>("key").await.unwrap();
    two.bus.mute(true);
    one.cache.remove_by_tag("t").await.unwrap();
    two.l2.next(L2Op::Sync, Fate::HoldReply(Gate::new()));
    let short = two.cache.get::<i32>("key").strict().l2_hard_timeout(Duration::from_millis(20));
    assert!(short.await.unwrap().is_none(), "unanswered is not there");
    assert!(two.cache.get::<i32>("key").strict().await.unwrap().is_none());
    assert!(two.cache.peek::<i32>("key").is_none(), "it has caught up");
}

/// As without L2: nothing in L1 is strictly there, and a load is answered.
#[tokio::test(start_paused = true)]
async fn without_an_answer_of_the_ledger_nothing_is_strictly_there() {
    for silent in [L2Op::Frontier, L2Op::Sync] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        one.cache.set("key", 1).options(long()).await.unwrap();
        two.cache.get::<i32>("key").await.unwrap();
        two.bus.mute(true);
        one.cache.remove_by_tag("unrelated").await.unwrap();
        two.l2.always(silent, Fate::Hang);
        let read = || two.cache.get::<i32>("key").strict();
        assert!(read().await.unwrap().is_none(), "{silent:?}");
        assert_eq!(read().require_l2(true).await.unwrap_err().kind(), ErrorKind::L2, "{silent:?}");
        let stale = read().allow_stale().await.unwrap().expect("it may be stale");
        assert!(stale.meta().is_stale(), "{silent:?}");
        let loads = Loads::new();
        let loaded = two.cache.get_or_set("key", loads.value(2)).strict().await.unwrap();
        assert_eq!((*loaded, loads.count()), (2, 1), "{silent:?}");
    }
}

/// What a wiped store forgot is over for a strict read at once.
#[tokio::test(start_paused = true)]
async fn a_strict_read_notices_that_the_ledger_is_another() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("key", 1).options(long()).await.unwrap();
    two.cache.get::<i32>("key").await.unwrap();
    world.store.evict_ledgers();
    assert!(two.cache.get::<i32>("key").strict().await.unwrap().is_none());
}

/// The price: nothing where it is not asked for, and never a round trip of its own.
#[tokio::test(start_paused = true)]
async fn the_ledger_is_asked_beside_the_call_or_not_at_all() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.cache.set("key", 1).options(long()).await.unwrap();
    let trip = Duration::from_millis(10);
    for op in L2Op::ALL {
        two.l2.always(op, Fate::Delay(trip));
    }
    two.l2.forget();
    let began = tokio::time::Instant::now();
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    assert_eq!(two.l2.count(L2Op::Frontier), 0, "a plain read does not");
    two.cache.get::<i32>("key").await.unwrap();
    assert_eq!(began.elapsed(), trip, "a hit in L1 asks nobody");
    two.cache.get::<i32>("key").strict().await.unwrap();
    assert_eq!((began.elapsed(), two.l2.count(L2Op::Frontier)), (trip * 2, 1));
    let gate = Gate::new();
    let hit = load(&two.cache, "key", &["t"], long().skip_l1_read(true), gated(&gate, 9));
    assert_eq!(*hit.await.unwrap().unwrap(), 1);
    assert_eq!((began.elapsed(), two.l2.count(L2Op::SharedFrontier)), (trip * 3, 1));
    assert_eq!(
        two.l2.count(L2Op::Frontier),
        1,
        "a load may share the request, a strict read may not"
    );
    for how in ["get_many", "get_or_set", "get_or_set_many"] {
        // It has no copy, so it reads the record.
        let node = world.node().await;
        assert_eq!(ask(&node, how).await, Some(1), "{how}");
        let asked = (node.l2.count(L2Op::Frontier), node.l2.count(L2Op::SharedFrontier));
        assert!(asked.0 > 0 && asked.1 == 0, "{how}: {asked:?}");
    }
}
