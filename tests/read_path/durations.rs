//! The longest and the shortest time, in every option that is one: legal, or refused by name, and never a panic.

use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::MemoryL2;
use crinkle_core::{Cache, CacheBuilder, EntryOptions, Error, ErrorKind, FailSafe, Settings, ok};
use crinkle_tests::{go, pass};

const EXTREMES: [Duration; 5] = [
    Duration::MAX,
    Duration::from_secs(u64::MAX / 2),
    Duration::from_secs(1 << 34),
    Duration::from_nanos(1),
    Duration::ZERO,
];

macro_rules! choices {
    ($of:ty: $($name:ident),*) => {
        [$((stringify!($name), (|of, time| of.$name(time)) as fn($of, Duration) -> $of)),*]
    };
}

/// An option, by its name and its setter.
type Choice<T> = (&'static str, fn(T, Duration) -> T);

/// Every option of an entry that is a time.
fn of_entries() -> Vec<Choice<EntryOptions>> {
    let mut all = choices!(
        EntryOptions: duration, l1_duration, l2_duration, jitter, factory_soft_timeout, factory_hard_timeout,
        factory_deadline, l2_soft_timeout, l2_hard_timeout, wait_timeout, load_lock_wait
    )
    .to_vec();
    all.push(("fail_safe.max_duration", |of, time| of.fail_safe(FailSafe::for_up_to(time))));
    all.push(("fail_safe.throttle", |of, time| of.fail_safe(FailSafe::default().throttle(time))));
    all
}

/// Every setting that is a time.
fn of_settings() -> Vec<Choice<Settings>> {
    choices!(Settings: max_lifetime, poll, coherence_ttl, load_lock_ttl).to_vec()
}

/// A new option belongs into the lists above.
#[test]
fn every_time_is_looked_at() {
    let count = |source: &str, what: &[&str]| {
        source.lines().filter(|line| what.iter().any(|what| line.contains(what))).count()
    };
    let entry = include_str!("../../crates/core/src/options/entry.rs");
    let settings = include_str!("../../crates/core/src/options/settings.rs");
    let policies = include_str!("../../crates/core/src/options/policies.rs");
    let entries = count(entry, &["Plain<Duration>", "Maybe<Duration>"]);
    assert_eq!(
        entries
            + count(policies, &["    pub max_duration: Duration", "    pub throttle: Duration"]),
        of_entries().len()
    );
    assert_eq!(
        count(settings, &["pub(crate) "]) - count(settings, &["pub(crate) fn", "pub(crate) const"]),
        17
    );
    assert_eq!(count(settings, &[": Duration,"]), of_settings().len());
}

/// What a cache is used for, while time passes; what is refused.
async fn used(cache: Cache, options: Option<EntryOptions>) -> Result<(), Error> {
    let options = || options.clone().unwrap_or_default();
    let chosen = options() != EntryOptions::default();
    let _ = cache.set("key", 1).tags(["tag"]).options(options()).await?;
    let _ = cache.get::<i32>("key").options(options()).await?;
    for key in ["key", "absent", "slow"] {
        let load = move |_| async move {
            pass(Duration::from_millis(if key == "slow" { 300 } else { 0 })).await;
            ok(1)
        };
        let load = cache.get_or_set(key, load);
        let read = if chosen { load.options(options()).await } else { load.await };
        match read.map_err(|error| error.kind()) {
            Ok(_) | Err(ErrorKind::FactoryTimeout | ErrorKind::WaitTimeout) => {}
            Err(kind) => panic!("{kind:?}"),
        }
    }
    let many = |keys: Vec<String>| async { ok(keys.into_iter().map(|key| (key, 1))) };
    drop(cache.get_or_set_many(["a", "b"], many).options(options()).await);
    let _ = cache.get_many::<i32>(["a", "c"]).options(options()).await?;
    let _ = cache.expire("key").options(options()).await?;
    let failing = cache.get_or_set("key", |_| async { Err::<i32, _>("no source") });
    drop(failing.options(options()).await);
    pass(Duration::from_secs(5)).await;
    let _ = cache.remove("key").options(options()).background_l2(true).await?;
    let _ = cache.remove_by_tag("tag").options(options()).await?;
    let _ = cache.expire_all().options(options()).await?;
    let reservation = cache.reserve("reserved").await?;
    let _ = cache.set("reserved", 1).options(options()).reserved(reservation).await?;
    pass(Duration::from_secs(60)).await;
    let _ = cache.get::<i32>("reserved").options(options()).allow_stale().await?;
    let _ = cache.health();
    Ok(())
}

/// The caches that a builder may become: of L1 alone, of a ledger, of everything.
fn kinds() -> [fn() -> CacheBuilder; 4] {
    [
        || Cache::builder("shop"),
        || Cache::builder("shop").ledger(MemoryL2::new()).backplane(MemoryBackplane::new()),
        || Cache::builder("shop").l2(MemoryL2::new()),
        || Cache::builder("shop").l2(MemoryL2::new()).backplane(MemoryBackplane::new()),
    ]
}

/// Refused by name, or without trouble.
async fn no_panic(
    name: &str,
    time: Duration,
    used: impl Future<Output = Result<(), Error>> + Send + 'static,
) {
    let Err(error) = go(used).await.unwrap_or_else(|_| panic!("{name} of {time:?} panics")) else {
        return;
    };
    assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{name} of {time:?}: {error}");
    let option = name.split('.').next().expect("a name");
    assert!(error.to_string().contains(option), "{name} of {time:?}: {error}");
}

#[tokio::test(start_paused = true)]
async fn no_option_of_a_call_panics() {
    for build in kinds() {
        let cache = build().build().expect("the defaults are sound");
        cache.ready().await.expect("it is");
        for (name, choose) in of_entries() {
            for time in EXTREMES {
                let options = choose(EntryOptions::default(), time);
                no_panic(name, time, used(cache.clone(), Some(options))).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_default_option_panics() {
    for build in kinds() {
        for (name, choose) in of_entries() {
            for time in EXTREMES {
                no_panic(name, time, async move {
                    let options = choose(EntryOptions::default(), time);
                    let cache = build().default_options(options).build()?;
                    cache.ready().await.expect("it is");
                    used(cache.clone(), None).await?;
                    cache.close().await.expect("nothing waits");
                    Ok(())
                })
                .await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_setting_panics() {
    for build in kinds() {
        for (name, choose) in of_settings() {
            for time in EXTREMES {
                no_panic(name, time, async move {
                    let cache = build().settings(choose(Settings::default(), time)).build()?;
                    cache.ready().await.expect("it is");
                    used(cache.clone(), None).await?;
                    cache.close().await.expect("nothing waits");
                    Ok(())
                })
                .await;
            }
        }
        // Together, as one alone may be refused for the other.
        no_panic("poll", Duration::MAX, async move {
            let settings = Settings::default().poll(Duration::MAX).coherence_ttl(Duration::MAX);
            used(build().settings(settings).build()?, None).await
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_of_a_single_call_panics() {
    for build in kinds() {
        let cache = build().build().expect("the defaults are sound");
        cache.ready().await.expect("it is");
        let removed = cache.remove_by_tag("tag").await.expect("it is removed");
        let barrier = removed.token().expect("a number");
        for time in EXTREMES {
            let (after, adaptive) = (cache.clone(), cache.clone());
            no_panic("within", time, async move { after.wait_for(barrier).within(time).await })
                .await;
            no_panic("duration", time, async move {
                let load = move |ctx: crinkle_core::FactoryContext<i32>| async move {
                    ctx.set_duration(time);
                    ok(1)
                };
                adaptive.get_or_set("adaptive", load).await.map(|_| ())
            })
            .await;
        }
    }
}
