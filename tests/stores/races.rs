//! Nodes over a store that compares and swaps, at the same keys at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{L2, Record, record};
use crinkle_core::protocol::ledger::{Advance, Removal, Strength, SyncAsk, Target};
use crinkle_core::protocol::record::{Head, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Nonce, TagHash, Version};
use crinkle_core::{BoxError, Cache, WriteStatus};
use crinkle_l2_cas::CasL2;
use crinkle_testkit::chaos::Gate;
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{go, pass};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shelf::{self, Shelf};

fn ask(id: u64) -> LoadLockRequest {
    LoadLockRequest { id: Version(id), ttl_ms: 10_000, replace: None, hidden: None }
}

fn value(version: u64) -> Record {
    shelf::record(version, 60_000, 60_000)
}

async fn version(l2: &impl L2, key: &str) -> Option<u64> {
    let found = l2.read(key, None).await.unwrap().found?;
    record::head(&found.bytes).map(Head::version).map(|version| version.0)
}

/// What all nodes work with: a source that counts up, and per key the count at the last removal that
/// was answered. A load that had read the source before that must not be seen after it.
#[derive(Debug, Default)]
struct Truth {
    source: AtomicU64,
    removed: [AtomicU64; 3],
}

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
struct Worker {
    cache: Cache,
    truth: Arc<Truth>,
}

impl Worker {
    async fn work(self, seed: u64) {
        let mut dice = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let at = dice.random_range(0..3);
            match dice.random_range(0..8) {
                0 => {
                    let value = self.truth.read() * 2;
                    self.cache.set(KEYS[at], value).tags(["t"]).await.unwrap();
                }
                1..4 => self.remove(at).await,
                4 => self.remove_all().await,
                _ => self.load(KEYS[at], Duration::from_millis(dice.random_range(0..5))).await,
            }
            pass(Duration::from_millis(dice.random_range(0..5))).await;
        }
    }

    async fn remove(&self, at: usize) {
        let now = self.truth.read();
        assert_eq!(self.cache.remove(KEYS[at]).await.unwrap().l2(), WriteStatus::Done);
        self.truth.removed[at].fetch_max(now, Ordering::SeqCst);
    }

    async fn remove_all(&self) {
        let now = self.truth.read();
        assert_eq!(self.cache.remove_by_tag("t").await.unwrap().l2(), WriteStatus::Done);
        for removed in &self.truth.removed {
            removed.fetch_max(now, Ordering::SeqCst);
        }
    }

    /// What is loaded is odd, what is set is even.
    async fn load(&self, key: &str, takes: Duration) {
        let truth = Arc::clone(&self.truth);
        let load = self.cache.get_or_set(key, move |_| async move {
            let read = truth.read() * 2 + 1;
            pass(takes).await;
            Ok::<_, BoxError>(read)
        });
        drop(load.tags(["t"]).await.unwrap());
    }
}

impl Truth {
    fn read(&self) -> u64 {
        self.source.fetch_add(1, Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_write_and_load_at_once_end_with_equal_copies_and_none_that_was_removed() {
    for seed in 0..40 {
        let (shelf, bus) = (Shelf::slow(seed), MemoryBackplane::new());
        let (clock, truth) = (TokioClock::new(), Arc::new(Truth::default()));
        let mut nodes = Vec::new();
        for node in 0..3 {
            let builder = Cache::builder("shop").clock(clock).seed(seed * 10 + node);
            let store = CasL2::new(shelf.clone());
            let cache = builder.l2(store).backplane(bus.clone()).build().unwrap();
            cache.ready().await.unwrap();
            nodes.push(Worker { cache, truth: Arc::clone(&truth) });
        }
        pass(Duration::from_millis(50)).await;
        let work = (0..6).zip(nodes.iter().cycle());
        let work: Vec<_> = work.map(|(i, node)| go(node.clone().work(seed * 100 + i))).collect();
        for worker in work {
            worker.await.unwrap();
        }
        pass(Duration::from_secs(3)).await;
        for (key, removed) in KEYS.iter().zip(&truth.removed) {
            let mut copies = Vec::new();
            for node in &nodes {
                copies.push(node.cache.get::<u64>(key).await.unwrap().map(|value| *value));
            }
            assert!(copies.iter().all(|copy| *copy == copies[0]), "seed {seed}: {copies:?}");
            let removed = removed.load(Ordering::SeqCst) * 2;
            let stays = copies[0].is_none_or(|copy| copy % 2 == 0 || copy >= removed);
            assert!(stays, "seed {seed}: {copies:?} was loaded before {removed}");
        }
        for node in &nodes {
            assert_eq!(node.cache.health().pending_removals, 0, "seed {seed}");
            node.cache.close().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removals_of_several_processes_at_once_are_all_numbered() {
    let shelf = Shelf::slow(1);
    let processes: Vec<_> = (0..4).map(|_| CasL2::new(shelf.clone())).collect();
    let removals = (1..=40).zip(processes.iter().cycle()).map(|(nonce, l2)| async move {
        let targets = vec![Target::Tag(TagHash(u128::from(nonce)))];
        let removal = Removal { nonce: Nonce(nonce), strength: Strength::Hard, targets };
        let (new_epoch, retention_ms) = (Epoch(1), 3_600_000);
        let ask = Advance { removal, epoch: None, frontier: 0, new_epoch, retention_ms };
        l2.advance("L", &ask, None).await.unwrap().seq
    });
    let mut numbers = join_all(removals).await;
    numbers.sort_unstable();
    let ask = SyncAsk {
        epoch: Some(Epoch(1)),
        from: 0,
        frontier: 0,
        last: None,
        new_epoch: Epoch(2),
        page: 4096,
        retention_ms: 3_600_000,
    };
    let reply = processes[0].sync("L", &ask).await.unwrap();
    let told: Vec<_> = reply.levels.iter().map(|(seq, _, _)| *seq).collect();
    assert_eq!(told, numbers, "each has a number of its own, and none is lost");
    assert_eq!(told.len(), 40);
}

/// A `set` where nothing is takes two writes: a load lock, then the value over it. A value written at once
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
    assert_eq!(fill.await.unwrap(), Put::Refused, "another load lock is another version");
    assert_eq!(version(&*l2, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_others_change_all_the_time_is_an_error_that_says_so() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    shelf.contend("key");
    let error = l2.set("key", value(1), None, None).await.unwrap_err();
    assert!(error.to_string().contains("other callers changed the value 16 times"), "{error}");
    assert!(!error.is_outage(), "the store is there");
    l2.set("another", value(1), None, None).await.unwrap();
}
