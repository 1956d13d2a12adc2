//! Probabilistic eager refresh (XFetch): the slower the factory, the earlier; never all at once.

use std::time::Duration;

use crinkle_core::{EagerRefresh, EntryOptions};
use crinkle_tests::{Loads, World, ms, pass};

use crate::secs;

const KEYS: usize = 40;

/// At which second of a life of 60 each of many keys is refreshed, if it is asked for ten times a
/// second; 60 for those that are not.
async fn refreshes(beta: f64, factory: Duration) -> Vec<f64> {
    let world = World::new().await;
    let cache = world.node().await.cache;
    let early = EntryOptions::new(secs(60)).eager_refresh(EagerRefresh::probabilistic(beta));
    let keys: Vec<String> = (0..KEYS).map(|number| number.to_string()).collect();
    let first: Vec<_> = keys
        .iter()
        .map(|key| {
            crinkle_tests::load(&cache, key, &[], early.clone(), move |_| async move {
                pass(factory).await;
                crinkle_core::ok(1)
            })
        })
        .collect();
    for load in first {
        load.await.expect("no panic").expect("a value");
    }
    let loads: Vec<Loads> = keys.iter().map(|_| Loads::new()).collect();
    let mut seconds = vec![60.0; KEYS];
    for step in 1..600_u32 {
        pass(ms(100)).await;
        for (number, key) in keys.iter().enumerate() {
            let read = cache.get_or_set(key, loads[number].value(2)).options(early.clone());
            read.await.expect("a value");
        }
        pass(ms(0)).await;
        for (number, loads) in loads.iter().enumerate() {
            if loads.count() > 0 && seconds[number] > 59.99 {
                seconds[number] = f64::from(step) / 10.0;
            }
        }
    }
    seconds
}

fn mean(seconds: &[f64]) -> f64 {
    seconds.iter().sum::<f64>() / 40.0
}

#[tokio::test(start_paused = true)]
async fn slow_loads_are_refreshed_early_and_at_different_times() {
    let seconds = refreshes(1.0, secs(2)).await;
    assert!(seconds.iter().all(|at| *at < 60.0), "none has ended: {seconds:?}");
    assert!((45.0..58.0).contains(&mean(&seconds)), "{}", mean(&seconds));
    let (first, last) = seconds.iter().fold((60.0, 0.0), |(a, b), at| (at.min(a), at.max(b)));
    assert!(last - first > 4.0, "they are spread: {first} to {last}");
}

#[tokio::test(start_paused = true)]
async fn a_larger_beta_is_earlier_and_a_quick_load_is_later() {
    let (usual, eager) = (refreshes(1.0, secs(1)).await, refreshes(4.0, secs(1)).await);
    assert!(mean(&eager) + 5.0 < mean(&usual), "{} {}", mean(&eager), mean(&usual));
    let quick = refreshes(1.0, ms(1)).await;
    assert!(quick.iter().all(|at| *at > 59.5), "{quick:?}");
}
