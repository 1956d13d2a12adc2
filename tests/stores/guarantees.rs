//! Guarantees that a cache reports for each kind of store.

use crinkle_core::Cache;
use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{Atomicity, MemoryL2};
use crinkle_l2_cas::{CasL2, PlainL2};

use crate::shelf::{PlainShelf, Shelf};

fn weaker<C: Send + Sync + 'static>(cache: &Cache<C>) -> Vec<&'static str> {
    let guarantees = cache.guarantees();
    assert_eq!(guarantees.all.len(), 18, "every guarantee is named");
    guarantees.all.iter().filter(|g| g.weaker.is_some()).map(|g| g.id).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cache_of_one_node_promises_everything() {
    let cache = Cache::builder("shop").build().unwrap();
    assert_eq!(weaker(&cache), [""; 0]);
    assert_eq!(cache.guarantees().store, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_compares_promises_as_much_as_one_that_runs_scripts() {
    let builder = || Cache::builder("shop").backplane(MemoryBackplane::new());
    let atomic = builder().l2(MemoryL2::new()).build().unwrap();
    let swapping = builder().l2(CasL2::new(Shelf::new())).build().unwrap();
    assert_eq!(weaker(&atomic), [""; 0]);
    assert_eq!(weaker(&swapping), [""; 0]);
    assert_eq!(swapping.guarantees().store, Some(Atomicity::CompareAndSwap));
}

#[tokio::test(start_paused = true)]
async fn without_a_backplane_changed_keys_are_noticed_later() {
    let cache = Cache::builder("shop").l2(MemoryL2::new()).build().unwrap();
    assert_eq!(weaker(&cache), ["S3"]);
    assert!(cache.guarantees().holds("S2"), "removals by tag are polled");
}

#[tokio::test(start_paused = true)]
async fn a_plain_store_says_what_is_weaker() {
    let store = PlainL2::new(PlainShelf(Shelf::new()));
    let cache = Cache::builder("shop").l2(store).backplane(MemoryBackplane::new()).build().unwrap();
    assert_eq!(weaker(&cache), ["S2", "S3", "S5", "S9", "S10", "S14", "S15", "S16", "S17"]);
    let guarantees = cache.guarantees();
    assert!(guarantees.holds("S1") && !guarantees.holds("S5") && !guarantees.holds("S99"));
    let log = guarantees.to_string();
    assert!(log.starts_with("an L2 that cannot compare, a backplane\nS1 holds: "), "{log}");
    assert!(log.contains("\nS5 is weaker: a load replaces exactly the version that it saw; but "));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_shares_its_ledger_alone_loads_on_each_node() {
    let builder = Cache::builder("shop").backplane(MemoryBackplane::new());
    let cache = builder.ledger(MemoryL2::new()).build().unwrap();
    assert_eq!(weaker(&cache), ["S14", "S17"]);
    assert!(cache.guarantees().to_string().contains("for the ledger only"));
}
