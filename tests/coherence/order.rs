//! Order between nodes and with the source: tokens, strict reads, reservations.

use std::time::Duration;

use crinkle_core::{Cached, Error, ErrorKind, Source, Token, WriteStatus};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, gated, go, load, long, pass, until};

async fn fill(node: &Node, value: i32) -> Cached<i32> {
    let loads = Loads::new();
    let filled = node.cache.get_or_set("key", loads.value(value)).tags(["t"]).options(long());
    filled.await.expect("a value")
}

async fn strict(node: &Node) -> Result<Option<i32>, Error> {
    Ok(node.cache.get::<i32>("key").strict().await?.map(|cached| *cached))
}

#[tokio::test(start_paused = true)]
async fn after_a_token_a_node_that_heard_nothing_sees_nothing_that_was_removed() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = (fill(&one, 1).await, fill(&two, 1).await);
    two.bus.mute(true);
    let receipt = one.cache.remove_by_tag("t").await.unwrap();
    let text = serde_json::to_string(&receipt.token().unwrap()).unwrap();
    let token: Token = serde_json::from_str(&text).unwrap();
    assert_eq!(token.to_string().parse(), Ok(token));
    for text in ["", "any", "+0000000000000000000000000000000", &"0".repeat(33)] {
        assert!(text.parse::<Token>().is_err(), "{text:?}");
    }
    pass(Duration::from_millis(5)).await;
    assert!(two.cache.peek::<i32>("key").is_some(), "it has not heard of it");
    two.cache.wait_for(token).await.unwrap();
    assert!(two.cache.peek::<i32>("key").is_none());
    two.cache.wait_for(token).await.unwrap();
    one.cache.wait_for(token).await.unwrap();
}

/// T23: the token of a removal that the node cannot learn of is an error in time, and good later.
#[tokio::test(start_paused = true)]
async fn a_token_is_waited_for_no_longer_than_its_limit() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    two.l2.down();
    two.bus.mute(true);
    let token = one.cache.remove_by_tag("t").await.unwrap().token().unwrap();
    let short = two.cache.wait_for(token).within(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::NotCaughtUp);
    assert!(short.to_string().contains("100ms"), "{short}");
    let cache = two.cache.clone();
    let patient = go(async move { cache.wait_for(token).within(Duration::from_secs(20)).await });
    pass(Duration::from_secs(5)).await;
    assert!(!patient.is_finished());
    two.l2.heal();
    patient.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_gave_costs_its_caller_the_wait_and_the_ledger_one_poll() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.forget();
    let before = node.l2.count(L2Op::Sync);
    let far = Token::from_bytes([0xff; 16]);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let cache = node.cache.clone();
            go(async move { cache.wait_for(far).within(Duration::from_millis(500)).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::NotCaughtUp);
    }
    assert!(node.l2.count(L2Op::Sync) - before <= 2, "not one poll per caller");
}

