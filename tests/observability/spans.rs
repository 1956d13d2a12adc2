//! Tracing spans of calls, of L2, of factories and of background work.

use std::time::Duration;

use crinkle_core::{BoxError, EntryOptions, FailSafe, Settings, ok};
use crinkle_tests::{Loads, World, options, pass};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::capture::{Capture, Seen};

fn names(spans: &[Seen]) -> Vec<(&'static str, Option<&'static str>)> {
    let foreground = |span: &&Seen| !matches!(span.name, "poll" | "receive");
    let calls = spans.iter().filter(foreground).filter(|span| span.parent != Some("poll"));
    calls.map(|span| (span.name, span.parent)).collect()
}

fn field<'a>(spans: &'a [Seen], name: &str, field: &str) -> Option<&'a str> {
    let span = spans.iter().find(|span| span.name == name).expect("a span of this name");
    span.fields.get(field).map(String::as_str)
}

#[tokio::test(start_paused = true)]
async fn a_load_is_one_span_with_children_for_l2_and_the_factory() {
    let world = World::new().await;
    let node = world.node().await;
    let (capture, _guard) = Capture::begin();
    let user = tracing::info_span!("request");
    let load = node.cache.get_or_set("key", |_| async {
        tracing::info!("in the factory");
        ok(1)
    });
    async { load.await }.instrument(user).await.unwrap();
    let spans = capture.spans();
    let expected = [
        ("get_or_set", Some("request")),
        ("l2", Some("get_or_set")),
        ("factory", Some("get_or_set")),
        ("l2", Some("get_or_set")),
    ];
    assert_eq!(names(&spans), expected);
    assert_eq!(field(&spans, "get_or_set", "cache"), Some("shop"));
    assert_eq!(field(&spans, "get_or_set", "key"), Some("key"));
    assert_eq!(field(&spans, "get_or_set", "source"), Some("Factory"));
    assert_eq!(field(&spans, "get_or_set", "stale"), Some("false"));
    assert_eq!(field(&spans, "l2", "op"), Some("read"));
    assert!(capture.lines().iter().any(|line| line.contains("in the factory")));
}

