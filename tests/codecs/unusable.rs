//! Records that a node cannot use: it keeps its own copy, and neither storms nor fights.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::{Codec, Compression, Wire};
use crinkle_core::{BoxError, EagerRefresh, EntryOptions, ErrorKind, Settings};
use crinkle_tests::{Loads, Node, World, pass};

/// A codec that writes text and reads it, or does not.
#[derive(Clone, Copy, Debug)]
struct Picky {
    id: u8,
    schema: u32,
    reads: bool,
}

impl Wire for Picky {
    fn id(&self) -> u8 {
        self.id
    }
}

impl Codec<String> for Picky {
    fn encode(&self, value: &String) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, BoxError> {
        if !self.reads {
            return Err("it reads nothing".into());
        }
        Ok(str::from_utf8(bytes)?.to_owned())
    }

    fn schema(&self) -> u32 {
        self.schema
    }
}

/// Writes what nobody reads.
const BLIND: Picky = Picky { id: 200, schema: 1, reads: false };
const OLD: Picky = Picky { id: 200, schema: 1, reads: true };
const NEW: Picky = Picky { id: 200, schema: 2, reads: true };
const FOREIGN: Picky = Picky { id: 201, schema: 1, reads: true };

/// A node, and what it loads: each kind of node another value.
struct Reader {
    node: Node<Picky>,
    value: String,
    loads: Loads,
}

impl Reader {
    async fn new(world: &World, codec: Picky, options: &EntryOptions) -> Self {
        let node = world.node_with(|b| b.default_options(options.clone()).codec(codec)).await;
        Self { node, value: format!("of {codec:?}"), loads: Loads::new() }
    }

    async fn read(&self) {
        let factory = self.loads.value(self.value.clone());
        let read = self.node.cache.get_or_set("hot", factory).await.expect("no trouble");
        assert_eq!(*read, self.value);
    }

    async fn read_in_a_batch(&self) {
        let keys = ["hot", "cold"];
        let (value, loads) = (self.value.clone(), self.loads.clone());
        let load = move |keys: Vec<String>| {
            let all: Vec<_> = keys.into_iter().map(|key| (key, value.clone())).collect();
            loads.value(all)(())
        };
        let read = self.node.cache.get_or_set_many(keys, load).await.expect("no trouble");
        assert!(read.iter().all(|read| **read == self.value));
    }
}

fn life(seconds: u64) -> EntryOptions {
    EntryOptions::new(Duration::from_secs(seconds))
}

async fn readers(world: &World, codecs: &[Picky], options: &EntryOptions) -> Vec<Reader> {
    let mut readers = Vec::new();
    for codec in codecs {
        readers.push(Reader::new(world, *codec, options).await);
    }
    readers
}

/// All nodes read a key twenty times a second; answers how often each has loaded it.
async fn loads_in(readers: &[Reader], seconds: u64) -> Vec<usize> {
    for _ in 0..seconds * 20 {
        for reader in readers {
            reader.read().await;
        }
        pass(Duration::from_millis(50)).await;
    }
    readers.iter().map(|reader| reader.loads.count()).collect()
}

