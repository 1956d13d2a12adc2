//! A cache over a file, over restarts of its application.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{Cache, EntryOptions};
use crinkle_l2_cas::{CasL2, CasStore, Stored};
use crinkle_l2_disk::{Disk, DiskL2};
use crinkle_tests::Loads;

async fn start(path: &Path) -> Cache {
    let options = EntryOptions::new(Duration::from_secs(3600));
    let store = CasL2::new(Disk::open(path).unwrap());
    let cache = Cache::builder("shop").default_options(options).l2(store).build().unwrap();
    cache.ready().await.unwrap();
    cache
}

/// Ends the cache and waits until nobody has the file open.
async fn stop(cache: Cache) {
    cache.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_removals_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let loads = Loads::new();
    let cache = start(&path).await;
    cache.set("set", 1).tags(["kept"]).await.unwrap();
    cache.get_or_set("loaded", loads.value(2)).await.unwrap();
    cache.set("removed", 3).await.unwrap();
    cache.set("tagged", 4).tags(["gone"]).await.unwrap();
    cache.remove("removed").await.unwrap();
    cache.remove_by_tag("gone").await.unwrap();
    stop(cache).await;

    let cache = start(&path).await;
    assert_eq!(*cache.get::<i32>("set").await.unwrap().unwrap(), 1);
    assert_eq!(*cache.get_or_set("loaded", loads.value(9)).await.unwrap(), 2);
    assert_eq!(loads.count(), 1, "a load is kept, too");
    assert!(cache.get::<i32>("removed").await.unwrap().is_none());
    assert!(cache.get::<i32>("tagged").await.unwrap().is_none(), "its record is there, and hidden");
    assert_eq!(cache.health().ledger_size, 1);
    cache.remove_all().await.unwrap();
    stop(cache).await;

    let cache = start(&path).await;
    assert!(cache.get::<i32>("set").await.unwrap().is_none(), "a clear outlives it as well");
    stop(cache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_of_one_process_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<DiskL2> = Arc::new(CasL2::new(Disk::open(dir.path().join("cache")).unwrap()));
    let shop = Cache::builder("shop").l2(Arc::clone(&store)).build().unwrap();
    let news = Cache::builder("news").l2(Arc::clone(&store)).build().unwrap();
    shop.set("key", 1).await.unwrap();
    news.set("key", 2).await.unwrap();
    shop.remove_all().await.unwrap();
    assert!(shop.get::<i32>("key").await.unwrap().is_none());
    assert_eq!(*news.get::<i32>("key").await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_open_elsewhere_or_foreign_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let first = Disk::open(&path).unwrap();
    let second = Disk::open(&path).unwrap_err();
    assert!(second.to_string().contains("already open"), "{second}");
    drop(first);
    Disk::open(&path).unwrap();
    let foreign = dir.path().join("notes.txt");
    std::fs::write(&foreign, "not a database, but long enough to be looked at").unwrap();
    Disk::open(&foreign).unwrap_err();
}

/// A copy of a file in use is what a crash leaves.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_wrote_outlives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (path, left) = (dir.path().join("cache"), dir.path().join("left"));
    let disk = Disk::open(&path).unwrap();
    let lasting = Stored { lasting: true, ..stored(3_600_000) };
    disk.swap("loaded", None, stored(3_600_000)).await.unwrap();
    disk.swap("removed", None, stored(3_600_000)).await.unwrap();
    disk.swap("written", None, lasting).await.unwrap();
    disk.delete("removed").await.unwrap();
    std::fs::copy(&path, &left).unwrap();
    let disk = Disk::open(&left).unwrap();
    assert!(disk.get("written").await.unwrap().is_some());
    assert!(disk.get("removed").await.unwrap().is_none());
    assert!(disk.get("loaded").await.unwrap().is_some(), "what was before is on the disk, too");
}

fn stored(ttl_ms: u64) -> Stored {
    Stored { bytes: "value".into(), ttl_ms, lasting: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_values_are_dropped_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path().join("cache")).unwrap();
    for key in 0..100 {
        disk.swap(&format!("brief {key}"), None, stored(0)).await.unwrap();
    }
    let mut lasting = 0;
    while lasting < 100 {
        let before = disk.len().await.unwrap();
        disk.swap(&format!("lasting {lasting}"), None, stored(3_600_000)).await.unwrap();
        lasting += 1;
        let after = disk.len().await.unwrap();
        assert!(before < after + 16, "one write drops at most 16");
    }
    assert_eq!(disk.len().await.unwrap(), 100, "what has expired is gone");
}
