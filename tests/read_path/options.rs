//! What a factory may decide, and what options are refused.

use std::time::Duration;

use crinkle_core::l2::{Json, MemoryL2};
use crinkle_core::{
    Cache, EagerRefresh, EntryOptions, ErrorKind, FactoryContext, FailSafe, Settings,
};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, TestError, World, kind_of, options, pass};

#[tokio::test(start_paused = true)]
async fn a_factory_decides_tags_and_life() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.add_tag("added");
        ctx.set_duration(Duration::from_secs(100));
        crinkle_core::ok(1)
    };
    let read = one.cache.get_or_set("key", factory).tags(["given"]).await.unwrap();
    assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["given", "added"]);
    pass(Duration::from_secs(60)).await;
    assert!(two.cache.get::<i32>("key").await.unwrap().is_some(), "longer than the default");
    let _ = two.cache.remove_by_tag("added").await.unwrap();
    pass(Duration::from_millis(10)).await;
    for node in [&one, &two] {
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_tags(["only"]);
        ctx.set_options(EntryOptions::new(Duration::from_secs(1)));
        crinkle_core::ok(2)
    };
    let read = one.cache.get_or_set("key", factory).tags(["given"]).await.unwrap();
    assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["only"]);
    pass(Duration::from_millis(1_001)).await;
    assert!(one.cache.get::<i32>("key").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_factory_may_keep_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    let loads = Loads::new();
    let read = node.cache.get_or_set("key", |ctx| {
        ctx.skip_store();
        async { crinkle_core::ok(1) }
    });
    let read = read.await.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, false));
    assert!(node.cache.peek::<i32>("key").is_none());
    pass(Duration::from_millis(10)).await;
    assert!(world.store.keys().is_empty(), "the load lock is given back");
    assert_eq!(node.l2.count(L2Op::Put), 0);
    assert_eq!(*node.cache.get_or_set("key", loads.value(2)).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn options_of_a_factory_are_checked_and_the_key_is_free_again() {
    let world = World::new().await;
    let node = world.node().await;
    let read = node.cache.get_or_set("key", |ctx| {
        ctx.set_options(ctx.options().weight(0));
        async { crinkle_core::ok(1) }
    });
    let error = read.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.to_string().contains("weight"), "{error}");
    assert_eq!(*node.cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_life_of_nothing_answers_and_keeps_nothing() {
    for life in [Duration::ZERO, Duration::from_micros(999)] {
        let world = World::new().await;
        let node = world.node().await;
        let loads = Loads::new();
        for n in 1..=2 {
            let load = loads.value(n);
            let read = node.cache.get_or_set("key", move |ctx: FactoryContext<usize>| {
                ctx.set_duration(life);
                load(ctx)
            });
            assert_eq!(*read.await.unwrap(), n);
            assert!(node.cache.peek::<usize>("key").is_none());
        }
        assert_eq!((loads.count(), node.l2.count(L2Op::Put)), (2, 0));
        let kept = node.cache.get_or_set("key", Loads::new().value(3_usize)).await.unwrap();
        assert_eq!(*kept, 3);
        assert!(node.cache.peek::<usize>("key").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_throttle_each_call_asks_the_source_again() {
    let world = World::new().await;
    let node = world.node().await;
    let hour = FailSafe::for_up_to(Duration::from_secs(3600)).throttle(Duration::ZERO);
    node.cache.set("key", 1_usize).fail_safe(hour).await.unwrap();
    node.cache.expire("key").await.unwrap();
    let loads = Loads::new();
    for n in 1..=3 {
        let request = node.cache.get_or_set("key", loads.fail::<_, usize>()).fail_safe(hour);
        let read = request.await.unwrap();
        assert_eq!((*read, read.meta().is_stale(), loads.count()), (1, true, n));
    }
}

#[tokio::test(start_paused = true)]
async fn options_out_of_range_are_refused_by_name_before_anything_runs() {
    let world = World::new().await;
    let node = world.node().await;
    let zero = Duration::ZERO;
    let plain = EntryOptions::default;
    let cases = [
        ("duration", plain().duration(zero)),
        ("factory_deadline", plain().factory_deadline(zero)),
        ("l2_soft_timeout", plain().l2_soft_timeout(zero)),
        ("l2_hard_timeout", plain().l2_hard_timeout(zero)),
        ("l2_hard_timeout", plain().l2_hard_timeout(Duration::from_secs(601))),
        ("factory_soft_timeout", plain().factory_soft_timeout(zero)),
        ("factory_hard_timeout", plain().factory_hard_timeout(zero)),
        ("wait_timeout", plain().wait_timeout(zero)),
        ("fail_safe.max_duration", plain().fail_safe(FailSafe::for_up_to(zero))),
        ("weight", plain().weight(0)),
    ];
    let loads = Loads::new();
    node.l2.forget();
    for (name, options) in cases {
        let errors = [
            node.cache.get_or_set("key", loads.value(1)).options(options.clone()).await.map(drop),
            node.cache.get::<i32>("key").options(options.clone()).await.map(drop),
            node.cache.set("key", 1).options(options.clone()).await.map(drop),
            node.cache.remove("key").options(options.clone()).await.map(drop),
            node.cache.expire("key").options(options.clone()).await.map(drop),
            node.cache.remove_by_tag("tag").options(options.clone()).await.map(drop),
            Cache::builder("shop").default_options(options).build().map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOptions);
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    }
    assert_eq!((loads.count(), node.l2.calls().len()), (0, 0));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let (zero, day) = (Duration::ZERO, Duration::from_secs(86_400));
    let cases = [
        ("capacity", Settings::default().capacity(0)),
        ("max_tags", Settings::default().max_tags(0)),
        ("max_tag_len", Settings::default().max_tag_len(70_000)),
        ("max_value_bytes", Settings::default().max_value_bytes(0)),
        ("breaker_failures", Settings::default().breaker_failures(0)),
        ("poll", Settings::default().poll(zero)),
        ("coherence_ttl", Settings::default().coherence_ttl(Duration::from_secs(2))),
        ("load_lock_ttl", Settings::default().load_lock_ttl(zero)),
        ("max_lifetime", Settings::default().max_lifetime(zero)),
        ("max_lifetime", Settings::default().max_lifetime(day * 1000)),
    ];
    for (name, settings) in cases {
        let error = Cache::builder("shop").settings(settings).build().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[tokio::test]
async fn contradictions_are_refused_by_name() {
    let bus = crinkle_core::backplane::MemoryBackplane::new();
    let error = Cache::builder("shop").backplane(bus).build().map(drop).unwrap_err();
    assert!(error.to_string().contains("backplane without an L2"), "{error}");
    let slow = EntryOptions::default().l2_hard_timeout(Duration::from_secs(60));
    let builder = Cache::builder("shop").default_options(slow);
    let error = builder.l2(MemoryL2::new()).build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.to_string().contains("l2_hard_timeout"), "{error}");
}

#[test]
fn an_l2_outside_a_runtime_is_refused_and_a_cache_without_one_is_built() {
    let store = MemoryL2::new();
    let error = Cache::builder("shop").l2(store).build().map(drop).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    assert!(Cache::builder("shop").build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_error_names_cache_and_key_unless_keys_are_redacted() {
    let world = World::new().await;
    for redact in [false, true] {
        let settings = Settings::default().redact_keys(redact);
        let node = world.node_with(|builder| builder.settings(settings)).await;
        let read = node.cache.get_or_set("secret", Loads::new().fail::<_, i32>());
        let error = read.options(options()).await.unwrap_err();
        assert_eq!(error.cache(), "shop");
        assert_eq!(error.key(), (!redact).then_some("secret"));
        assert_eq!(format!("{error} {error:?}").contains("secret"), !redact);
        assert_eq!(error.factory_error::<TestError>(), Some(&TestError::new()));
        let again: Result<crinkle_core::Cached<i32>, _> = Err(error.clone());
        assert_eq!(kind_of(again), ErrorKind::Factory);
    }
}

/// However long a time is, it is cut to what fits, waited for, or refused by name.
#[tokio::test(start_paused = true)]
async fn times_without_end_are_no_panic() {
    let (max, plain) = (Duration::MAX, EntryOptions::default);
    let endless = [
        plain().duration(max),
        plain().l1_duration(max),
        plain().l2_duration(max),
        plain().jitter(max),
        plain().sliding(true).duration(max),
        plain().fail_safe(FailSafe::for_up_to(max).throttle(max)),
        plain().eager_refresh(EagerRefresh::probabilistic(1000.0)).duration(max),
        plain().factory_soft_timeout(max).factory_hard_timeout(max),
        plain().factory_deadline(max),
        plain().l2_soft_timeout(max).l2_hard_timeout(Duration::from_secs(600)),
        plain().wait_timeout(max),
        plain().load_lock_wait(max),
    ];
    let world = World::new().await;
    let node = world.node().await;
    for options in endless {
        let of_calls = (node.cache.clone(), options.clone());
        let alone = Cache::builder("shop").clock(world.clock).default_options(options.clone());
        let shared = Cache::builder("shop").clock(world.clock).default_options(options.clone());
        let mut caches = vec![of_calls, (alone.build().unwrap(), options.clone())];
        match shared.l2(world.store.clone()).backplane(world.bus.clone()).build() {
            Ok(cache) => caches.push((cache, options.clone())),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidOptions),
        }
        for (cache, options) in caches {
            let calls = async {
                cache.ready().await.unwrap();
                let load = Loads::new().fail::<_, i32>();
                let read = cache.get_or_set("key", load).options(options.clone());
                let _ = read.fail_safe_default(1).await.unwrap();
                let _ = cache.set("key", 1).options(options.clone()).await.unwrap();
                let load = Loads::new().value(2);
                let read = cache.get_or_set("key", load).options(options.clone().skip_l1(true));
                let _ = read.await.unwrap();
                let _ = cache.expire("key").options(options.clone()).await.unwrap();
                let read = cache.get_or_set("key", Loads::new().value(3)).options(options.clone());
                let _ = read.await.unwrap();
                let _ = cache.remove("key").options(options.clone()).await.unwrap();
                let _ = cache.expire_all().options(options.clone()).await.unwrap();
            };
            tokio::time::timeout(Duration::from_secs(60), calls).await.expect("no panic, no hang");
        }
    }
}

#[tokio::test]
async fn a_codec_chosen_after_the_l2_is_refused_and_not_an_l2_less() {
    let builder = Cache::builder("shop").l2(MemoryL2::new()).codec(Json);
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert!(error.to_string().contains("call it before"), "{error}");
    let builder = Cache::builder("shop").l2(MemoryL2::new()).codec(Json).l2(MemoryL2::new());
    assert!(builder.build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_factory_changes_one_option_and_keeps_the_others() {
    let world = World::new().await;
    let node = world.node().await;
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_options(ctx.options().weight(7));
        crinkle_core::ok(1)
    };
    let _ = node.cache.get_or_set("key", factory).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let stale = node.cache.get::<i32>("key").allow_stale().await.unwrap();
    assert!(stale.is_some_and(|cached| cached.meta().is_stale()), "fail-safe is still on");
}

#[tokio::test]
async fn tags_under_a_condition_are_an_option() {
    let cache = Cache::builder("shop").build().unwrap();
    let load = |_| async { crinkle_core::ok(1) };
    for (sale, expected) in [(true, vec!["sale", "shop"]), (false, vec![])] {
        let request = cache.get_or_set("key", load);
        let read = request.tags(sale.then(|| vec!["sale".to_owned(), "shop".to_owned()])).await;
        assert!(read.unwrap().meta().tags().eq(expected.iter().copied()));
        cache.set("key", 1).tags(sale.then_some(["sale", "shop"])).await.unwrap();
        assert!(cache.get::<i32>("key").await.unwrap().unwrap().meta().tags().eq(expected));
        cache.remove("key").await.unwrap();
    }
    let names = [String::from("a"), String::from("b")];
    let read = cache.get_or_set("key", load).tags(&names).await.unwrap();
    assert!(read.meta().tags().eq(["a", "b"]));
}
