//! Values that cannot be encoded: they stay in L1, the ledger alone is shared.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::backplane::Backplane;
use crinkle_core::l2::NoCodec;
use crinkle_core::{Cache, CacheBuilder, EntryOptions, FailSafe, Source, WriteStatus};
use crinkle_testkit::chaos::{self, BusHandle, L2Handle, L2Op};
use crinkle_tests::{Loads, World, pass};
use futures_util::FutureExt;

/// No codec could encode it.
#[derive(Clone)]
struct Handle(Arc<dyn Fn() -> i32 + Send + Sync>);

fn handle(number: i32) -> Handle {
    Handle(Arc::new(move || number))
}

struct Node {
    cache: Cache<NoCodec>,
    l2: L2Handle,
    bus: BusHandle,
}

async fn node(world: &World, seed: u64) -> Node {
    node_with(world, seed, |builder| builder).await
}

async fn node_with(
    world: &World,
    seed: u64,
    change: impl FnOnce(CacheBuilder<NoCodec>) -> CacheBuilder<NoCodec>,
) -> Node {
    let (store, l2) = chaos::l2(Arc::new(world.store.clone()));
    let backplane: Arc<dyn Backplane> = Arc::new(world.bus.clone());
    let (backplane, bus) = chaos::backplane(backplane);
    let builder = Cache::builder("shop").codec(NoCodec).clock(world.clock).seed(seed);
    let builder = change(builder.ledger(store).backplane(backplane));
    let cache = builder.build().expect("sound settings");
    cache.ready().await.expect("a healthy world");
    pass(Duration::from_millis(50)).await;
    Node { cache, l2, bus }
}

async fn read(node: &Node, number: i32) -> (i32, Source) {
    let loads = Loads::new();
    let tagged = node.cache.get_or_set("key", loads.value(handle(number))).tags(["t"]);
    let cached = tagged.duration(Duration::from_secs(600)).await.expect("a value");
    ((cached.0)(), cached.meta().source())
}

#[tokio::test(start_paused = true)]
async fn removals_reach_every_node_and_values_stay_where_they_are() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (node(&world, 1).await, node(&world, 2).await);
        assert_eq!(read(&one, 1).await.0, 1);
        assert_eq!(read(&two, 2).await, (2, Source::Factory));
        two.cache.remove_by_tag("t").await.unwrap();
        pass(Duration::from_millis(10)).await;
        assert_eq!((read(&one, 3).await.0, read(&two, 4).await.0), (3, 4));
        let receipt = one.cache.remove("key").await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Skipped, WriteStatus::Done));
        pass(Duration::from_millis(10)).await;
        assert_eq!((read(&one, 5).await.0, read(&two, 6).await.0), (5, 6));
        one.cache.set("key", handle(7)).await.unwrap();
        pass(Duration::from_millis(10)).await;
        assert_eq!((read(&one, 8).await, read(&two, 9).await.0), ((7, Source::L1), 9));
        one.cache.expire("key").await.unwrap();
        pass(Duration::from_millis(10)).await;
        assert_eq!((read(&one, 10).await.0, read(&two, 11).await.0), (10, 11));
        assert!(world.store.keys().is_empty());
        assert!(one.l2.calls().iter().all(|call| matches!(call.op, L2Op::Sync | L2Op::Advance)));
    }
}

