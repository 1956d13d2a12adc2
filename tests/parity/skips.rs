//! Levels left out of one call: what is read where, what is written where, and which node learns of it.

use crinkle_core::{EntryOptions, FactoryContext, Settings, Source, WriteStatus, ok};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, Node, World, long, options, pass};

use crate::{SHORT, any, fresh, load_or, put, secs};

/// Two nodes, the second of which still holds 1 while L2 holds 2.
async fn behind(world: &World) -> [Node; 2] {
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    two.bus.mute(true);
    put(&one.cache, "key", 2, &[]).await;
    pass(SHORT).await;
    assert_eq!(two.cache.peek::<i32>("key").as_deref(), Some(&1));
    [one, two]
}

#[tokio::test(start_paused = true)]
async fn a_read_that_skips_l1_answers_from_l2() {
    for load in [false, true] {
        let world = World::new().await;
        let [_one, two] = behind(&world).await;
        let read = match load {
            false => two.cache.get::<i32>("key").skip_l1_read(true).await.unwrap().unwrap(),
            true => {
                let request = two.cache.get_or_set("key", Loads::new().value(3));
                request.skip_l1_read(true).await.unwrap()
            }
        };
        assert_eq!((*read, read.meta().source()), (2, Source::L2));
    }
}

#[tokio::test(start_paused = true)]
async fn without_l2_a_read_that_skips_l1_is_a_miss() {
    let world = World::new().await;
    let cache = world.alone();
    put(&cache, "key", 1, &[]).await;
    assert!(cache.get::<i32>("key").skip_l1_read(true).await.unwrap().is_none());
    let loads = Loads::new();
    let read = cache.get_or_set("key", loads.value(2)).options(long()).skip_l1_read(true);
    assert_eq!((*read.await.unwrap(), loads.count()), (2, 1));
    assert_eq!(fresh(&cache, "key").await, Some(2), "what was loaded is stored");
}

/// Nothing is kept here, and an older copy does not stay in its place.
#[tokio::test(start_paused = true)]
async fn a_write_that_skips_l1_goes_to_l2_only() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    let _ = one.cache.set("key", 2).options(long().skip_l1_write(true)).await.unwrap();
    assert!(one.cache.peek::<i32>("key").is_none());
    assert_eq!(fresh(&two.cache, "key").await, Some(2));
    let loaded = one.cache.get_or_set("loaded", Loads::new().value(3));
    assert_eq!(*loaded.options(long().skip_l1_write(true)).await.unwrap(), 3);
    assert!(one.cache.peek::<i32>("loaded").is_none());
    assert_eq!(load_or(&two.cache, "loaded", 4, &[]).await, (3, false));
}

#[tokio::test(start_paused = true)]
async fn a_read_from_l2_that_skips_l1_keeps_no_copy() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    for _ in 0..2 {
        let read = two.cache.get::<i32>("key").skip_l1_write(true).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().source()), (1, Source::L2));
        let read = two.cache.get_or_set("key", Loads::new().value(2)).skip_l1_write(true);
        assert_eq!(read.await.unwrap().meta().source(), Source::L2);
    }
    assert_eq!(two.cache.entry_count(), 0);
}

/// A cache of L2 alone: every call asks there, and the factory runs once for all nodes.
#[tokio::test(start_paused = true)]
async fn a_cache_whose_default_is_to_skip_l1_lives_in_l2() {
    let world = World::new().await;
    let shared =
        |builder: crinkle_core::CacheBuilder| builder.default_options(long().skip_l1(true));
    let (one, two) = (world.node_with(shared).await, world.node_with(shared).await);
    let loads = Loads::new();
    for node in [&one, &two, &one, &two] {
        let read = node.cache.get_or_set("key", loads.value(1)).await.unwrap();
        assert_eq!(*read, 1);
        assert!(node.cache.get::<i32>("key").await.unwrap().is_some());
    }
    assert_eq!(loads.count(), 1);
    assert_eq!((one.cache.entry_count(), two.cache.entry_count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_skips_l2_finds_what_is_here_or_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    two.l2.forget();
    assert!(two.cache.get::<i32>("key").skip_l2_read(true).await.unwrap().is_none());
    assert_eq!(two.l2.count(L2Op::Look) + two.l2.count(L2Op::Read), 0, "it is not touched");
    let here = one.cache.get::<i32>("key").skip_l2_read(true).await.unwrap();
    assert!(here.is_some());
}

/// The record's value is not used, its version is: what is loaded replaces exactly that.
#[tokio::test(start_paused = true)]
async fn a_load_that_skips_reading_l2_replaces_the_record() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(2)).options(long()).skip_l2_read(true);
    assert_eq!((*read.await.unwrap(), loads.count()), (2, 1));
    pass(SHORT).await;
    for node in [&one, &two, &world.node().await] {
        assert_eq!(fresh(&node.cache, "key").await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_skips_l2_is_this_nodes_own() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let own = long().skip_l2_write(true);
    let receipt = one.cache.set("set", 1).options(own.clone()).await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Skipped, WriteStatus::Skipped));
    one.cache.get_or_set("loaded", Loads::new().value(1)).options(own).await.unwrap();
    assert!(world.store.keys().is_empty(), "neither a record nor a load lock");
    pass(secs(100)).await;
    for key in ["set", "loaded"] {
        assert_eq!(fresh(&one.cache, key).await, Some(1), "{key}");
        assert_eq!(any(&two.cache, key).await, None);
    }
}