#[tokio::test(start_paused = true)]
async fn a_strict_read_sees_a_change_that_the_node_has_not_heard_of() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = (fill(&one, 1).await, fill(&two, 1).await);
    two.bus.mute(true);
    one.cache.set("key", 2).options(long()).await.unwrap();
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().map(|v| *v), Some(1), "it cannot know");
    assert_eq!(strict(&two).await.unwrap(), Some(2));
    one.cache.remove("key").await.unwrap();
    assert_eq!(strict(&two).await.unwrap(), None);
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(3)).strict().await.unwrap();
    assert_eq!((*read, loads.count()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_strict_hit_costs_one_read_and_no_factory() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = fill(&node, 1).await;
    node.l2.forget();
    let loads = Loads::new();
    let read = node.cache.get_or_set("key", loads.value(2)).strict().await.unwrap();
    assert_eq!(
        (*read, read.meta().source(), read.meta().is_stale(), loads.count()),
        (1, Source::L1, false, 0)
    );
    assert_eq!(strict(&node).await.unwrap(), Some(1));
    let values = node.l2.count(L2Op::Read) + node.l2.count(L2Op::Look);
    assert_eq!((node.l2.count(L2Op::Heads), values), (2, 0), "no value travels");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_of_l2_nothing_in_l1_is_strictly_there() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = fill(&node, 1).await;
    node.l2.down();
    assert_eq!(strict(&node).await.unwrap(), None);
    let error = node.cache.get::<i32>("key").strict().require_l2(true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::L2);
    let loads = Loads::new();
    let read = node.cache.get_or_set("key", loads.value(2)).strict().await.unwrap();
    assert_eq!((*read, loads.count()), (2, 1));
}

/// What was read before the call began may be older than what the call must see.
#[tokio::test(start_paused = true)]
async fn a_strict_caller_joins_no_read_that_began_before_it() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = fill(&one, 1).await;
    let gate = Gate::new();
    two.l2.next(L2Op::Read, Fate::HoldReply(gate.clone()));
    let early = load(&two.cache, "key", &["t"], long(), gated(&Gate::new(), 9));
    gate.reached().await;
    two.bus.mute(true);
    one.cache.set("key", 2).options(long()).await.unwrap();
    let cache = two.cache.clone();
    let late = go(async move {
        let loads = Loads::new();
        cache.get_or_set("key", loads.value(9)).options(long().strict(true)).await
    });
    pass(Duration::from_millis(10)).await;
    gate.open();
    assert_eq!((*early.await.unwrap().unwrap(), *late.await.unwrap().unwrap()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn strict_callers_of_one_moment_share_one_read() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = fill(&node, 1).await;
    node.l2.always(L2Op::Heads, Fate::Delay(Duration::from_millis(10)));
    node.l2.forget();
    let calls: Vec<_> = (0..100)
        .map(|_| load(&node.cache, "key", &["t"], long().strict(true), gated(&Gate::new(), 9)))
        .collect();
    for call in calls {
        assert_eq!(*call.await.unwrap().unwrap(), 1);
    }
    let looks = node.l2.count(L2Op::Heads);
    assert_eq!(looks, 2, "the first, and one for all who came while it ran");
}

#[tokio::test(start_paused = true)]
async fn a_reserved_set_is_stored_if_nothing_happened() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for value in 1..4 {
        let reservation = one.cache.reserve("key").await.unwrap();
        let set = one.cache.set("key", value).tags(["t"]).options(long()).reserved(reservation);
        let receipt = set.await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Done));
        assert_eq!(one.cache.peek::<i32>("key").map(|v| *v), Some(value));
        pass(Duration::from_millis(10)).await;
        assert_eq!(two.cache.get::<i32>("key").await.unwrap().map(|v| *v), Some(value));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reserved_set_loses_to_every_invalidation_since() {
    for world in [World::new().await, World::apart().await] {
        for what in ["remove", "expire", "set", "tag", "soft tag", "clear", "hard clear"] {
            for here in [true, false] {
                for there_before in [true, false] {
                    let (one, two) = (world.node().await, world.node().await);
                    one.cache.remove_all().await.unwrap();
                    pass(Duration::from_millis(10)).await;
                    if there_before {
                        one.cache.set("key", 1).tags(["t"]).options(long()).await.unwrap();
                    }
                    let reservation = one.cache.reserve("key").await.unwrap();
                    let by = if here { &one } else { &two };
                    invalidate(by, what).await;
                    pass(Duration::from_millis(10)).await;
                    let set = one.cache.set("key", 7).tags(["t"]).options(long());
                    let receipt = set.reserved(reservation).await.unwrap();
                    let case = (what, here, there_before);
                    assert_eq!(receipt.l2(), WriteStatus::Superseded, "{case:?}");
                    assert!(!receipt.is_propagated(), "{case:?}");
                    pass(Duration::from_secs(2)).await;
                    for node in [&one, &two] {
                        let seen = node.cache.get::<i32>("key").await.unwrap().map(|v| *v);
                        assert_ne!(seen, Some(7), "{case:?}");
                    }
                }
            }
        }
    }
}

/// What was stored nowhere has reached nobody, and who insists on that is told why.
#[tokio::test(start_paused = true)]
async fn a_reserved_set_that_was_overtaken_is_not_propagated() {
    let (whole, apart) = (World::new().await, World::apart().await);
    let caches = [whole.alone(), whole.node().await.cache, apart.node().await.cache];
    for cache in caches {
        for what in ["key", "tag", "clear"] {
            for insists in [false, true] {
                let reservation = cache.reserve("key").await.unwrap();
                let _ = match what {
                    "key" => cache.remove("key").await.unwrap(),
                    "tag" => cache.remove_by_tag("t").await.unwrap(),
                    _ => cache.expire_all().await.unwrap(),
                };
                let set = cache.set("key", 7).tags(["t"]).options(long()).reserved(reservation);
                let set = if insists { set.require_propagation() } else { set };
                match set.await {
                    Ok(receipt) => {
                        assert!(!insists, "{what}: {receipt:?}");
                        assert_eq!(receipt.l2(), WriteStatus::Superseded, "{what}");
                        assert!(!receipt.is_propagated(), "{what}: {receipt:?}");
                    }
                    Err(error) => {
                        assert!(insists, "{error}");
                        assert_eq!(error.kind(), ErrorKind::NotPropagated);
                        let text = error.to_string();
                        assert!(text.contains("was overtaken"), "{text}");
                        assert!(!text.contains("holds on this node"), "{text}");
                    }
                }
                assert!(cache.get::<i32>("key").await.unwrap().is_none());
            }
        }
    }
}

async fn invalidate(node: &Node, what: &str) {
    let cache = &node.cache;
    let receipt = match what {
        "remove" => cache.remove("key").await,
        "expire" => cache.expire("key").await,
        "set" => cache.set("key", 8).options(long()).await,
        "tag" => cache.remove_by_tag("t").await,
        "soft tag" => cache.expire_by_tag("t").await,
        "clear" => cache.expire_all().await,
        _ => cache.remove_all().await,
    };
    receipt.expect("it holds");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_dropped_lets_the_others_load() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let reservation = one.cache.reserve("key").await.unwrap();
    assert_eq!(one.cache.health().in_flight, 1);
    drop(reservation);
    until("the load lock is given back", || world.store.keys().is_empty()).await;
    let began = tokio::time::Instant::now();
    assert_eq!(*fill(&two, 2).await, 2);
    assert!(began.elapsed() < Duration::from_millis(100), "nobody waited for a load lock");
    assert_eq!(one.cache.health().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_is_of_its_key_and_needs_l2_to_compare_with() {
    let world = World::new().await;
    let node = world.node().await;
    let reservation = node.cache.reserve("key").await.unwrap();
    let error = node.cache.set("other", 1).reserved(reservation).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.to_string().contains("\"key\""), "{error}");
    let (other, reservation) = (world.node().await, node.cache.reserve("key").await.unwrap());
    let error = other.cache.set("key", 1).reserved(reservation).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions, "it is of another cache");
    node.l2.down();
    let error = node.cache.reserve("key").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::L2);
    pass(Duration::from_secs(10)).await;
    assert_eq!(node.cache.health().in_flight, 0, "nothing is left behind");
}