#[tokio::test(start_paused = true)]
async fn a_plain_hit_has_no_span_unless_the_settings_say_so() {
    let world = World::new().await;
    for on in [false, true] {
        let settings = Settings::default().trace_hits(on);
        let node = world.node_with(|builder| builder.settings(settings)).await;
        let _ = node.cache.set("key", 1).await.unwrap();
        let (capture, _guard) = Capture::begin();
        for _ in 0..70 {
            node.cache.get::<i32>("key").await.unwrap();
        }
        let hits = capture.spans().iter().filter(|span| span.name == "hit").count();
        assert_eq!(hits, if on { 70 } else { 0 });
        assert!(capture.spans().iter().all(|span| span.name == "hit"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_has_a_span_of_its_name() {
    let world = World::apart().await;
    let cache = world.node().await.cache;
    let (capture, _guard) = Capture::begin();
    let _ = cache.set("a", 1).await.unwrap();
    let _ = cache.expire("a").await.unwrap();
    let _ = cache.remove("a").await.unwrap();
    cache.get::<i32>("a").await.unwrap();
    cache.contains("a").await.unwrap();
    let _ = cache.remove_by_tags(["x", "y"]).await.unwrap();
    let _ = cache.expire_all().await.unwrap();
    let _ = cache.set_many([("a", 1), ("b", 2)]).await.unwrap();
    cache.get_many::<i32>(&["a", "c"]).await.unwrap();
    let _ = cache.remove_many(["a", "b"]).await.unwrap();
    let load =
        |keys: Vec<String>| async { ok(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>()) };
    cache.get_or_set_many(&["d", "e"], load).await.unwrap();
    let spans = capture.spans();
    let calls = |span: &&Seen| span.parent.is_none() && !matches!(span.name, "poll" | "publish");
    let calls: Vec<_> = spans.iter().filter(calls).map(|span| span.name).collect();
    let expected = [
        "set",
        "expire",
        "remove",
        "get",
        "contains",
        "remove_by_tag",
        "clear",
        "set_many",
        "get_many",
        "remove_many",
        "get_or_set_many",
    ];
    assert_eq!(
        calls.iter().filter(|name| **name != "receive").collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert_eq!(field(&spans, "remove_by_tag", "count"), Some("2"));
    assert_eq!(field(&spans, "remove", "l2"), Some("Done"));
    assert!(spans.iter().any(|span| span.name == "publish" && span.parent == Some("set")));
}

#[tokio::test(start_paused = true)]
async fn background_work_has_roots_of_its_own() {
    let world = World::new().await;
    let (one, two) = (world.node().await.cache, world.node().await.cache);
    let eager = EntryOptions::new(Duration::from_secs(10))
        .eager_refresh(crinkle_core::EagerRefresh::after(0.5));
    one.get_or_set("key", Loads::new().value(1)).options(eager.clone()).await.unwrap();
    pass(Duration::from_secs(6)).await;
    let (capture, _guard) = Capture::begin();
    let user = tracing::info_span!("request");
    let load = one.get_or_set("key", Loads::new().value(2)).options(eager);
    async { load.await }.instrument(user).await.unwrap();
    pass(Duration::from_secs(2)).await;
    let spans = capture.spans();
    for root in ["refresh", "poll", "receive"] {
        let found: Vec<_> = spans.iter().filter(|span| span.name == root).collect();
        assert!(!found.is_empty(), "{root}");
        assert!(found.iter().all(|span| span.parent.is_none()), "{root}");
    }
    let factory = spans.iter().find(|span| span.name == "factory").expect("it ran");
    assert_eq!(factory.parent, Some("refresh"));
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_in_the_span_of_its_call() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    let (capture, _guard) = Capture::begin();
    let load = node.cache.get_or_set("key", Loads::new().fail::<_, i32>());
    load.await.unwrap_err();
    let spans = capture.spans();
    assert!(field(&spans, "get_or_set", "error").is_some_and(|e| e.contains("the source is down")));
    assert!(field(&spans, "l2", "error").is_some());
}

/// A value that gives itself away wherever it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Secret(String);

impl Secret {
    const TOKEN: &'static str = "hunter2";

    fn new() -> Self {
        Self(Self::TOKEN.to_owned())
    }
}

/// A tour through what a cache can do, in good weather and in bad.
async fn tour(world: &World, redact: bool) -> (String, String) {
    let settings = Settings::default().redact_keys(redact).trace_hits(true).recovery_keys(3);
    let (capture, _guard) = Capture::begin();
    let node = world.node_with(|builder| builder.settings(settings.clone())).await;
    let other = world.node_with(|builder| builder.settings(settings)).await;
    let mut events = node.cache.events_with_l1_hits();
    let short = EntryOptions::new(Duration::from_secs(1)).fail_safe(FailSafe::default());
    for round in 0..3 {
        if round == 1 {
            node.l2.down();
        }
        if round == 2 {
            node.l2.heal();
            pass(Duration::from_secs(5)).await;
        }
        let cache = &node.cache;
        let key = format!("private-{round}");
        let load = cache.get_or_set(&key, Loads::new().value(Secret::new())).tags(["private-tag"]);
        load.options(short.clone()).await.expect("no trouble");
        cache.get::<Secret>(&key).await.expect("no trouble");
        let _ = other.cache.get::<Secret>(&key).await;
        let _ = cache.get::<u32>(&key).await;
        pass(Duration::from_secs(2)).await;
        let failing = |_| async { Err::<Secret, BoxError>("the database is down".into()) };
        cache.get_or_set(&key, failing).options(short.clone()).await.expect("no trouble");
        let panicking = |_| async { panic!("no") };
        let _ = cache.get_or_set::<Secret, _, _, BoxError>("private-x", panicking).await;
        let _ = cache.set(&key, Secret::new()).await.expect("no trouble");
        for other in 0..5 {
            let _ = cache.remove(format!("private-{round}-{other}")).await.expect("no trouble");
        }
        let _ = cache.set_many([("private-a", Secret::new())]).await.expect("no trouble");
        let _ = cache.remove_by_tag("private-tag").await.expect("no trouble");
        let _ = cache.remove_all().await.expect("no trouble");
    }
    node.bus.deliver(&b"junk"[..]);
    pass(Duration::from_secs(40)).await;
    let _ = node.cache.close().await;
    let told: Vec<_> = std::iter::from_fn(|| events.try_next()).map(|e| format!("{e:?}")).collect();
    assert!(told.len() > 50, "it was a real tour: {}", told.len());
    let page = include_str!("../../docs/observability.md");
    for span in capture.spans() {
        assert!(page.contains(&format!("`{}`", span.name)), "{} has no row", span.name);
        for field in span.fields.keys() {
            assert!(page.contains(&format!("`{field}`")), "{field} of {}", span.name);
        }
    }
    (format!("{}\n{:?}", told.join("\n"), node.cache.health()), capture.text())
}

#[tokio::test(start_paused = true)]
async fn no_value_is_in_any_event_span_or_log_line() {
    let (told, traced) = tour(&World::new().await, false).await;
    assert!(traced.contains("private-1"), "keys are there");
    assert!(told.contains("private-1") && told.contains("private-tag"));
    assert!(!told.contains(Secret::TOKEN) && !traced.contains(Secret::TOKEN));
}

#[tokio::test(start_paused = true)]
async fn no_redacted_key_or_tag_is_in_any_event_span_or_log_line() {
    let (told, traced) = tour(&World::new().await, true).await;
    for text in [told, traced] {
        let leak = text.lines().find(|line| line.contains("private") || line.contains("hunter2"));
        assert_eq!(leak, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_has_a_warning_for_each_trouble_and_none_without() {
    let world = World::new().await;
    let (capture, _guard) = Capture::begin();
    let node = world.node().await;
    node.cache.get_or_set("key", Loads::new().value(1)).options(options()).await.unwrap();
    let _ = node.cache.remove("key").await.unwrap();
    let warnings = |capture: &Capture| {
        capture.lines().into_iter().filter(|line| line.starts_with("WARN")).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&capture), Vec::<String>::new());
    capture.forget();
    node.l2.down();
    for _ in 0..6 {
        let _ = node.cache.remove("key").await.unwrap();
    }
    node.bus.cut();
    pass(Duration::from_secs(40)).await;
    let said = warnings(&capture);
    for trouble in ["L2 does not answer:", "no subscription", "no longer knows"] {
        assert_eq!(said.iter().filter(|l| l.contains(trouble)).count(), 1, "{trouble}: {said:?}");
    }
}
