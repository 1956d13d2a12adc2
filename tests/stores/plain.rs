//! What a store that cannot compare loses, and what is healed.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::Cache;
use crinkle_core::backplane::MemoryBackplane;
use crinkle_l2_cas::PlainL2;
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{Loads, go, pass, until};

use crate::shelf::{PlainShelf, Shelf};

type Store = Arc<PlainL2<PlainShelf>>;

async fn node(store: &Store, bus: Option<&MemoryBackplane>, seed: u64) -> Cache {
    let builder = Cache::builder("shop").clock(TokioClock::new()).seed(seed).l2(Arc::clone(store));
    let builder = match bus {
        Some(bus) => builder.backplane(bus.clone()),
        None => builder,
    };
    let cache = builder.build().unwrap();
    cache.ready().await.unwrap();
    pass(Duration::from_millis(50)).await;
    cache
}

/// Two removals read the ledger, then both write it: the second to write has not seen the first. The
/// node of the first finds its number missing and issues it again.
#[tokio::test(start_paused = true)]
async fn a_removal_that_the_ledger_has_lost_is_issued_again() {
    let shelf = Shelf::new();
    let store: Store = Arc::new(PlainL2::new(PlainShelf(shelf.clone())));
    let one = node(&store, None, 1).await;
    let two_store = Arc::new(PlainL2::new(PlainShelf(shelf.clone())));
    let two = node(&two_store, None, 2).await;
    for tag in ["first", "second"] {
        one.set(tag, tag.to_owned()).tags([tag]).await.unwrap();
    }
    let stuck = shelf.hold("shop:v1:L");
    let second = go({
        let two = two.clone();
        async move { two.remove_by_tag("second").await.unwrap() }
    });
    stuck.reached().await;
    one.remove_by_tag("first").await.unwrap();
    stuck.open();
    assert!(second.await.unwrap().is_propagated());
    until("the lost one is issued again", || one.stats().reissues > 0).await;
    pass(Duration::from_secs(3)).await;
    let three = node(&store, None, 3).await;
    for cache in [&one, &two, &three] {
        for tag in ["first", "second"] {
            assert!(cache.get::<String>(tag).await.unwrap().is_none(), "{tag} stays removed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_over_a_plain_store_agree_when_they_take_turns() {
    let store: Store = Arc::new(PlainL2::new(PlainShelf(Shelf::new())));
    let bus = MemoryBackplane::new();
    let (one, two) = (node(&store, Some(&bus), 1).await, node(&store, Some(&bus), 2).await);
    let loads = Loads::new();
    assert_eq!(*one.get_or_set("key", loads.value(1)).await.unwrap(), 1);
    assert_eq!(*two.get_or_set("key", loads.value(2)).await.unwrap(), 1);
    two.remove("key").await.unwrap();
    pass(Duration::from_millis(10)).await;
    assert!(one.get::<i32>("key").await.unwrap().is_none());
    assert_eq!(*one.get_or_set("key", loads.value(3)).await.unwrap(), 3);
    assert_eq!(*two.get::<i32>("key").await.unwrap().unwrap(), 3);
    assert_eq!(loads.count(), 2);
}