/// What was stamped in an epoch that is over is hidden, so a token of it has nothing to wait for.
#[tokio::test(start_paused = true)]
async fn a_token_of_an_epoch_that_is_over_is_answered_at_once() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = fill(&two, 1).await;
    let token = one.cache.remove_by_tag("t").await.unwrap().token().unwrap();
    world.store.wipe();
    pass(Duration::from_secs(2)).await;
    let began = tokio::time::Instant::now();
    for node in [&one, &two] {
        node.cache.wait_for(token).await.unwrap();
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// The parts of a large removal have numbers of their own, and those of two ledgers have no later one.
#[tokio::test(start_paused = true)]
async fn a_token_covers_all_parts_though_the_ledger_is_lost_between_them() {
    for held in 0..3 {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = fill(&two, 1).await;
        let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
        for (at, gate) in gates.iter().enumerate() {
            one.l2.next(L2Op::Advance, Fate::Hold(gate.clone()));
            if at != held {
                gate.open();
            }
        }
        let (cache, tag_at) = (one.cache.clone(), held * 64);
        let tag = move |at| if at == tag_at { "t".to_owned() } else { format!("t{at}") };
        let removal = go(async move { cache.remove_by_tags((0..130).map(tag)).await.unwrap() });
        gates[held].reached().await;
        pass(Duration::from_millis(20)).await;
        two.bus.mute(true);
        world.store.evict_ledgers();
        gates[held].open();
        let receipt = removal.await.unwrap();
        if let Some(token) = receipt.token() {
            two.cache.wait_for(token).await.unwrap();
            let read = two.cache.get::<i32>("key").await.unwrap();
            assert!(read.is_none(), "part {held}, after the token: {read:?}");
        }
        assert!(
            receipt.token().is_none(),
            "part {held}: one of the numbers is of a ledger that is gone"
        );
        assert!(receipt.is_propagated());
    }
}
