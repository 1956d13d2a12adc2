//! S17: what is written after a removal returned on any node is not hidden by it, or its receipt says so.

use std::time::Duration;

use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{ErrorKind, Receipt, WriteStatus};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, go, long, pass};

/// What another node removes.
const REMOVALS: [&str; 4] = ["tag", "soft tag", "clear", "hard clear"];

/// How a node writes.
const WRITES: [&str; 5] = ["set", "set_many", "reserve", "get_or_set", "get_or_set_many"];

async fn remove(node: &Node, what: &str) {
    let cache = &node.cache;
    let receipt = match what {
        "tag" => cache.remove_by_tag("t").await,
        "soft tag" => cache.expire_by_tag("t").await,
        "clear" => cache.expire_all().await,
        _ => cache.remove_all().await,
    };
    assert!(receipt.expect("no trouble").is_propagated());
}

async fn write(node: &Node, how: &str) -> Option<Receipt> {
    let cache = &node.cache;
    let load =
        |keys: Vec<String>| async move { crinkle_core::ok(keys.into_iter().map(|key| (key, 7))) };
    let afresh = long().skip_l2_read(true);
    let receipt = match how {
        "set" => cache.set("key", 7).tags(["t"]).options(long()).await,
        "set_many" => cache.set_many([("key", 7), ("other", 7)]).tags(["t"]).options(long()).await,
        "reserve" => {
            let reservation = cache.reserve("key").await.expect("no trouble");
            cache.set("key", 7).tags(["t"]).options(long()).reserved(reservation).await
        }
        "get_or_set" => {
            let loads = Loads::new();
            // What is there is for a read, strict or not, to judge; here something is to be loaded.
            let load = cache.get_or_set("key", loads.value(7)).tags(["t"]).options(afresh);
            assert_eq!(*load.await.expect("no trouble"), 7);
            return None;
        }
        _ => {
            let load = cache.get_or_set_many(["key", "other"], load).tags(["t"]).options(afresh);
            assert_eq!(*load.await.expect("no trouble")[0], 7);
            return None;
        }
    };
    Some(receipt.expect("no trouble"))
}

async fn seen(node: &Node) -> Option<i32> {
    let cached = node.cache.get::<i32>("key").await.expect("no trouble");
    cached.filter(|cached| !cached.meta().is_stale()).map(|cached| *cached)
}

/// A removal on one node, then a write on another that has not heard of it. What the first one sees, and
/// the other once it has heard.
async fn one(what: &str, how: &str, there: bool) -> (Option<Receipt>, Option<i32>, Option<i32>) {
    let world = World::new().await;
    let (remover, writer) = (world.node().await, world.node().await);
    if there {
        remover.cache.set("key", 1).tags(["t"]).options(long()).await.expect("no trouble");
    }
    writer.bus.mute(true);
    remove(&remover, what).await;
    let receipt = write(&writer, how).await;
    let first = seen(&remover).await;
    pass(Duration::from_secs(3)).await;
    (receipt, first, seen(&writer).await)
}

#[tokio::test(start_paused = true)]
async fn what_is_written_after_a_removal_returned_is_readable_everywhere() {
    for what in REMOVALS {
        for how in WRITES {
            for there in [true, false] {
                let (receipt, first, second) = one(what, how, there).await;
                let case = format!("{what}, {how}, {there}");
                assert_eq!((first, second), (Some(7), Some(7)), "{case}");
                assert!(receipt.is_none_or(|receipt| receipt.l2() == WriteStatus::Done), "{case}");
            }
        }
    }
}

/// The same, with the rules taken out.
#[tokio::test(start_paused = true)]
async fn without_the_ledger_a_write_is_lost_and_said_to_be_done() {
    plant(Some(Sabotage::HiddenSetIsDone));
    let (receipt, first, _) = one("tag", "set", true).await;
    assert_eq!((receipt.map(|r| r.l2()), first), (Some(WriteStatus::Done), None));
    plant(Some(Sabotage::LoadStaysBehind));
    assert_eq!(one("tag", "get_or_set", false).await.1, None);
    plant(None);
}

/// Where the ledger is on another server, the poll says it: the write may be lost, at most that long. A
/// reservation asks all the same.
#[tokio::test(start_paused = true)]
async fn where_the_ledger_is_far_a_set_learns_of_removals_from_the_poll() {
    for how in ["set", "reserve"] {
        let world = World::new().await;
        let (remover, writer) = (world.node().await, world.node().await);
        writer.l2.ledger_far();
        writer.bus.mute(true);
        remove(&remover, "tag").await;
        writer.l2.forget();
        let _ = write(&writer, how).await;
        let readable = seen(&remover).await.is_some();
        assert_eq!((how, readable), (how, how == "reserve"));
        pass(Duration::from_secs(2)).await;
        let receipt = write(&writer, how).await.expect("a receipt");
        assert_eq!((receipt.l2(), seen(&remover).await), (WriteStatus::Done, Some(7)));
    }
}

