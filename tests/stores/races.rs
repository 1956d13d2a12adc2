//! Nodes over a store that compares and swaps, at the same keys at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{CasL2, L2, Record, record};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{Head, LeaseAsk, Put};
use crinkle_core::{BoxError, Cache};
use crinkle_testkit::chaos::Gate;
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{go, pass};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shelf::{self, Shelf};

fn ask(id: u64) -> LeaseAsk {
    LeaseAsk { id: Version(id), ttl_ms: 10_000, replace: None, hidden: None }
}

fn value(version: u64) -> Record {
    shelf::record(version, 60_000, 60_000)
}

async fn version(l2: &impl L2, key: &str) -> Option<u64> {
    let found = l2.read(key, None).await.unwrap().found?;
    record::head(&found.bytes).map(Head::version).map(|version| version.0)
}

/// A node whose loads and writes take from one source that counts up.
#[derive(Clone, Debug)]
struct Worker {
    cache: Cache,
    source: Arc<AtomicU64>,
}

impl Worker {
    async fn work(self, seed: u64) {
        let mut dice = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let key = ["a", "b", "c"][dice.random_range(0..3)];
            match dice.random_range(0..5) {
                0 => drop(self.cache.set(key, self.next()).tags(["t"]).await.unwrap()),
                1 => drop(self.cache.remove(key).await.unwrap()),
                2 => drop(self.cache.remove_by_tag("t").await.unwrap()),
                _ => self.load(key, Duration::from_millis(dice.random_range(0..20))).await,
            }
            pass(Duration::from_millis(dice.random_range(0..10))).await;
        }
    }

    async fn load(&self, key: &str, takes: Duration) {
        let source = Arc::clone(&self.source);
        let load = self.cache.get_or_set(key, move |_| async move {
            let read = source.fetch_add(1, Ordering::SeqCst);
            pass(takes).await;
            Ok::<_, BoxError>(read)
        });
        drop(load.tags(["t"]).await.unwrap());
    }

    fn next(&self) -> u64 {
        self.source.fetch_add(1, Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_write_and_load_at_once_end_with_equal_copies() {
    for seed in 0..40 {
        let (l2, bus) = (Arc::new(CasL2::new(Shelf::new())), MemoryBackplane::new());
        let (clock, source) = (TokioClock::new(), Arc::new(AtomicU64::new(1)));
        let mut nodes = Vec::new();
        for node in 0..3 {
            let builder = Cache::builder("shop").clock(clock).seed(seed * 10 + node);
            let cache = builder.l2(Arc::clone(&l2)).backplane(bus.clone()).build().unwrap();
            cache.ready().await.unwrap();
            nodes.push(Worker { cache, source: Arc::clone(&source) });
        }
        pass(Duration::from_millis(50)).await;
        let work = (0..6).zip(nodes.iter().cycle());
        let work: Vec<_> = work.map(|(i, node)| go(node.clone().work(seed * 100 + i))).collect();
        for worker in work {
            worker.await.unwrap();
        }
        pass(Duration::from_secs(3)).await;
        for key in ["a", "b", "c"] {
            let mut copies = Vec::new();
            for node in &nodes {
                copies.push(node.cache.get::<u64>(key).await.unwrap().map(|value| *value));
            }
            assert!(copies.iter().all(|copy| *copy == copies[0]), "seed {seed}: {copies:?}");
        }
        for node in &nodes {
            assert_eq!(node.cache.health().pending_removals, 0, "seed {seed}");
            node.cache.close().await.unwrap();
        }
    }
}

/// A `set` where nothing is takes two writes: a lease, then the value over it. A value written at once
/// could be stuck while something newer is written and removed, and then find nothing again.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_stuck_does_not_bring_back_what_was_removed() {
    for stuck_at in 0..2 {
        let shelf = Shelf::new();
        let l2 = Arc::new(CasL2::new(shelf.clone()));
        let gates = [shelf.hold("key"), shelf.hold("key")];
        gates[..stuck_at].iter().for_each(Gate::open);
        let set = go({
            let l2 = Arc::clone(&l2);
            async move { l2.set("key", value(1), None, None).await }
        });
        gates[stuck_at].reached().await;
        // Its caller has waited long enough. What is on its way cannot be called back.
        set.abort();
        gates[1].open();
        l2.set("key", value(2), None, None).await.unwrap();
        l2.remove("key", None).await.unwrap();
        gates[stuck_at].open();
        pass(Duration::from_millis(1)).await;
        assert_eq!(version(&*l2, "key").await, None, "stuck at write {stuck_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_is_stuck_is_refused_after_a_removal() {
    let shelf = Shelf::new();
    let l2 = Arc::new(CasL2::new(shelf.clone()));
    l2.read("key", Some(ask(7))).await.unwrap();
    let gate = shelf.hold("key");
    let fill = go({
        let l2 = Arc::clone(&l2);
        async move { l2.put("key", Version(7), value(1), None).await.unwrap() }
    });
    gate.reached().await;
    l2.remove("key", None).await.unwrap();
    l2.read("key", Some(ask(8))).await.unwrap();
    gate.open();
    assert_eq!(fill.await.unwrap(), Put::Refused, "another lease is another version");
    assert_eq!(version(&*l2, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_others_change_all_the_time_is_an_error_that_says_so() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    shelf.contend("key");
    let error = l2.set("key", value(1), None, None).await.unwrap_err();
    assert!(error.to_string().contains("others changed it 16 times"), "{error}");
    assert!(!error.is_outage(), "the store is there");
    l2.set("another", value(1), None, None).await.unwrap();
}
