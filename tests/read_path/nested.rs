//! Factories that ask the cache: for other keys as they like, never for what waits for them.

use std::time::Duration;

use crinkle_core::{
    Cache, EagerRefresh, EntryOptions, Error, ErrorKind, FactoryContext, FailSafe, Settings, ok,
};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, both, go, kind_of, load, pass, until};
use tokio::time::{Instant, timeout};

/// Asks for keys one by one, each by the factory of the one before; the last is loaded.
fn ask(cache: Cache, mut keys: Vec<&'static str>) -> crinkle_tests::Boxed<i32> {
    Box::pin(async move {
        if keys.is_empty() {
            return Ok(1);
        }
        let (next, inner) = (keys.remove(0), cache.clone());
        Ok(*cache.get_or_set(next, move |_| ask(inner, keys)).await?)
    })
}

/// The innermost error of factories that hand theirs on.
fn innermost(error: &Error) -> &Error {
    error.factory_error::<Error>().map_or(error, innermost)
}

/// Asks, and says what was refused.
async fn refused(cache: &Cache, keys: &[&'static str]) -> String {
    let began = Instant::now();
    let error = ask(cache.clone(), keys.to_vec()).await.expect_err("a circle");
    assert_eq!(began.elapsed(), Duration::ZERO, "at once");
    let error = error.downcast_ref::<Error>().expect("of the cache");
    assert_eq!(error.kind(), ErrorKind::Factory, "{error}");
    let innermost = innermost(error);
    assert_eq!(innermost.kind(), ErrorKind::Reentrant, "{error}");
    assert_eq!(cache.health().in_flight, 0);
    innermost.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_asks_for_its_own_key_is_refused_at_once() {
    let world = World::new().await;
    for cache in both(&world).await {
        let said = refused(&cache, &["a", "a"]).await;
        let expected = r#"the load of key "a" in cache "shop" would wait for itself: "a" -> "a";"#;
        assert!(said.starts_with(expected), "{said}");
        // The key is free.
        assert_eq!(*cache.get_or_set("a", Loads::new().value(2)).await.unwrap(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circle_over_other_keys_is_refused_and_named() {
    let world = World::new().await;
    for cache in both(&world).await {
        let said = refused(&cache, &["a", "b", "c", "a"]).await;
        assert!(said.contains(r#": "c" -> "a" -> "b" -> "c";"#), "{said}");
        assert_eq!(ask(cache, vec!["a", "b", "c", "d"]).await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circle_over_another_cache_is_refused_and_named() {
    let (shop, stock) = (World::new().await.alone(), Cache::builder("stock").build().unwrap());
    let (other, back) = (stock.clone(), shop.clone());
    let read = shop.get_or_set("a", move |_| async move {
        let there = move |_| async move { ok(*back.get_or_set("a", |_| async { ok(1) }).await?) };
        ok(*other.get_or_set("a", there).await?)
    });
    let said = innermost(&read.await.unwrap_err()).to_string();
    assert!(said.contains(r#""a" of cache "stock" -> "a" -> "a" of cache "stock""#), "{said}");
}

#[tokio::test(start_paused = true)]
async fn redacted_keys_stay_out_of_the_message() {
    let settings = Settings::default().redact_keys(true);
    let cache = Cache::builder("shop").settings(settings).build().unwrap();
    let said = refused(&cache, &["secret", "other", "secret"]).await;
    assert!(said.contains("a key -> a key -> a key"), "{said}");
    assert!(!said.contains("secret") && !said.contains("other"), "{said}");
}

/// A caller that shares a load that waits for itself is answered as fast.
#[tokio::test(start_paused = true)]
async fn innocent_callers_do_not_wait_either() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, inner) = (Gate::new(), cache.clone());
        let held = gate.clone();
        let leader = load(&cache, "a", &[], EntryOptions::default(), move |_| async move {
            held.pass().await;
            ok(*inner.get_or_set("a", |_| async { ok(1) }).await?)
        });
        gate.reached().await;
        let joiner = load(&cache, "a", &[], EntryOptions::default(), Loads::new().value(2));
        until("it has joined", || cache.stats().joined == 1).await;
        let began = Instant::now();
        gate.open();
        for caller in [leader, joiner] {
            assert_eq!(kind_of(caller.await.unwrap()), ErrorKind::Factory);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

/// No option hides it: neither a stale value, nor a default, nor a read of another kind.
#[tokio::test(start_paused = true)]
async fn every_kind_of_call_that_would_wait_is_refused() {
    let fail_safe = EntryOptions::default().fail_safe(FailSafe::default());
    let kinds = [EntryOptions::default(), EntryOptions::default().strict(true), fail_safe];
    let world = World::new().await;
    for cache in both(&world).await {
        for options in &kinds {
            let _ = cache.set("a", 1).duration(Duration::from_millis(1)).await.unwrap();
            pass(Duration::from_secs(1)).await;
            let (inner, options) = (cache.clone(), options.clone());
            let read = cache.get_or_set("a", move |_| async move {
                let own = inner.get_or_set("a", |_| async { ok(2) }).options(options.clone());
                let one = own.fail_safe_default(3).await.unwrap_err();
                let load = |keys: Vec<String>| async { ok(keys.into_iter().map(|k| (k, 4))) };
                let many = inner.get_or_set_many(["x", "a"], load).options(options).await;
                ok([one.kind(), many.unwrap_err().kind()] == [ErrorKind::Reentrant; 2])
            });
            assert!(*read.await.unwrap());
            until("no load is left", || cache.health().in_flight == 0).await;
            let _ = cache.remove("a").await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_factory_of_a_batch_is_refused_each_of_its_keys() {
    let world = World::new().await;
    for cache in both(&world).await {
        let inner = cache.clone();
        let load = move |keys: Vec<String>| {
            let inner = inner.clone();
            async move {
                for key in &keys {
                    let own = inner.get_or_set(key, |_| async { ok(1) }).await;
                    assert_eq!(kind_of(own), ErrorKind::Reentrant);
                }
                let other = inner.get_or_set("other", |_| async { ok(7) }).await?;
                ok(keys.into_iter().map(move |key| (key, *other)))
            }
        };
        let read = timeout(Duration::from_secs(1), async {
            cache.get_or_set_many(["a", "b"], load).await.map(|all| *all[1])
        });
        assert_eq!(read.await.expect("at once").unwrap(), 7);
    }
}

/// Each of two loads waits for the other: one of them is refused, and both end.
#[tokio::test(start_paused = true)]
async fn loads_of_two_tasks_do_not_wait_for_each_other() {
    let world = World::new().await;
    for cache in both(&world).await {
        let both = Gate::new();
        let ask = |own: &'static str, other: &'static str| {
            let (inner, gate) = (cache.clone(), both.clone());
            load(&cache, own, &[], EntryOptions::default(), move |_| async move {
                gate.pass().await;
                match inner.get_or_set(other, |_| async { ok(9) }).await {
                    Err(error) if error.kind() == ErrorKind::Reentrant => ok(1),
                    read => ok(*read? + 1),
                }
            })
        };
        let (one, two) = (ask("one", "two"), ask("two", "one"));
        until("both run", || both.count() == 2).await;
        let began = Instant::now();
        both.open();
        let mut read = [*one.await.unwrap().unwrap(), *two.await.unwrap().unwrap()];
        read.sort_unstable();
        assert_eq!((read, began.elapsed()), ([1, 2], Duration::ZERO));
    }
}

/// A load that its factory has given up waiting for may ask for the key: it closes no circle.
#[tokio::test(start_paused = true)]
async fn a_load_that_is_not_waited_for_any_more_may_ask() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, end) = (Gate::new(), Gate::new());
        let (inner, again) = (cache.clone(), cache.clone());
        let (held, ending) = (gate.clone(), end.clone());
        let leader = load(&cache, "a", &[], EntryOptions::default(), move |_| async move {
            let asks = move |_| async move {
                held.pass().await;
                ok(*again.get_or_set("a", |_| async { ok(9) }).await?)
            };
            let other = async { inner.get_or_set("b", asks).await };
            assert!(timeout(Duration::from_secs(1), other).await.is_err(), "it waits at a gate");
            ending.pass().await;
            ok(1)
        });
        end.reached().await;
        gate.open();
        pass(Duration::from_secs(1)).await;
        end.open();
        assert_eq!(*leader.await.unwrap().unwrap(), 1);
        until("b is loaded", || cache.peek::<i32>("b").is_some()).await;
        assert_eq!(cache.peek::<i32>("b").as_deref(), Some(&1), "of a");
    }
}

/// Nobody waits for a refresh: it may ask for the key whose factory has begun it.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_factory_begins_may_ask_for_its_key() {
    let cache = World::new().await.alone();
    let due = EntryOptions::new(Duration::from_secs(60)).eager_refresh(EagerRefresh::after(0.5));
    let _ = cache.set("b", 1).options(due).await.unwrap();
    pass(Duration::from_secs(31)).await;
    let inner = cache.clone();
    let read = cache.get_or_set("a", move |_| async move {
        let again = inner.clone();
        let refresh =
            move |_| async move { ok(*again.get_or_set("a", |_| async { ok(9) }).await? + 1) };
        let old = *inner.get_or_set("b", refresh).await?;
        pass(Duration::from_secs(1)).await;
        ok(old)
    });
    assert_eq!(*read.await.unwrap(), 1);
    until("b is refreshed", || cache.peek::<i32>("b").as_deref() == Some(&2)).await;
}

/// A factory of the blocking API runs on another thread, and is still the same factory.
#[test]
fn a_blocking_factory_is_refused_its_own_key() {
    let cache = Cache::builder("shop").build().unwrap().blocking();
    let inner = cache.clone();
    let error = cache.get_or_set("a", move |_| inner.get_or_set("a", |_| ok(1)).map(|v| *v));
    assert_eq!(innermost(&error.unwrap_err()).kind(), ErrorKind::Reentrant);
    let inner = cache.inner().clone();
    let error = cache.get_or_set("b", move |_| {
        inner
            .blocking()
            .get_or_set("c", move |_| inner.blocking().get_or_set("b", |_| ok(1)).map(|v| *v))
            .map(|v| *v)
    });
    assert_eq!(innermost(&error.unwrap_err()).kind(), ErrorKind::Reentrant);
}

/// What a factory spawns is not seen as part of it: the limits of the calls hold.
#[tokio::test(start_paused = true)]
async fn what_a_factory_spawns_waits_within_its_limits() {
    let cache = World::new().await.alone();
    let inner = cache.clone();
    let read = cache.get_or_set("a", move |_| async move {
        let own = go(async move {
            let own = inner.get_or_set("a", |_: FactoryContext<bool>| async { ok(false) });
            own.wait_timeout(Duration::from_secs(1)).await
        });
        ok(kind_of(own.await?) == ErrorKind::WaitTimeout)
    });
    assert!(*read.await.unwrap());
}

/// Nodes do not know of each other's calls; the load lock that stands for the load is waited for as ever.
#[tokio::test(start_paused = true)]
async fn a_circle_over_two_nodes_ends_within_the_load_lock_wait() {
    let world = World::new().await;
    let (one, two) = (world.node().await.cache, world.node().await.cache);
    let began = Instant::now();
    let read = one.get_or_set("a", move |_| async move {
        // As if over HTTP: another task.
        let there = go(async move { two.get_or_set("a", |_| async { ok(1) }).await.map(|v| *v) });
        ok(there.await??)
    });
    assert_eq!(*read.await.unwrap(), 1);
    let wait = Duration::from_secs(2);
    assert!((wait..wait * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}
