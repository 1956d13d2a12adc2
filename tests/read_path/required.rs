//! A caller that leads and requires L2, while a hasty joiner has the load do without: it asks L2 itself, and is
//! answered as it would be alone.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, gated, go, kind_of, load, ms, options, pass};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::joined::{hasty, many, plain};

/// Gives L2 three seconds.
fn requires(options: EntryOptions) -> EntryOptions {
    options.l2_soft_timeout(ms(3000)).l2_hard_timeout(ms(3000)).require_l2(true)
}

fn always(node: &Node, fate: &Fate) {
    for op in [L2Op::Look, L2Op::Read, L2Op::ReadMany] {
        node.l2.always(op, fate.clone());
    }
}

/// Joins, and gives L2 up: the load is under way without it then.
async fn join_hasty(node: &Node, gate: &Gate, options: EntryOptions) -> JoinHandle<()> {
    pass(ms(50)).await;
    let joiner = load(&node.cache, "key", &[], options, Loads::new().value(7));
    gate.reached().await;
    go(async move { drop(joiner.await) })
}

/// L2 lost the record; the copy is one that could stand in for a load that takes too long.
#[tokio::test(start_paused = true)]
async fn what_l2_has_just_said_is_gone_does_not_stand_in() {
    let world = World::new().await;
    let node = world.node().await;
    let before = world.store.snapshot();
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    world.store.restore(before);
    always(&node, &Fate::Delay(ms(600)));
    let (gate, began) = (Gate::new(), Instant::now());
    let soft = requires(options()).factory_soft_timeout(ms(200));
    let leader = load(&node.cache, "key", &[], soft, gated(&gate, 2));
    let joiner = join_hasty(&node, &gate, hasty()).await;
    assert_eq!(began.elapsed(), ms(150), "the load is for the joiner");
    pass(ms(1000)).await;
    assert!(!leader.is_finished(), "L2 has nothing, so the load is the answer");
    gate.open();
    let read = leader.await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale()), (2, false));
    joiner.await.unwrap();
}

/// Its factory has less time than L2: that this is over is no failure of L2.
#[tokio::test(start_paused = true)]
async fn the_limit_of_its_factory_is_that_of_its_factory() {
    let world = World::new().await;
    for (batch, joined) in [(false, false), (false, true), (true, false), (true, true)] {
        let node = world.node().await;
        always(&node, &Fate::Hang);
        let (gate, began) = (Gate::new(), Instant::now());
        let hard = requires(plain()).factory_hard_timeout(ms(500));
        let leader = if batch {
            let leader = many(&node.cache, hard);
            go(async move { leader.await.unwrap().map(|all| *all[0]) })
        } else {
            let leader = load(&node.cache, "key", &[], hard, gated(&gate, 1));
            go(async move { leader.await.unwrap().map(|read| *read) })
        };
        if joined {
            pass(ms(50)).await;
            drop(load(&node.cache, "key", &[], hasty(), Loads::new().value(7)));
        }
        let case = format!("batch: {batch}, joined: {joined}");
        assert_eq!(leader.await.unwrap().unwrap_err().kind(), ErrorKind::FactoryTimeout, "{case}");
        assert_eq!(began.elapsed(), ms(500), "{case}");
        gate.open();
    }
}

/// A default is for such a timeout.
#[tokio::test(start_paused = true)]
async fn the_limit_of_its_factory_gives_it_its_default() {
    let world = World::new().await;
    let node = world.node().await;
    always(&node, &Fate::Hang);
    let (cache, gate) = (node.cache.clone(), Gate::new());
    let hard = requires(plain()).factory_hard_timeout(ms(500));
    let factory = gated(&gate, 1);
    let leader = go(async move {
        cache.get_or_set("key", factory).options(hard).fail_safe_default(3).await
    });
    let joiner = join_hasty(&node, &gate, hasty()).await;
    let read = leader.await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source()), (3, Source::Default));
    gate.open();
    joiner.await.unwrap();
}

/// It has waited for the load all the while: who goes is the joiner alone, and whether the factory goes on is for
/// the caller that goes last to say.
#[tokio::test(start_paused = true)]
async fn it_waits_for_the_load_while_it_asks_l2() {
    for l2 in [Fate::Delay(ms(200)), Fate::Hang] {
        let world = World::new().await;
        let node = world.node().await;
        always(&node, &l2);
        let gate = Gate::new();
        let stops = |options: EntryOptions, limit| {
            options.factory_hard_timeout(ms(limit)).background_completion(false)
        };
        let leader = load(&node.cache, "key", &[], stops(requires(plain()), 500), gated(&gate, 1));
        let joiner = join_hasty(&node, &gate, stops(hasty(), 300)).await;
        joiner.await.unwrap();
        assert_eq!(node.cache.health().in_flight, 1, "{l2:?}: the leader waits for it");
        assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::FactoryTimeout, "{l2:?}");
        pass(ms(10)).await;
        assert_eq!(node.cache.health().in_flight, 0, "{l2:?}: nobody lets it go on");
    }
}