/// At most one load, and one when the record has changed hands.
fn at_most(loads: &[usize], most: usize) {
    assert!(loads.iter().all(|&loads| loads <= most), "{loads:?}, and {most} are allowed");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_decode_is_no_load_storm() {
    let world = World::new().await;
    let readers = readers(&world, &[BLIND; 3], &life(600)).await;
    at_most(&loads_in(&readers, 60).await, 2);
}

#[tokio::test(start_paused = true)]
async fn two_schemas_or_codecs_on_one_key_do_not_fight() {
    for pair in [[OLD, NEW], [OLD, FOREIGN]] {
        let world = World::new().await;
        let readers = readers(&world, &[pair, pair].concat(), &life(600)).await;
        at_most(&loads_in(&readers, 60).await, 2);
    }
    let world = World::apart().await;
    let readers = readers(&world, &[OLD, NEW, FOREIGN], &life(600)).await;
    at_most(&loads_in(&readers, 60).await, 3);
}

/// A record changes hands at most twice in a life, however many nodes there are.
#[tokio::test(start_paused = true)]
async fn the_loads_of_two_schemas_are_bounded_by_the_lives_of_their_entries() {
    let world = World::new().await;
    let readers = readers(&world, &[OLD, NEW].repeat(5), &life(60)).await;
    at_most(&loads_in(&readers, 600).await, 2 * 10 + 2);
}

#[tokio::test(start_paused = true)]
async fn batches_and_single_calls_do_not_fight_either() {
    let world = World::new().await;
    let readers = readers(&world, &[OLD, NEW, BLIND], &life(600)).await;
    for _ in 0..500 {
        for reader in &readers {
            reader.read_in_a_batch().await;
            reader.read().await;
        }
        pass(Duration::from_millis(100)).await;
    }
    at_most(&readers.iter().map(|r| r.loads.count()).collect::<Vec<_>>(), 4);
}

/// An eager refresh renews the node's own copy, and leaves the record of the others alone.
#[tokio::test(start_paused = true)]
async fn an_eager_refresh_does_not_fight() {
    let world = World::new().await;
    let options = life(20).eager_refresh(EagerRefresh::after(0.5));
    let readers = readers(&world, &[OLD, NEW].repeat(2), &options).await;
    at_most(&loads_in(&readers, 200).await, 2 * 20 + 2);
}

/// What was kept beside a record is checked against its version: no reconnect costs a load.
#[tokio::test(start_paused = true)]
async fn a_copy_beside_a_record_is_verified_like_any_other() {
    let world = World::new().await;
    let readers = readers(&world, &[OLD, NEW], &life(600)).await;
    let before = loads_in(&readers, 2).await;
    for _ in 0..5 {
        for reader in &readers {
            reader.node.bus.cut();
        }
        pass(Duration::from_secs(5)).await;
        for reader in &readers {
            reader.node.bus.reconnect();
        }
        assert_eq!(loads_in(&readers, 5).await, before);
        let strict = readers[0].node.cache.get_or_set("hot", readers[0].loads.fail()).strict();
        assert_eq!(strict.await.unwrap().as_str(), readers[0].value);
    }
}

/// It ends like any other: by a removal, an expiry, a tag, a `set` of another node.
#[tokio::test(start_paused = true)]
async fn a_copy_beside_a_record_ends_with_it() {
    let world = World::new().await;
    let readers = readers(&world, &[OLD, NEW], &life(600)).await;
    loads_in(&readers, 1).await;
    for step in 0..4 {
        let before: Vec<_> = readers.iter().map(|r| r.loads.count()).collect();
        let other = &readers[1].node.cache;
        match step {
            0 => drop(other.remove("hot").await.unwrap()),
            1 => drop(other.expire("hot").await.unwrap()),
            2 => drop(other.expire_all().await.unwrap()),
            _ => drop(other.set("hot", readers[1].value.clone()).await.unwrap()),
        }
        pass(Duration::from_millis(100)).await;
        readers[0].read().await;
        assert!(readers[0].loads.count() > before[0], "step {step}");
        loads_in(&readers, 1).await;
    }
}

/// A plain read runs no factory: it is a miss until somebody has loaded, then the copy.
#[tokio::test(start_paused = true)]
async fn a_plain_read_answers_the_copy_or_misses() {
    let world = World::new().await;
    let old = Reader::new(&world, OLD, &life(600)).await;
    let mut blind = Reader::new(&world, BLIND, &life(600)).await;
    // The others can use what it writes.
    blind.value.clone_from(&old.value);
    old.read().await;
    assert!(blind.node.cache.get::<String>("hot").await.unwrap().is_none());
    blind.read().await;
    old.read().await;
    for reader in [&old, &blind] {
        let read = reader.node.cache.get::<String>("hot").await.unwrap().unwrap();
        assert_eq!(*read, reader.value);
    }
    let other = Reader::new(&world, NEW, &life(600)).await;
    let error = other.node.cache.get::<String>("hot").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
}

/// The new deployment takes a key over with one load; nodes of the old one load their own copy once.
#[tokio::test(start_paused = true)]
async fn a_roll_out_costs_one_load_and_one_more_on_each_old_node() {
    let world = World::new().await;
    let readers = readers(&world, &[OLD, OLD, OLD, NEW, NEW, NEW], &life(600)).await;
    let old = loads_in(&readers[..3], 1).await;
    assert_eq!(old.iter().sum::<usize>(), 1);
    let loads = loads_in(&readers, 60).await;
    assert_eq!(loads[3..].iter().sum::<usize>(), 1, "{loads:?}");
    assert_eq!(loads[..3].iter().sum::<usize>(), 1 + 3, "{loads:?}");
}

/// A node that was built without a compression, or with a smaller limit, does without those records.
#[tokio::test(start_paused = true)]
async fn a_record_above_the_limit_of_a_node_is_no_load_storm() {
    let world = World::new().await;
    let value = "x".repeat(100_000);
    let (loads, small) = (Loads::new(), Settings::default().max_value_bytes(1000));
    let settings = [Settings::default().compression(Compression::lz4()), small];
    let mut nodes = Vec::new();
    for settings in settings {
        nodes.push(world.node_with(|b| b.settings(settings).default_options(life(600))).await);
    }
    for _ in 0..60 {
        for node in &nodes {
            let read = node.cache.get_or_set("hot", loads.value(value.clone())).await.unwrap();
            assert_eq!(read.len(), value.len());
        }
        pass(Duration::from_secs(1)).await;
    }
    assert!(loads.count() <= 3, "{} loads", loads.count());
}
