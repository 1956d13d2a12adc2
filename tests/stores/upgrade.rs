//! T20: nodes of two wire versions share a store and a bus; a roll-out, and its roll-back.
//!
//! There is one version so far. The next one is played by nodes whose records and messages carry another
//! number on the wire, and that read both: what every version has to do for the one before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, MemoryBackplane, Subscription};
use crinkle_core::l2::{BusId, L2Error};
use crinkle_core::{BoxError, Cache, EntryOptions, Source, WriteStatus};
use crinkle_l2_cas::{CasEntry, CasL2, CasStore, Stored};
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{Loads, pass};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::shelf::Shelf;

/// Until a node knows what it was not told in words that it understands: its next poll, and a margin.
const POLL: Duration = Duration::from_millis(1100);

/// Which wire version a node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    This,
    Next,
}

/// A record or a message under another number, if it has the number `from`. Records in this store come after
/// the time at which they end.
fn renumber(bytes: &Bytes, from: u8, to: u8) -> Bytes {
    let at = match &bytes[..] {
        [_, _, _, _, _, _, _, _, b'C', b'R', b'K', number, ..] if *number == from => 11,
        [b'C', b'B', number, ..] if *number == from => 2,
        _ => return bytes.clone(),
    };
    let mut bytes = bytes.to_vec();
    bytes[at] = to;
    bytes.into()
}

/// The store as nodes of the next version use it.
#[derive(Debug)]
struct NextStore(Shelf);

#[async_trait]
impl CasStore for NextStore {
    type Token = u64;

    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<u64>>, L2Error> {
        let held = self.0.get(key).await?;
        Ok(held.map(|held| CasEntry { bytes: renumber(&held.bytes, 2, 1), ..held }))
    }

    async fn swap(&self, key: &str, seen: Option<u64>, value: Stored) -> Result<bool, L2Error> {
        self.0.swap(key, seen, Stored { bytes: renumber(&value.bytes, 1, 2), ..value }).await
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        self.0.delete(key).await
    }
}

/// The bus as nodes of the next version use it.
#[derive(Debug)]
struct NextBus(MemoryBackplane);

#[async_trait]
impl Backplane for NextBus {
    fn bus(&self) -> Option<BusId> {
        self.0.bus()
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        self.0.publish(channel, renumber(&message, 1, 2)).await
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        Ok(Box::new(NextSubscription(self.0.subscribe(channels).await?)))
    }
}

#[derive(Debug)]
struct NextSubscription(Box<dyn Subscription>);

#[async_trait]
impl Subscription for NextSubscription {
    async fn next(&mut self) -> Option<Incoming> {
        match self.0.next().await? {
            Incoming::Message(bytes) => Some(Incoming::Message(renumber(&bytes, 2, 1))),
            other => Some(other),
        }
    }
}

/// What the nodes share.
struct Shared {
    clock: TokioClock,
    shelf: Shelf,
    bus: MemoryBackplane,
}

impl Shared {
    async fn new() -> Self {
        // No node lives at the origin of its clock.
        pass(Duration::from_secs(3600)).await;
        Self { clock: TokioClock::new(), shelf: Shelf::new(), bus: MemoryBackplane::new() }
    }

    async fn node(&self, wire: Wire) -> Cache {
        let builder = Cache::builder("shop").clock(self.clock);
        let builder = match wire {
            Wire::This => builder.l2(CasL2::new(self.shelf.clone())).backplane(self.bus.clone()),
            Wire::Next => builder
                .l2(CasL2::new(NextStore(self.shelf.clone())))
                .backplane(NextBus(self.bus.clone())),
        };
        let cache = builder.build().unwrap();
        cache.ready().await.unwrap();
        pass(Duration::from_millis(50)).await;
        cache
    }
}

async fn read(cache: &Cache, loads: &Loads, value: u32) -> (u32, Source) {
    let read = cache.get_or_set("key", loads.value(value)).tags(["tag"]).await.unwrap();
    (*read, read.meta().source())
}

#[tokio::test(start_paused = true)]
async fn the_next_version_reads_this_one_and_this_one_loads_again() {
    let shared = Shared::new().await;
    let (this, next) = (shared.node(Wire::This).await, shared.node(Wire::Next).await);
    let loads = Loads::new();
    assert_eq!(read(&this, &loads, 1).await, (1, Source::Factory));
    assert_eq!(read(&next, &loads, 9).await, (1, Source::L2));
    let _ = next.set("key", 2_u32).tags(["tag"]).await.unwrap();
    pass(POLL).await;
    assert_eq!(read(&this, &loads, 3).await, (3, Source::Factory));
    assert!(this.stats().messages_undecodable > 0);
    pass(POLL).await;
    assert_eq!(read(&next, &loads, 9).await, (3, Source::L2), "it reads what replaced its own");
    assert_eq!(next.stats().messages_undecodable, 0);
}

#[tokio::test(start_paused = true)]
async fn removals_reach_the_other_version_in_both_directions() {
    let shared = Shared::new().await;
    let (this, next) = (shared.node(Wire::This).await, shared.node(Wire::Next).await);
    let loads = Loads::new();
    for (one, two, first) in [(&this, &next, 10), (&next, &this, 20)] {
        for (at, by_tag) in [(0, true), (1, false)] {
            let value = first + 2 * at;
            let _ = two.set("key", value).tags(["tag"]).await.unwrap();
            assert_eq!(read(two, &loads, 99).await.0, value);
            let receipt = match by_tag {
                true => one.remove_by_tag("tag").await.unwrap(),
                false => one.remove("key").await.unwrap(),
            };
            assert_eq!(receipt.l2(), WriteStatus::Done);
            pass(POLL).await;
            assert_eq!(read(two, &loads, value + 1).await, (value + 1, Source::Factory));
        }
    }
}