/// A removal of the writer's own node that began after the call hides the value, whatever else is learnt.
#[tokio::test(start_paused = true)]
async fn a_set_does_not_outlive_a_removal_of_its_own_node_that_began_after_it() {
    for what in REMOVALS {
        let world = World::new().await;
        let (other, node) = (world.node().await, world.node().await);
        let gate = Gate::new();
        node.l2.next(L2Op::Set, Fate::Hold(gate.clone()));
        let cache = node.cache.clone();
        let set = go(async move { cache.set("key", 7).tags(["t"]).options(long()).await });
        gate.reached().await;
        remove(&node, what).await;
        gate.open();
        let receipt = set.await.unwrap().unwrap();
        assert_eq!(receipt.l2(), WriteStatus::Superseded, "{what}");
        assert!(!receipt.is_propagated());
        for node in [&node, &other] {
            assert_eq!(seen(node).await, None, "{what}");
        }
    }
}

/// A reservation does not survive a removal that returned after it, heard of or not; and says so.
#[tokio::test(start_paused = true)]
async fn a_reserved_set_that_is_hidden_is_superseded_though_the_node_has_not_heard() {
    for what in REMOVALS {
        for (demanding, heard) in [(false, false), (true, false), (true, true)] {
            let world = World::new().await;
            let (other, node) = (world.node().await, world.node().await);
            node.bus.mute(!heard);
            let reservation = node.cache.reserve("key").await.unwrap();
            remove(&other, what).await;
            pass(Duration::from_millis(5)).await;
            let set = node.cache.set("key", 7).tags(["t"]).options(long());
            let set = if demanding { set.require_propagation() } else { set };
            let set = set.reserved(reservation).await;
            if demanding {
                let error = set.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotPropagated);
                assert!(error.to_string().contains("was overtaken"), "{error}");
            } else {
                let receipt = set.unwrap();
                assert_eq!(receipt.l2(), WriteStatus::Superseded, "{what}");
                assert!(!receipt.is_propagated());
            }
            assert_eq!((seen(&node).await, seen(&other).await), (None, None), "{what}");
        }
    }
}

/// A node that is told of newer numbers and cannot learn what they hide does not say `Done`.
#[tokio::test(start_paused = true)]
async fn a_set_that_nobody_can_vouch_for_is_not_done() {
    let world = World::new().await;
    let (other, node) = (world.node().await, world.node().await);
    node.bus.mute(true);
    node.l2.always(L2Op::Sync, Fate::Hang);
    remove(&other, "tag").await;
    let receipt = node.cache.set("key", 7).tags(["t"]).options(long()).await.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Superseded);
    assert!(!receipt.is_propagated());
}

/// Storing again never goes over what another node has written meanwhile.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_stored_again_replaces_nothing_but_itself() {
    let world = World::new().await;
    let (other, node) = (world.node().await, world.node().await);
    node.bus.mute(true);
    remove(&other, "tag").await;
    let gate = Gate::new();
    node.l2.next(L2Op::Put, Fate::Hold(gate.clone()));
    let cache = node.cache.clone();
    let set = go(async move { cache.set("key", 7).tags(["t"]).options(long()).await });
    gate.reached().await;
    other.cache.set("key", 8).tags(["t"]).options(long()).await.unwrap();
    gate.open();
    assert_eq!(set.await.unwrap().unwrap().l2(), WriteStatus::Superseded);
    assert_eq!(seen(&other).await, Some(8));
    assert_eq!(node.cache.get::<i32>("key").strict().await.unwrap().as_deref(), Some(&8));
}

/// Removals that keep coming end it.
#[tokio::test(start_paused = true)]
async fn a_set_is_stored_again_a_few_times_and_then_says_superseded() {
    let world = World::new().await;
    let (other, node) = (world.node().await, world.node().await);
    node.bus.mute(true);
    node.l2.forget();
    let gates: Vec<_> = (0..4).map(|_| Gate::new()).collect();
    // The number is asked for once the value is there; the removal returns in between.
    gates.iter().for_each(|gate| node.l2.next(L2Op::Frontier, Fate::Hold(gate.clone())));
    let cache = node.cache.clone();
    let set = go(async move { cache.set("key", 7).tags(["t"]).options(long()).await });
    for gate in &gates {
        gate.reached().await;
        remove(&other, "tag").await;
        gate.open();
    }
    assert_eq!(set.await.unwrap().unwrap().l2(), WriteStatus::Superseded);
    assert_eq!((node.l2.count(L2Op::Set), node.l2.count(L2Op::Put)), (1, 3));
    assert_eq!(seen(&other).await, None);
}
