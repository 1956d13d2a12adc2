//! A hit in L1 allocates nothing and calls no factory; hostile bytes allocate no more than the
//! limit. A separate binary, because it replaces the allocator.

mod floods;
mod hostile;
mod recent;

use std::alloc::System;
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::MemoryL2;
use crinkle_core::{BoxError, Cache};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs one test at a time: the allocator counts for the whole process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const HITS: usize = 50;

/// Returns the fewest allocations of several batches of hits; threads of the test harness allocate
/// too.
async fn fewest(mut batch: impl AsyncFnMut()) -> usize {
    batch().await;
    let mut fewest = usize::MAX;
    for _ in 0..20 {
        let region = Region::new(ALLOCATOR);
        batch().await;
        let change = region.change();
        fewest = fewest.min(change.allocations + change.reallocations);
    }
    fewest
}

#[expect(clippy::unused_async, reason = "a factory returns a future")]
async fn never() -> Result<String, BoxError> {
    panic!("a hit calls no factory")
}

async fn check(cache: &Cache) {
    let tags = ["products", "category:7"];
    let made = cache.get_or_set("key", |_| async { crinkle_core::ok("value".to_owned()) });
    made.tags(tags).duration(Duration::from_secs(600)).await.expect("no trouble");
    let get_or_set = fewest(async || {
        for _ in 0..HITS {
            let request = cache.get_or_set("key", |_| never()).tags(["products", "category:7"]);
            let read = request.duration(Duration::from_secs(300)).await.expect("no trouble");
            assert_eq!(*read, "value");
        }
    })
    .await;
    assert_eq!(get_or_set, 0, "get_or_set");
    let get = fewest(async || {
        for _ in 0..HITS {
            assert_eq!(
                *cache.get::<String>("key").await.expect("no trouble").expect("no trouble"),
                "value"
            );
        }
    })
    .await;
    assert_eq!(get, 0, "get");
    let get_or = fewest(async || {
        for _ in 0..HITS {
            let read = cache.get_or("key", String::new()).await.expect("no trouble");
            assert_eq!(*read, "value");
        }
    })
    .await;
    assert_eq!(get_or, 0, "get_or");
    let peek = fewest(async || {
        for _ in 0..HITS {
            assert_eq!(*cache.peek::<String>("key").expect("no trouble"), "value");
        }
    })
    .await;
    assert_eq!(peek, 0, "peek");
    let blocking = cache.blocking();
    let blocked = fewest(async || {
        for _ in 0..HITS {
            let read = blocking.get_or_set("key", |_| Err::<String, _>("a hit calls no factory"));
            assert_eq!(*read.expect("no trouble"), "value");
        }
    })
    .await;
    assert_eq!(blocked, 0, "blocking");
    let control = fewest(async || {
        for _ in 0..HITS {
            assert!(cache.get::<String>("absent").await.expect("no trouble").is_none());
        }
    })
    .await;
    assert!(control >= HITS, "the allocator counts: {control}");
}

#[tokio::test]
async fn a_hit_in_l1_allocates_nothing_and_calls_no_factory() {
    let _turn = TURN.lock().await;
    let alone = Cache::builder("alone").build().unwrap();
    check(&alone).await;
    let _events = alone.events();
    drop(alone.events_with_l1_hits());
    check(&alone).await;
    let builder = Cache::builder("shared").l2(MemoryL2::new());
    let cache = builder.backplane(MemoryBackplane::new()).build().unwrap();
    cache.ready().await.unwrap();
    tokio::task::yield_now().await;
    check(&cache).await;
}