/// The source of truth, and which version of a key each node may still answer.
#[derive(Default)]
struct Truth {
    current: HashMap<&'static str, u32>,
    /// By slot and key.
    own: HashMap<(usize, &'static str), u32>,
    /// What every node must know by then.
    all: Vec<(Instant, &'static str, u32)>,
}

const KEYS: [(&str, &str); 4] = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")];

impl Truth {
    fn least(&self, slot: usize, key: &'static str) -> u32 {
        let told = self.all.iter().filter(|(by, of, _)| *of == key && *by <= Instant::now());
        let told = told.map(|(_, _, version)| *version).max().unwrap_or(0);
        told.max(self.own.get(&(slot, key)).copied().unwrap_or(0))
    }

    fn write(&mut self, keys: &[&'static str]) -> Vec<(&'static str, u32)> {
        let write = |key: &&'static str| {
            let version = self.current.entry(key).or_default();
            *version += 1;
            (*key, *version)
        };
        keys.iter().map(write).collect()
    }

    fn invalidated(&mut self, slot: usize, written: &[(&'static str, u32)]) {
        for (key, version) in written {
            self.own.insert((slot, key), *version);
            self.all.push((Instant::now() + 3 * POLL, key, *version));
        }
    }

    /// A node without memory: it sees what L2 holds.
    fn restarted(&mut self, slot: usize) {
        for (key, version) in &self.current {
            self.own.insert((slot, key), *version);
        }
    }
}

/// One caller after the other, at random, some of them beside a slow load.
async fn work(truth: &Arc<Mutex<Truth>>, nodes: &[Cache], rng: &mut StdRng) {
    for _ in 0..40 {
        let slot = rng.random_range(0..nodes.len());
        let (key, tag) = KEYS[rng.random_range(0..KEYS.len())];
        let slow = rng.random_bool(0.3).then(|| {
            let (slot, ms) = (rng.random_range(0..nodes.len()), rng.random_range(1..200));
            tokio::spawn(load(Arc::clone(truth), nodes[slot].clone(), slot, key, tag, ms))
        });
        pass(Duration::from_millis(rng.random_range(0..100))).await;
        match rng.random_range(0..10) {
            0..6 => load(Arc::clone(truth), nodes[slot].clone(), slot, key, tag, 0).await,
            op => write(truth, &nodes[slot], slot, (key, tag), op).await,
        }
        if let Some(slow) = slow {
            slow.await.unwrap();
        }
        pass(Duration::from_millis(rng.random_range(0..400))).await;
    }
}

async fn write(
    truth: &Mutex<Truth>,
    node: &Cache,
    slot: usize,
    (key, tag): (&'static str, &'static str),
    op: u32,
) {
    let tagged: Vec<_> = KEYS.iter().filter(|(_, of)| *of == tag).map(|(key, _)| *key).collect();
    let keys = if op == 9 { &tagged[..] } else { &[key] };
    let written = truth.lock().write(keys);
    let receipt = match op {
        6 => node.set(key, written[0].1).tags([tag]).await,
        7 | 8 => node.remove(key).await,
        _ => node.remove_by_tag(tag).await,
    };
    let receipt = receipt.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Done);
    truth.lock().invalidated(slot, &written);
}

async fn load(
    truth: Arc<Mutex<Truth>>,
    node: Cache,
    slot: usize,
    key: &'static str,
    tag: &'static str,
    takes_ms: u64,
) {
    let least = truth.lock().least(slot, key);
    let source = Arc::clone(&truth);
    let factory = move |_| async move {
        let version = source.lock().current.get(key).copied().unwrap_or(0);
        sleep(Duration::from_millis(takes_ms)).await;
        Ok::<_, BoxError>(version)
    };
    let options = EntryOptions::new(Duration::from_secs(600));
    let read = node.get_or_set(key, factory).tags([tag]).options(options).await.unwrap();
    assert!(*read >= least, "{key}: {} of at least {least}", *read);
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_and_its_roll_back_answer_nothing_that_was_invalidated() {
    for seed in 0..10 {
        let shared = Shared::new().await;
        let (truth, mut rng) = (Arc::<Mutex<Truth>>::default(), StdRng::seed_from_u64(seed));
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(shared.node(Wire::This).await);
        }
        let mut junk = 0;
        for wire in [Wire::Next, Wire::This] {
            for slot in 0..nodes.len() {
                work(&truth, &nodes, &mut rng).await;
                nodes[slot].close().await.unwrap();
                junk += nodes[slot].stats().messages_undecodable;
                nodes[slot] = shared.node(wire).await;
                truth.lock().restarted(slot);
            }
            work(&truth, &nodes, &mut rng).await;
            // All of one version: what one stores the others read.
            let _ = nodes[0].set("last", seed).await.unwrap();
            let read = nodes[2].get::<u64>("last").await.unwrap().unwrap();
            assert_eq!((*read, read.meta().source()), (seed, Source::L2));
        }
        assert!(junk > 0, "messages of the other version were heard and not understood");
    }
}