/// Upstream's 1/2 and 3/4: nodes that leave L2 out go their own ways.
#[tokio::test(start_paused = true)]
async fn nodes_that_skip_l2_do_not_agree_and_do_not_ask() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for node in [&one, &two] {
        node.l2.forget();
    }
    let own = long().skip_l2(true);
    for (node, value) in [(&one, 1), (&two, 2)] {
        let read = node.cache.get_or_set("key", Loads::new().value(value)).options(own.clone());
        assert_eq!(*read.await.unwrap(), value);
        let _ = node.cache.set("other", value).options(own.clone()).await.unwrap();
    }
    for (node, value) in [(&one, 1), (&two, 2)] {
        let read = node.cache.get_or_set("key", Loads::new().value(9)).options(own.clone());
        assert_eq!(*read.await.unwrap(), value);
        let read = node.cache.get::<i32>("other").options(own.clone()).await.unwrap();
        assert_eq!(read.as_deref(), Some(&value));
        assert!(node.l2.calls().iter().all(|call| call.op == L2Op::Sync));
    }
}

/// Removals may be kept at home as well: there they hold, whatever L2 has from before.
#[tokio::test(start_paused = true)]
async fn a_removal_that_skips_l2_is_this_nodes_own() {
    for world in [World::new().await, World::apart().await] {
        for how in ["remove", "expire", "many"] {
            // With a copy in L1, and without.
            for copy in [true, false] {
                let (one, two) = (world.node().await, world.node().await);
                put(&two.cache, "key", 1, &[]).await;
                if copy {
                    assert_eq!(fresh(&one.cache, "key").await, Some(1));
                }
                let cache = &one.cache;
                let receipt = match how {
                    "remove" => cache.remove("key").skip_l2_write(true).await,
                    "expire" => cache.expire("key").skip_l2_write(true).await,
                    _ => cache.remove_many(["key"]).skip_l2_write(true).await,
                };
                let receipt = receipt.unwrap();
                assert_eq!(
                    (receipt.l2(), receipt.backplane()),
                    (WriteStatus::Skipped, WriteStatus::Skipped)
                );
                assert!(cache.peek::<i32>("key").is_none());
                for _ in 0..3 {
                    pass(SHORT).await;
                    let case = format!("{how}, copy {copy}");
                    assert_eq!(fresh::<i32>(cache, "key").await, None, "{case}");
                    assert_eq!(any(cache, "key").await, (how == "expire").then_some(1), "{case}");
                    let many = cache.get_many::<i32>(["key"]).await.unwrap();
                    assert!(many[0].is_none(), "{case}");
                    assert!(cache.get::<i32>("key").strict().await.unwrap().is_none(), "{case}");
                    assert!(!cache.contains("key").await.unwrap(), "{case}");
                }
                assert_eq!(fresh(&two.cache, "key").await, Some(1), "the others keep it");
                assert_eq!(fresh(&world.node().await.cache, "key").await, Some(1), "as L2 does");
            }
        }
    }
}

/// Upstream's `CanHandleExpireMidFlight`: set 1, expire here alone, then load 2. L2's old value is ignored.
#[tokio::test(start_paused = true)]
async fn after_a_removal_that_skips_l2_a_load_runs_its_factory_and_replaces_the_record() {
    for how in ["remove", "expire", "many"] {
        for batch in [false, true] {
            let world = World::new().await;
            let (one, two) = (world.node().await, world.node().await);
            put(&one.cache, "key", 1, &[]).await;
            assert_eq!(fresh(&two.cache, "key").await, Some(1));
            let cache = &one.cache;
            let _ = match how {
                "remove" => cache.remove("key").skip_l2_write(true).await,
                "expire" => cache.expire("key").options(long().skip_l2(true)).await,
                _ => cache.remove_many(["key"]).skip_l2_write(true).await,
            };
            let loads = Loads::new();
            let read = match batch {
                false => *cache.get_or_set("key", loads.value(2)).options(long()).await.unwrap(),
                true => {
                    let load =
                        |keys: Vec<String>| async move { ok(keys.into_iter().map(|k| (k, 2))) };
                    *cache.get_or_set_many(["key"], load).options(long()).await.unwrap()[0]
                }
            };
            assert_eq!(read, 2, "{how}, batch {batch}");
            pass(SHORT).await;
            for node in [&one, &two, &world.node().await] {
                assert_eq!(fresh(&node.cache, "key").await, Some(2), "{how}, batch {batch}");
            }
        }
    }
}

