//! Memory goes back: what can never be answered again leaves L1, and nothing else does.

use std::sync::Arc;

use crinkle_core::{Cache, EntryOptions, Eviction, FailSafe, ok};
use crinkle_tests::{Loads, World, long, ms, pass};
use serde::{Deserialize, Serialize};

use crate::{any, fresh, secs};

const ENGINES: [Eviction; 3] = [Eviction::S3Fifo, Eviction::Lru, Eviction::TinyLfu];

/// Within this time of its end an entry is dropped.
const SOON: u64 = 60;

/// A value that shows whether it is still alive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Page {
    number: usize,
    #[serde(skip)]
    _alive: Arc<()>,
}

/// Counts values that have not been dropped.
#[derive(Default)]
struct Alive(Arc<()>);

impl Alive {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    async fn fill(&self, cache: &Cache, count: usize, options: &EntryOptions) {
        for number in 0..count {
            let page = Page { number, _alive: Arc::clone(&self.0) };
            let key = format!("page:{number}");
            let set = cache.set(&key, page).options(options.clone());
            let _ = set.tags(["pages"]).await.expect("no trouble");
        }
    }
}

/// Waits until all values are dropped. moka drops a value when no thread is in any of its maps that could still
/// see it, and the threads of other tests may be: these take real time.
async fn all_dropped(alive: &Alive, what: &str) {
    for _ in 0..10_000 {
        if alive.count() == 0 {
            return;
        }
        std::thread::yield_now();
        pass(secs(SOON)).await;
    }
    panic!("{} are still alive: {what}", alive.count());
}