/// A load is no news: if each fill told the others to drop theirs, they would do so for ever.
#[tokio::test(start_paused = true)]
async fn loads_do_not_invalidate_each_other() {
    let world = World::new().await;
    let (one, two) = (node(&world, 1).await, node(&world, 2).await);
    assert_eq!((read(&one, 1).await.0, read(&two, 2).await.0), (1, 2));
    pass(Duration::from_secs(5)).await;
    let again = (read(&one, 3).await, read(&two, 4).await);
    assert_eq!(again, ((1, Source::L1), (2, Source::L1)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_may_have_missed_something_loads_again() {
    let world = World::new().await;
    let (one, two) = (node(&world, 1).await, node(&world, 2).await);
    let _ = (read(&one, 1).await, read(&two, 2).await);
    one.bus.mute(true);
    two.cache.remove("key").await.unwrap();
    pass(Duration::from_millis(10)).await;
    assert_eq!(read(&one, 3).await.0, 1, "it cannot know yet");
    pass(Duration::from_secs(5)).await;
    assert_eq!(
        read(&one, 4).await.0,
        4,
        "no subscription for longer than the grace: nothing is taken on trust"
    );
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_could_not_be_sent_is_sent_later() {
    let world = World::new().await;
    let (one, two) = (node(&world, 1).await, node(&world, 2).await);
    let _ = (read(&one, 1).await, read(&two, 2).await);
    one.bus.fail_publish(true);
    let receipt = one.cache.remove("key").await.unwrap();
    assert_ne!(receipt.backplane(), WriteStatus::Done);
    assert_eq!(one.cache.health().recovery_backlog, 1);
    one.bus.fail_publish(false);
    pass(Duration::from_secs(5)).await;
    assert_eq!(one.cache.health().recovery_backlog, 0);
    assert_eq!(read(&two, 3).await.0, 3);
}

/// W2, of the removals that were not begun when the caller went away.
#[tokio::test(start_paused = true)]
async fn a_batch_of_removals_that_its_caller_gives_up_is_sent_whole() {
    let world = World::new().await;
    let (one, two) = (node(&world, 1).await, node(&world, 2).await);
    let keys: Vec<_> = (0..300).map(|number| format!("key:{number}")).collect();
    let values = keys.iter().map(|key| (key, handle(1)));
    let _ = two.cache.set_many(values).duration(Duration::from_secs(600)).await.unwrap();
    one.bus.hang_reply(true);
    assert!(one.cache.remove_many(&keys).into_future().now_or_never().is_none());
    one.bus.hang_reply(false);
    pass(Duration::from_secs(3)).await;
    let found = two.cache.get_many::<Handle>(&keys).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 0);
}

/// Nobody else has it: it is stale until its set begins, and still there if that never does.
#[tokio::test(start_paused = true)]
async fn what_a_batch_of_sets_that_its_caller_gives_up_would_have_replaced_may_stand_in() {
    let world = World::new().await;
    let one = node(&world, 1).await;
    let keys: Vec<_> = (0..300).map(|number| format!("key:{number}")).collect();
    let values = |number| keys.iter().map(move |key| (key, handle(number)));
    let kept = EntryOptions::new(Duration::from_secs(600));
    let kept = kept.fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)));
    let _ = one.cache.set_many(values(1)).options(kept.clone()).await.unwrap();
    one.bus.hang_reply(true);
    assert!(one.cache.set_many(values(2)).options(kept).into_future().now_or_never().is_none());
    one.bus.hang_reply(false);
    assert!(one.cache.peek::<Handle>("key:299").is_none());
    let read = one.cache.get::<Handle>("key:299").allow_stale().await.unwrap();
    assert_eq!(read.map(|read| ((read.0)(), read.meta().is_stale())), Some((1, true)));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_here_is_removed_in_other_regions_reserved_or_not() {
    for reserved in [false, true] {
        let (home, other) = (World::new().await, World::new().await);
        let (store, bus) = (other.store.clone(), other.bus.clone());
        let here = node_with(&home, 1, |builder| builder.region("other", store, bus)).await;
        let there = node(&other, 2).await;
        assert_eq!(read(&there, 1).await.0, 1);
        if reserved {
            let reservation = here.cache.reserve("key").await.unwrap();
            let _ = here.cache.set("key", handle(2)).reserved(reservation).await.unwrap();
        } else {
            let _ = here.cache.set("key", handle(2)).await.unwrap();
        }
        pass(Duration::from_millis(100)).await;
        assert_eq!(read(&there, 3).await.0, 3, "reserved: {reserved}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_ledger_out_of_reach_values_live_no_longer_than_the_coherence_ttl() {
    let world = World::new().await;
    let one = node(&world, 1).await;
    one.l2.down();
    pass(Duration::from_secs(6)).await;
    assert_eq!(read(&one, 1).await.0, 1);
    pass(Duration::from_secs(29)).await;
    assert_eq!(read(&one, 2).await.0, 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(read(&one, 3).await.0, 3);
}

/// S16: a key that another node has removed is in a message alone, so nobody can be asked whether a copy is right.
#[tokio::test(start_paused = true)]
async fn a_strict_read_takes_nothing_of_l1_where_nobody_can_be_asked_about_keys() {
    let world = World::new().await;
    let (one, two) = (node(&world, 1).await, node(&world, 2).await);
    assert_eq!(read(&two, 1).await, (1, Source::Factory));
    two.bus.mute(true);
    assert!(one.cache.remove("key").await.unwrap().is_propagated());
    assert!(two.cache.peek::<Handle>("key").is_some(), "it has not heard of it");
    assert!(two.cache.get::<Handle>("key").strict().await.unwrap().is_none());
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(handle(2))).strict().await.unwrap();
    assert_eq!(((read.0)(), read.meta().source()), (2, Source::Factory));
}