/// It ends with what L2 holds next, no matter which node stored that.
#[tokio::test(start_paused = true)]
async fn a_removal_that_skips_l2_holds_until_l2_holds_something_newer() {
    for [mute, copy, looks] in (0..8).map(|case| [1, 2, 4].map(|bit| case & bit == 0)) {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        put(&two.cache, "key", 1, &[]).await;
        if copy {
            assert_eq!(fresh(&one.cache, "key").await, Some(1));
        }
        let _ = one.cache.remove("key").skip_l2_write(true).await.unwrap();
        one.bus.mute(mute);
        if looks {
            assert_eq!(fresh::<i32>(&one.cache, "key").await, None);
            // What is expired elsewhere is not newer.
            let _ = two.cache.expire("key").await.unwrap();
            pass(SHORT).await;
            assert_eq!(any(&one.cache, "key").await, None);
        }
        pass(SHORT).await;
        put(&two.cache, "key", 2, &[]).await;
        pass(SHORT).await;
        assert_eq!(fresh(&one.cache, "key").await, Some(2), "{mute} {copy} {looks}");
    }
}

/// A node whose copy is behind removes what it has not seen, too: L2 held that when it was called.
#[tokio::test(start_paused = true)]
async fn a_removal_that_skips_l2_is_of_what_l2_holds_not_of_the_copy() {
    let world = World::new().await;
    let [_two, one] = behind(&world).await;
    let _ = one.cache.remove("key").skip_l2_write(true).await.unwrap();
    pass(SHORT).await;
    assert_eq!(any(&one.cache, "key").await, None);
    assert_eq!(load_or(&one.cache, "key", 3, &[]).await, (3, true));
}

/// The throttle of fail-safe holds for what was expired here alone.
#[tokio::test(start_paused = true)]
async fn a_failed_load_after_an_expire_that_skips_l2_is_left_alone_for_the_throttle() {
    let world = World::new().await;
    let (one, loads) = (world.node().await, Loads::new());
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    let _ = one.cache.expire("key").skip_l2_write(true).await.unwrap();
    for _ in 0..3 {
        let read = one.cache.get_or_set("key", loads.fail::<_, i32>()).options(options()).await;
        assert!(read.is_ok_and(|read| *read == 1 && read.meta().is_stale()));
        assert!(one.cache.get::<i32>("key").await.unwrap().is_none());
    }
    assert_eq!(loads.count(), 1);
}

/// More than are remembered one by one: this node takes nothing older from L2 any more.
#[tokio::test(start_paused = true)]
async fn removals_that_skip_l2_are_bounded_and_all_hold() {
    let world = World::new().await;
    let settings = Settings::default().recovery_keys(10);
    let one = world.node_with(|builder| builder.settings(settings)).await;
    let two = world.node().await;
    let keys: Vec<_> = (0..30).map(|number| number.to_string()).collect();
    let _ = two.cache.set_many(keys.iter().map(|key| (key, 1))).options(long()).await.unwrap();
    pass(secs(1)).await;
    for key in &keys {
        let _ = one.cache.remove(key).skip_l2_write(true).await.unwrap();
    }
    pass(secs(1)).await;
    for key in &keys {
        assert_eq!(any(&one.cache, key).await, None);
        assert_eq!(fresh(&two.cache, key).await, Some(1), "nobody else is concerned");
    }
    assert_eq!(load_or(&one.cache, "0", 2, &[]).await, (2, true));
    put(&two.cache, "1", 2, &[]).await;
    pass(SHORT).await;
    for key in ["0", "1"] {
        assert_eq!(fresh(&one.cache, key).await, Some(2));
    }
}