/// A cache without L2 and one with, of each engine.
async fn caches(world: &World) -> Vec<Cache> {
    let mut caches = Vec::new();
    for eviction in ENGINES {
        let alone = Cache::builder("shop").clock(world.clock).eviction(eviction);
        caches.push(alone.build().expect("sound settings"));
        caches.push(world.node_with(|builder| builder.eviction(eviction)).await.cache);
    }
    caches
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_dropped_within_a_minute() {
    let world = World::new().await;
    for cache in caches(&world).await {
        let alive = Alive::default();
        alive.fill(&cache, 3000, &EntryOptions::new(secs(10))).await;
        pass(secs(9)).await;
        assert_eq!((alive.count(), cache.entry_count()), (3000, 3000), "it has not expired yet");
        pass(secs(1 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
        all_dropped(&alive, "expired").await;
        // The sweep goes on.
        alive.fill(&cache, 10, &EntryOptions::new(secs(10))).await;
        pass(secs(10 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
        all_dropped(&alive, "expired again").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_dropped_within_a_minute() {
    let world = World::new().await;
    let kept = long().fail_safe(FailSafe::for_up_to(secs(3600)));
    for cache in caches(&world).await {
        for options in [long(), kept.clone(), kept.clone().pinned(true), long().sliding(true)] {
            let alive = Alive::default();
            alive.fill(&cache, 20, &options).await;
            let _ = cache.remove_by_tag("pages").await.unwrap();
            pass(secs(SOON)).await;
            assert_eq!(cache.entry_count(), 0, "by tag, {options:?}");
            all_dropped(&alive, "by tag").await;
            alive.fill(&cache, 20, &options).await;
            let _ = cache.remove_all().await.unwrap();
            assert_eq!(cache.entry_count(), 0, "by a hard clear, {options:?}");
            all_dropped(&alive, "by a hard clear").await;
        }
    }
}

/// A removal on another node reaches the memory of this one.
#[tokio::test(start_paused = true)]
async fn what_another_node_has_removed_is_dropped_here() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for clears in [false, true] {
        let alive = Alive::default();
        alive.fill(&one.cache, 20, &long()).await;
        match clears {
            true => drop(two.cache.remove_all().await.unwrap()),
            false => drop(two.cache.remove_by_tag("pages").await.unwrap()),
        }
        pass(secs(SOON)).await;
        assert_eq!(alive.count(), 0);
    }
}

/// Expired or hidden softly, by its TTL or by a call: as long as it may be a fallback it stays.
#[tokio::test(start_paused = true)]
async fn a_fallback_is_not_dropped_before_its_end() {
    let world = World::new().await;
    for cache in caches(&world).await {
        for how in ["ttl", "expire", "tag", "clear"] {
            let alive = Alive::default();
            let kept = EntryOptions::new(secs(10)).fail_safe(FailSafe::for_up_to(secs(600)));
            alive.fill(&cache, 3, &kept).await;
            match how {
                "ttl" => pass(secs(10)).await,
                "expire" => {
                    for number in 0..3 {
                        let _ = cache.expire(format!("page:{number}")).await.unwrap();
                    }
                }
                "tag" => drop(cache.expire_by_tag("pages").await.unwrap()),
                _ => drop(cache.expire_all().await.unwrap()),
            }
            pass(secs(500)).await;
            assert_eq!(alive.count(), 3, "{how}");
            for number in 0..3 {
                let key = format!("page:{number}");
                let read = cache.get_or_set(&key, Loads::new().fail::<_, Page>());
                let read = read.options(kept.clone()).await.unwrap();
                assert!(read.meta().is_stale() && read.number == number, "{how}");
            }
            pass(secs(100 + SOON)).await;
            assert_eq!(cache.entry_count(), 0, "{how}");
            all_dropped(&alive, how).await;
        }
    }
}

/// Without fail-safe a stale entry is there until its life is over, for those who allow stale answers.
#[tokio::test(start_paused = true)]
async fn what_was_expired_stays_for_its_life_and_no_longer() {
    let world = World::new().await;
    for cache in caches(&world).await {
        let alive = Alive::default();
        alive.fill(&cache, 3, &EntryOptions::new(secs(200))).await;
        let _ = cache.expire_all().await.unwrap();
        let _ = cache.expire("page:0").await.unwrap();
        pass(secs(199)).await;
        assert_eq!(alive.count(), 3);
        assert!(cache.get::<Page>("page:0").allow_stale().await.unwrap().is_some());
        pass(secs(1 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
        all_dropped(&alive, "its life is over").await;
    }
}

/// Its physical end is days away, but nobody has used it for a whole life.
#[tokio::test(start_paused = true)]
async fn a_sliding_entry_is_dropped_when_it_is_used_no_longer() {
    let world = World::new().await;
    for cache in caches(&world).await {
        let alive = Alive::default();
        alive.fill(&cache, 3, &EntryOptions::new(secs(50)).sliding(true)).await;
        for _ in 0..10 {
            pass(secs(30)).await;
            assert!(cache.peek::<Page>("page:1").is_some());
        }
        assert_eq!(cache.entry_count(), 1, "the one that is used");
        pass(secs(50 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
        all_dropped(&alive, "not used").await;
    }
}

/// With fail-safe it is kept as a fallback for that long, and not until the longest life of the cache.
#[tokio::test(start_paused = true)]
async fn a_sliding_fallback_is_kept_for_as_long_as_was_asked() {
    let world = World::new().await;
    for cache in caches(&world).await {
        let alive = Alive::default();
        let kept = FailSafe::for_up_to(secs(600));
        alive.fill(&cache, 3, &EntryOptions::new(secs(10)).sliding(true).fail_safe(kept)).await;
        pass(secs(599)).await;
        assert_eq!(alive.count(), 3);
        pass(secs(1 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
        all_dropped(&alive, "its life is over").await;
    }
}

/// A copy with a life of its own is dropped with that, though its record lives on, unless fail-safe keeps it.
#[tokio::test(start_paused = true)]
async fn a_copy_is_dropped_with_its_own_life() {
    let world = World::new().await;
    let kept = || FailSafe::for_up_to(secs(3600));
    let cases = [(None, None, 0), (Some(kept()), None, 1), (None, Some(kept()), 1)];
    for (writer, reader, left) in cases {
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).options(long().fail_safe(writer)).await.unwrap();
        let read = || two.cache.get::<i32>("key").options(long().fail_safe(reader));
        assert!(read().l1_duration(secs(5)).await.unwrap().is_some());
        assert_eq!(two.cache.entry_count(), 1);
        pass(secs(5 + SOON)).await;
        assert_eq!(two.cache.entry_count(), left);
        let _ = one.cache.remove("key").await.unwrap();
    }
}

/// A throttle is remembered by the stale entry: it stays for that long.
#[tokio::test(start_paused = true)]
async fn a_throttled_entry_is_not_dropped() {
    let world = World::new().await;
    let cache = world.alone();
    let _ = cache.set("key", 1).options(EntryOptions::new(secs(10)).sliding(true)).await.unwrap();
    pass(secs(10)).await;
    let throttled = FailSafe::for_up_to(secs(3600)).throttle(secs(300));
    let loads = Loads::new();
    for _ in 0..20 {
        let call = cache.get_or_set("key", loads.fail::<_, i32>());
        assert!(call.fail_safe(throttled).await.unwrap().meta().is_stale());
        pass(secs(14)).await;
    }
    assert_eq!(loads.count(), 1);
}

/// Nobody waits for the sweep where a read finds out.
#[tokio::test(start_paused = true)]
async fn a_read_drops_what_it_meets_dead() {
    let world = World::new().await;
    for cache in caches(&world).await {
        for by_tag in [false, true] {
            let alive = Alive::default();
            alive.fill(&cache, 4, &EntryOptions::new(secs(1))).await;
            match by_tag {
                true => drop(cache.remove_by_tag("pages").await.unwrap()),
                false => pass(secs(1)).await,
            }
            assert_eq!(alive.count(), 4);
            assert!(cache.get::<Page>("page:0").await.unwrap().is_none());
            assert!(!cache.contains("page:1").await.unwrap());
            assert!(cache.get_or_set("page:2", Loads::new().fail::<_, Page>()).await.is_err());
            let read = cache.get_many::<Page>(["page:3"]).await.unwrap();
            assert!(read[0].is_none());
            assert_eq!(cache.entry_count(), 0);
            all_dropped(&alive, "met").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_alive_is_never_dropped() {
    let world = World::new().await;
    for cache in caches(&world).await {
        let alive = Alive::default();
        alive.fill(&cache, 2000, &EntryOptions::new(secs(3600))).await;
        for round in 0..20 {
            let _ = cache.remove_by_tag(format!("other:{round}")).await.unwrap();
            pass(secs(30)).await;
        }
        assert_eq!(alive.count(), 2000);
        assert_eq!(fresh::<Page>(&cache, "page:7").await.map(|page| page.number), Some(7));
    }
}

/// It has no runtime when it is built: the first call that has one starts the sweep.
#[test]
fn a_cache_that_was_built_outside_of_a_runtime_is_swept_too() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let clock = Arc::new(crinkle_core::ManualClock::new());
    let cache = Cache::builder("shop").clock(Arc::clone(&clock)).build().unwrap();
    let alive = Alive::default();
    runtime.block_on(async {
        alive.fill(&cache, 10, &EntryOptions::new(secs(10))).await;
        clock.advance(secs(10));
        pass(secs(SOON)).await;
    });
    assert_eq!(alive.count(), 0);
}

/// A value of its own mind.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "it is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_panics_as_it_is_dropped_does_not_end_the_sweep() {
    let clock = World::new().await.clock;
    let cache = Cache::builder("shop").codec(crinkle_core::l2::NoCodec).clock(clock);
    let cache = cache.default_options(EntryOptions::new(secs(1))).build().unwrap();
    for _ in 0..3 {
        let _ = cache.get_or_set("touchy", |_| async { ok(Touchy) }).await.unwrap();
        let _ = cache.set("other", 1).await.unwrap();
        pass(secs(1 + SOON)).await;
        assert_eq!(cache.entry_count(), 0);
    }
}

/// The last handle is gone: what the cache holds goes with it, not with the next pass.
#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_gives_its_memory_back_at_once() {
    let world = World::new().await;
    let (cache, alive) = (world.alone(), Alive::default());
    alive.fill(&cache, 10, &long()).await;
    assert_eq!(any(&cache, "none").await, None);
    drop(cache);
    // Its tasks end.
    pass(ms(1)).await;
    assert_eq!(alive.count(), 0);
}
