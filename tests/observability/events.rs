//! Events of one node: each call reports what happened, in order.

use std::time::Duration;

use crinkle_core::{
    Cache, EagerRefresh, EntryOptions, Event, Events, FailSafe, MissReason, Settings, Source, ok,
};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, gated, go, options, pass};

/// Everything told so far, in one word each.
fn told(events: &mut Events) -> Vec<String> {
    std::iter::from_fn(|| events.try_next()).map(|event| word(&event)).collect()
}

fn word(event: &Event) -> String {
    let text = format!("{event:?}");
    let name: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
    match event {
        Event::Hit { stale: true, .. } => "StaleHit".to_owned(),
        Event::Set { filled: true, .. } => "Fill".to_owned(),
        _ => name,
    }
}

fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|word| *word == what).count()
}

#[tokio::test(start_paused = true)]
async fn a_script_of_calls_is_told_step_by_step() {
    let world = World::new().await;
    let cache = world.alone();
    let mut events = cache.events_with_l1_hits();
    let loads = Loads::new();

    assert!(cache.get::<u32>("foo").await.unwrap().is_none());
    assert!(cache.get::<u32>("bar").await.unwrap().is_none());
    assert_eq!(told(&mut events), ["Miss", "Miss"]);

    let _ = cache.set("foo", 1_u32).options(options()).await.unwrap();
    assert!(cache.get::<u32>("foo").await.unwrap().is_some());
    assert!(cache.peek::<u32>("foo").is_some());
    assert_eq!(told(&mut events), ["Set", "Hit", "Hit"]);

    pass(Duration::from_secs(11)).await;
    let failing = || cache.get_or_set("foo", loads.fail::<_, u32>()).options(options());
    assert!(failing().await.unwrap().meta().is_stale());
    assert_eq!(told(&mut events), ["Miss", "FactoryError", "FailSafe", "StaleHit"]);
    assert!(failing().await.unwrap().meta().is_stale());
    assert_eq!(told(&mut events), ["StaleHit"], "throttled");

    let _ = cache.remove("foo").await.unwrap();
    let _ = cache.expire("bar").await.unwrap();
    failing().await.unwrap_err();
    assert_eq!(told(&mut events), ["Remove", "Expire", "Miss", "FactoryError"]);

    cache.get_or_set("foo", loads.value(2_u32)).await.unwrap();
    cache.get_or_set("foo", loads.value(2_u32)).await.unwrap();
    assert_eq!(told(&mut events), ["Miss", "FactorySuccess", "Fill", "Hit"]);

    let _ = cache.remove_by_tags(["a", "b"]).await.unwrap();
    let _ = cache.expire_all().await.unwrap();
    assert_eq!(told(&mut events), ["RemoveByTag", "Clear"]);
}

#[tokio::test(start_paused = true)]
async fn only_subscribers_that_ask_receive_plain_hits() {
    let cache = World::new().await.alone();
    let _ = cache.set("key", 1_u32).await.unwrap();
    let (mut plain, mut all) = (cache.events(), cache.events_with_l1_hits());
    for _ in 0..3 {
        cache.get::<u32>("key").await.unwrap();
    }
    assert!(told(&mut plain).is_empty());
    assert_eq!(told(&mut all), ["Hit"; 3]);
    drop(all);
    cache.get::<u32>("key").await.unwrap();
    let mut again = cache.events_with_l1_hits();
    cache.get::<u32>("key").await.unwrap();
    assert_eq!(told(&mut again), ["Hit"]);
    assert_eq!(cache.stats().l1_hits, 5, "all are counted, with or without listeners");
}

#[tokio::test(start_paused = true)]
async fn a_miss_says_why() {
    let world = World::new().await;
    let node = world.node().await;
    let cache = &node.cache;
    let mut events = cache.events();
    let reason = |events: &mut Events| {
        std::iter::from_fn(|| events.try_next()).find_map(|event| match event {
            Event::Miss { reason, .. } => Some(reason),
            _ => None,
        })
    };
    let load = |n| cache.get_or_set("key", move |_| async move { ok(n) }).tags(["tag"]);

    load(1_u32).await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Absent));
    pass(Duration::from_secs(31)).await;
    cache.get::<u32>("key").await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Stale));
    load(2).duration(Duration::from_secs(5)).fail_safe(FailSafe::default()).await.unwrap();
    let _ = told(&mut events);
    pass(Duration::from_secs(6)).await;
    load(3).await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Stale));
    let _ = cache.remove_by_tag("tag").await.unwrap();
    cache.get::<u32>("key").await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Hidden));
    load(4).await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Hidden));
    cache.get_or_set("key", |_| async { ok("text".to_owned()) }).await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Unusable), "another type");
    node.l2.down();
    cache.get::<u32>("other").await.unwrap();
    assert_eq!(reason(&mut events), Some(MissReason::Unreachable));
    let stats = cache.stats();
    let parts = stats.misses_absent
        + stats.misses_stale
        + stats.misses_hidden
        + stats.misses_unusable
        + stats.misses_unreachable;
    assert_eq!(stats.misses, parts);
}

