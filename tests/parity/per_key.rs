//! Default options by key, and where options come from.

use crinkle_core::{Cache, EntryOptions, ErrorKind, FactoryContext, ok};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, kind_of, long, ms, options, pass};

use crate::{any, fresh, secs};

/// Prices live a second, the rest what the cache says: five.
fn by_prefix(key: &str) -> Option<EntryOptions> {
    key.starts_with("price:").then(|| EntryOptions::new(secs(1)))
}

fn cache(world: &World) -> Cache {
    let builder = Cache::builder("shop").clock(world.clock).default_options_for(by_prefix);
    builder.default_options(EntryOptions::new(secs(5))).build().expect("sound settings")
}

#[tokio::test(start_paused = true)]
async fn a_key_has_the_options_that_are_chosen_for_it() {
    let world = World::new().await;
    let cache = cache(&world);
    for key in ["price:set", "other:set"] {
        let _ = cache.set(key, 1).await.unwrap();
    }
    for key in ["price:loaded", "other:loaded"] {
        cache.get_or_set(key, Loads::new().value(1)).await.unwrap();
    }
    pass(secs(1)).await;
    for (key, left) in [
        ("price:set", None),
        ("price:loaded", None),
        ("other:set", Some(1)),
        ("other:loaded", Some(1)),
    ] {
        assert_eq!(fresh(&cache, key).await, left, "{key}");
    }
    pass(secs(4)).await;
    assert_eq!(fresh::<i32>(&cache, "other:set").await, None, "the cache's default");
}

/// The factory before the call, the call before the key, the key before the cache.
#[tokio::test(start_paused = true)]
async fn the_nearest_choice_wins_field_by_field() {
    let world = World::new().await;
    let cache = Cache::builder("shop")
        .clock(world.clock)
        .default_options(EntryOptions::new(secs(1)))
        .default_options_for(|_| Some(options().duration(secs(2))))
        .build()
        .unwrap();
    let _ = cache.set("key", 1).await.unwrap();
    let _ = cache.set("call", 1).duration(secs(4)).await.unwrap();
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_duration(secs(8));
        ok(1)
    };
    cache.get_or_set("factory", factory).duration(secs(4)).await.unwrap();
    for (life, ended, next) in [(2, "key", "call"), (4, "call", "factory"), (8, "factory", "")] {
        pass(secs(if life == 2 { 2 } else { life / 2 })).await;
        assert_eq!(fresh::<i32>(&cache, ended).await, None, "{ended}");
        assert_eq!(any(&cache, ended).await, Some(1), "fail-safe is the key's");
        assert_eq!(next.is_empty(), fresh::<i32>(&cache, next_of(next)).await.is_none());
    }
}

/// A key that is never there stands for "none".
fn next_of(next: &str) -> &str {
    if next.is_empty() { "absent" } else { next }
}

#[tokio::test(start_paused = true)]
async fn options_of_a_call_replace_those_of_its_key() {
    let world = World::new().await;
    let cache = cache(&world);
    let _ = cache.set("price:1", 1).options(long()).await.unwrap();
    pass(secs(599)).await;
    assert_eq!(fresh(&cache, "price:1").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_key_may_have_a_way_of_being_read() {
    let world = World::new().await;
    let lenient = |key: &str| match key {
        "stale" => Some(options().allow_stale(true)),
        "l2" => Some(options().skip_l1_read(true)),
        _ => None,
    };
    let node = world.node_with(|builder| builder.default_options_for(lenient)).await;
    for key in ["stale", "l2", "plain"] {
        let _ = node.cache.set(key, 1).await.unwrap();
    }
    node.l2.forget();
    assert!(node.cache.get::<i32>("l2").await.unwrap().is_some());
    assert_eq!(node.l2.count(L2Op::Look), 1);
    assert!(node.cache.get::<i32>("plain").await.unwrap().is_some());
    assert_eq!(node.l2.count(L2Op::Look), 1);
    pass(secs(31)).await;
    assert!(
        node.cache.get::<i32>("stale").await.unwrap().is_some_and(|read| read.meta().is_stale())
    );
    assert!(node.cache.get::<i32>("plain").await.unwrap().is_none());
}

/// What is chosen for a key is checked when it is used: it may be anything by then.
#[tokio::test(start_paused = true)]
async fn wrong_options_of_a_key_are_refused_by_name() {
    let world = World::new().await;
    let builder = Cache::builder("shop").clock(world.clock);
    let cache = builder
        .default_options_for(|key| (key == "wrong").then(|| EntryOptions::new(ms(0))))
        .build()
        .unwrap();
    let read = cache.get_or_set("wrong", Loads::new().value(1)).await;
    assert!(read.as_ref().unwrap_err().to_string().contains("duration"));
    assert_eq!(kind_of(read), ErrorKind::InvalidOptions);
    assert_eq!(*cache.get_or_set("right", Loads::new().value(1)).await.unwrap(), 1);
}