/// Tags and clears are numbered in the ledger, whatever a call would leave out.
#[tokio::test(start_paused = true)]
async fn a_removal_by_tag_takes_no_notice_of_what_is_skipped() {
    let skip = long().skip_l2(true).skip_backplane(true);
    for what in ["tag", "soft tag", "clear", "hard clear"] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        put(&one.cache, "key", 1, &["tag"]).await;
        assert_eq!(fresh(&two.cache, "key").await, Some(1));
        let removal = match what {
            "tag" => one.cache.remove_by_tag("tag"),
            "soft tag" => one.cache.expire_by_tag("tag"),
            "clear" => one.cache.expire_all(),
            _ => one.cache.remove_all(),
        };
        assert_eq!(removal.options(skip.clone()).await.unwrap().l2(), WriteStatus::Done, "{what}");
        pass(SHORT).await;
        for node in [&one, &two, &world.node().await] {
            assert_eq!(fresh::<i32>(&node.cache, "key").await, None, "{what}");
        }
    }
}

/// Upstream's 1/1, then 3 on node 1, then 4 on node 2, which does not look.
#[tokio::test(start_paused = true)]
async fn a_stale_copy_may_spare_the_look_at_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let skip = options().skip_l2_read_when_stale(true);
    let load = async |node: &Node, value: i32| {
        let read = node.cache.get_or_set("key", Loads::new().value(value)).options(skip.clone());
        *read.await.unwrap()
    };
    assert_eq!(load(&one, 1).await, 1);
    assert_eq!(load(&two, 2).await, 1, "nothing stale here: L2 is used");
    pass(secs(11)).await;
    two.bus.hold(true);
    assert_eq!(load(&one, 3).await, 3);
    assert_eq!(load(&two, 4).await, 4);
    let third = world.node().await;
    assert_eq!(fresh(&third.cache, "key").await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_get_with_a_stale_copy_may_spare_the_look_at_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    two.bus.hold(true);
    put(&one.cache, "key", 2, &[]).await;
    two.l2.forget();
    let read = two.cache.get::<i32>("key").skip_l2_read_when_stale(true).await.unwrap();
    assert!(read.is_none());
    assert_eq!(two.l2.count(L2Op::Look), 0);
    assert_eq!(fresh(&two.cache, "key").await, Some(2));
}

/// The others keep what they have; a node that looks into L2 finds the new value.
#[tokio::test(start_paused = true)]
async fn a_write_that_skips_the_backplane_is_not_heard_of() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        for key in ["set", "removed"] {
            put(&one.cache, key, 1, &[]).await;
            assert_eq!(fresh(&two.cache, key).await, Some(1));
        }
        let quiet = long().skip_backplane(true);
        let receipt = one.cache.set("set", 2).options(quiet).await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Skipped));
        let _ = one.cache.remove("removed").skip_backplane(true).await.unwrap();
        pass(secs(10)).await;
        for key in ["set", "removed"] {
            assert_eq!(two.cache.peek::<i32>(key).as_deref(), Some(&1));
        }
        let third = world.node().await;
        assert_eq!(fresh(&third.cache, "set").await, Some(2));
        assert_eq!(any(&third.cache, "removed").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_skips_the_backplane_is_not_heard_of() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        pass(SHORT).await;
        two.bus.hold(true);
        let quiet = long().skip_backplane(true);
        one.cache.get_or_set("key", Loads::new().value(1)).options(quiet).await.unwrap();
        pass(SHORT).await;
        assert_eq!(two.bus.held(), 0);
        assert_eq!(fresh(&two.cache, "key").await, Some(1));
    }
}

/// Skips that a factory sets are for the entry it makes.
#[tokio::test(start_paused = true)]
async fn a_factory_may_keep_its_value_out_of_a_level() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let choose = |options: EntryOptions| {
        move |ctx: FactoryContext<i32>| async move {
            ctx.set_options(options);
            ok(1)
        }
    };
    one.cache.get_or_set("l1 only", choose(long().skip_l2_write(true))).await.unwrap();
    one.cache.get_or_set("l2 only", choose(long().skip_l1_write(true))).await.unwrap();
    pass(SHORT).await;
    assert_eq!(world.store.keys(), [World::record("l2 only")], "and no load lock is left");
    let here = ["l1 only", "l2 only"].map(|key| one.cache.peek::<i32>(key).is_some());
    assert_eq!(here, [true, false]);
    assert_eq!(fresh(&two.cache, "l2 only").await, Some(1));
    assert_eq!(any(&two.cache, "l1 only").await, None);
}

/// A life chosen in the factory of a call that skips L1 is the life of the record.
#[tokio::test(start_paused = true)]
async fn an_adaptive_life_works_without_l1() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_duration(secs(5));
        ok(1)
    };
    one.cache.get_or_set("key", factory).options(long().skip_l1(true)).await.unwrap();
    pass(secs(4)).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    pass(secs(1)).await;
    assert_eq!(fresh::<i32>(&two.cache, "key").await, None);
}