#[tokio::test(start_paused = true)]
async fn giving_up_on_a_factory_is_told_and_so_is_its_later_success() {
    let cache = World::new().await.alone();
    let _ = cache.set("key", 1_u32).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let mut events = cache.events();
    let gate = Gate::new();
    let slow = options().factory_soft_timeout(Duration::from_millis(100));
    let answer = cache.get_or_set("key", gated(&gate, 2_u32)).options(slow).await.unwrap();
    assert!(answer.meta().is_stale());
    assert_eq!(told(&mut events), ["Miss", "FactoryTimeout", "StaleHit"]);
    gate.open();
    pass(Duration::from_millis(10)).await;
    assert_eq!(told(&mut events), ["FactorySuccess", "Fill"]);
    assert_eq!(cache.stats().factory_timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_eager_refresh_is_told() {
    let cache = World::new().await.alone();
    let options =
        EntryOptions::new(Duration::from_secs(10)).eager_refresh(EagerRefresh::after(0.5));
    let _ = cache.set("key", 1_u32).options(options.clone()).await.unwrap();
    pass(Duration::from_secs(6)).await;
    let mut events = cache.events();
    cache.get_or_set("key", Loads::new().value(2_u32)).options(options).await.unwrap();
    pass(Duration::from_millis(1)).await;
    assert_eq!(told(&mut events), ["EagerRefresh", "FactorySuccess", "Fill"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_l1_tells_what_it_lets_go() {
    let cache = Cache::builder("small").capacity(10).build().unwrap();
    let mut events = cache.events();
    for n in 0..100_u32 {
        let _ = cache.set(format!("key:{n}"), n).await.unwrap();
    }
    let _ = cache.entry_count();
    let evicted = count(&told(&mut events), "Eviction");
    assert_eq!(evicted, 90);
    assert_eq!(cache.stats().evictions, 90);
    let _ = cache.remove_all().await.unwrap();
    let _ = cache.entry_count();
    assert_eq!(cache.stats().evictions, 90, "what is removed is not evicted");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_too_slow_is_told_how_much_it_lost_and_the_cache_does_not_wait() {
    let cache = World::new().await.alone();
    let mut slow = cache.events();
    for n in 0..5_000_u32 {
        let _ = cache.set("key", n).await.unwrap();
    }
    let Some(Event::Lagged(lost)) = slow.next().await else { panic!("it is told that it lags") };
    assert_eq!(lost, 5_000 - 1024);
    assert_eq!(told(&mut slow).len(), 1024, "and the newest are still there");
    assert_eq!(*cache.peek::<u32>("key").unwrap(), 4_999);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_cache() {
    let world = World::new().await;
    let node = world.node().await;
    let mut events = node.cache.events();
    let listener = go(async move { while events.next().await.is_some() {} });
    drop(node);
    listener.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listener_wakes_up_for_an_event() {
    let cache = World::new().await.alone();
    let mut events = cache.events();
    let listener = go(async move { events.next().await });
    pass(Duration::from_millis(1)).await;
    let _ = cache.remove("key").await.unwrap();
    assert!(matches!(listener.await.unwrap(), Some(Event::Remove { .. })));
}

#[tokio::test(start_paused = true)]
async fn redacted_keys_and_tags_are_in_no_event() {
    let settings = Settings::default().redact_keys(true).capacity(2);
    let world = World::new().await;
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let cache = &node.cache;
    let mut events = cache.events_with_l1_hits();
    let soon = EntryOptions::new(Duration::from_secs(1)).fail_safe(FailSafe::default());
    let loads = Loads::new();
    for n in 0..4 {
        let key = format!("secret:{n}");
        let load = cache.get_or_set(&key, loads.value(n)).tags(["secret-tag"]);
        load.options(soon.clone()).await.unwrap();
        cache.get::<i32>(&key).await.unwrap();
        pass(Duration::from_secs(2)).await;
        cache.get_or_set(&key, loads.fail::<_, i32>()).options(soon.clone()).await.unwrap();
        let _ = cache.set(&key, n).await.unwrap();
        let _ = cache.expire(&key).await.unwrap();
        let _ = cache.remove(&key).await.unwrap();
    }
    let _ = cache.remove_by_tag("secret-tag").await.unwrap();
    let mut seen = 0;
    while let Some(event) = events.try_next() {
        seen += 1;
        assert!(!format!("{event:?}").contains("secret"), "{event:?}");
    }
    assert!(seen > 30, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn an_event_has_its_key_and_where_the_answer_came_from() {
    let world = World::new().await;
    let (writer, reader) = (world.node().await.cache, world.node().await.cache);
    let _ = writer.set("key", 1_u32).await.unwrap();
    let mut events = reader.events();
    reader.get::<u32>("key").await.unwrap();
    let hit = std::iter::from_fn(|| events.try_next()).find_map(|event| match event {
        Event::Hit { key, source, stale } => Some((key, source, stale)),
        _ => None,
    });
    assert_eq!(hit, Some((Some("key".into()), Source::L2, false)));
}
