//! The whole cache against a reference that is one map: random calls on two nodes over one L2, on
//! virtual time. No faults are injected, so every answer is known in advance.
//!
//! Run more cases with `PROPTEST_CASES=100000 cargo test -p crinkle-tests --test model`.

mod ops;
mod reference;

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{Cached, Receipt, WriteStatus};
use crinkle_tests::{Node, TestError, World, pass};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tokio::runtime;

use ops::{Call, Meanwhile, NODES, Op, Read, history, tags};
use reference::{Reference, Seen};

/// Uses `PROPTEST_CASES` if it is set, else `cases`.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if asked { config } else { ProptestConfig { cases, ..config } }
}

fn check(history: Vec<(usize, Op)>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("no trouble").block_on(async {
        let mut run = Run::new().await;
        for (node, op) in history {
            run.settle().await;
            run.step(node, op).await;
        }
    });
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn every_call_answers_as_the_reference_does(history in history()) {
        check(history);
    }
}

/// Without this test, the reference would prove nothing.
#[test]
fn planted_bugs_are_noticed() {
    let bugs = [
        Sabotage::SoftSoftensHard,
        Sabotage::FailSafeIgnoresHard,
        Sabotage::NotificationIgnored,
        Sabotage::LoadLockNotReleased,
    ];
    for bug in bugs {
        plant(Some(bug));
        let config = ProptestConfig { max_shrink_iters: 0, ..config(200) };
        let same_each_time = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, same_each_time);
        let found = runner.run(&history(), |history| {
            check(history);
            Ok(())
        });
        plant(None);
        assert!(found.is_err(), "nothing noticed: {}", bug.name());
    }
}

struct Run {
    world: World,
    nodes: Vec<Node>,
    model: Reference,
    values: u32,
}

fn name(key: u8) -> String {
    format!("k{key}")
}

fn names(keys: &[u8]) -> Vec<String> {
    keys.iter().copied().map(name).collect()
}

fn seen(cached: Option<Cached<u32>>) -> Option<Seen> {
    cached.map(|cached| (*cached, cached.meta().is_stale()))
}

fn done(receipt: Receipt) {
    assert_eq!(receipt.l2(), WriteStatus::Done);
}

impl Run {
    async fn new() -> Self {
        let world = World::new().await;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(world.node().await);
        }
        Self { world, nodes, model: Reference::default(), values: 0 }
    }

    /// Waits until every node has received all changes and no entry is about to expire.
    async fn settle(&mut self) {
        self.pass(20).await;
        while self.model.is_close() {
            self.pass(250).await;
        }
    }

    async fn pass(&mut self, ms: u64) {
        pass(Duration::from_millis(ms)).await;
        self.model.now += ms;
    }

    fn value(&mut self) -> u32 {
        self.values += 1;
        self.values
    }

    async fn step(&mut self, node: usize, op: Op) {
        let cache = self.nodes[node].cache.clone();
        match op {
            Op::Get(key, read) => self.get(node, key, read).await,
            Op::GetMany(keys, read) => self.get_many(node, &keys, read).await,
            Op::Contains(key) => {
                let there = cache.contains(name(key)).await.expect("no trouble");
                assert_eq!(there, self.model.get(key, false).is_some());
            }
            Op::Load { key, call, fails } => self.load(node, key, &call, fails).await,
            Op::LoadMany { keys, call, fails } => self.load_many(node, &keys, &call, fails).await,
            Op::Set(key, call) => self.set(node, key, &call).await,
            Op::SetMany(keys, call) => self.set_many(node, &keys, &call).await,
            Op::SetReserved(key, meanwhile, call) => {
                self.reserve(node, key, meanwhile, &call).await
            }
            Op::Remove(key) => {
                done(cache.remove(name(key)).await.expect("no trouble"));
                self.model.remove(key);
            }
            Op::RemoveMany(keys) => {
                cache.remove_many(names(&keys)).await.expect("no trouble");
                keys.iter().for_each(|key| self.model.remove(*key));
            }
            Op::RemoveAndTags { keys, tags: mask } => {
                let receipt = match &keys[..] {
                    [key] => cache.remove(name(*key)).and_tags(tags(mask)).await,
                    keys => cache.remove_many(names(keys)).and_tags(tags(mask)).await,
                };
                done(receipt.expect("no trouble"));
                keys.iter().for_each(|key| self.model.remove(*key));
                self.model.invalidate(Some(mask), true);
            }
            Op::Expire(key) => {
                done(cache.expire(name(key)).await.expect("no trouble"));
                self.model.expire(key);
            }
            Op::Tags { tags: mask, hard: true } => {
                done(cache.remove_by_tags(tags(mask)).await.expect("no trouble"));
                self.model.invalidate(Some(mask), true);
            }
            Op::Tags { tags: mask, hard: false } => {
                for tag in tags(mask) {
                    done(cache.expire_by_tag(tag).await.expect("no trouble"));
                }
                self.model.invalidate(Some(mask), false);
            }
            Op::Clear { hard } => {
                let clear = if hard { cache.remove_all() } else { cache.expire_all() };
                done(clear.await.expect("no trouble"));
                self.model.invalidate(None, hard);
            }
            Op::Pass(ms) => self.pass(ms).await,
            Op::Restart => {
                self.nodes[node] = self.world.node().await;
                self.model.now += 50;
                self.model.restart();
            }
        }
    }

    async fn get(&mut self, node: usize, key: u8, read: Read) {
        let (cache, key_name) = (&self.nodes[node].cache, name(key));
        let mut get = cache.get::<u32>(&key_name).skip_l1_read(read.skip_l1);
        get = get.skip_l1_write(read.skip_l1);
        let get = if read.stale { get.allow_stale() } else { get };
        let get = if read.strict { get.strict() } else { get };
        let answer = seen(get.await.expect("no trouble"));
        assert_eq!(answer, self.model.get(key, read.stale), "{read:?} of {key} on {node}");
        let peeked = seen(cache.peek(&key_name));
        assert!(peeked.is_none() || peeked == self.model.get(key, false), "peek of {key}");
        if read.skip_l1 {
            self.model.forget([key]);
        }
    }

    async fn get_many(&mut self, node: usize, keys: &[u8], read: Read) {
        let get = self.nodes[node].cache.get_many::<u32>(names(keys)).allow_stale(read.stale);
        let get = get.skip_l1_read(read.skip_l1).skip_l1_write(read.skip_l1);
        let get = if read.strict { get.strict() } else { get };
        let answers: Vec<_> = get.await.expect("no trouble").into_iter().map(seen).collect();
        let expected: Vec<_> = keys.iter().map(|key| self.model.get(*key, read.stale)).collect();
        assert_eq!(answers, expected, "{read:?} of {keys:?} on {node}");
        if read.skip_l1 {
            self.model.forget(keys.iter().copied());
        }
    }

    async fn load(&mut self, node: usize, key: u8, call: &Call, fails: bool) {
        let brings = (!fails).then(|| self.value());
        let (loaded, key_name) = (Arc::new(Mutex::new(false)), name(key));
        let asked = Arc::clone(&loaded);
        let factory = move |_| async move {
            *asked.lock() = true;
            brings.ok_or_else(TestError::new)
        };
        let load = self.nodes[node].cache.get_or_set(&key_name, factory);
        let answer = seen(load.tags(tags(call.tags)).options(call.options()).await.ok());
        let loaded = *loaded.lock();
        let (expected, must) = self.model.load((node, key), brings, call, loaded);
        assert_eq!(answer, expected, "{key} on {node}");
        assert_eq!(loaded, must.unwrap_or(loaded), "whether {key} was loaded on {node}");
        if call.skip_l1 {
            self.model.forget([key]);
        }
    }

    async fn load_many(&mut self, node: usize, keys: &[u8], call: &Call, fails: bool) {
        let value = self.value();
        let loaded: Arc<Mutex<Vec<String>>> = Arc::default();
        let asked = Arc::clone(&loaded);
        let factory = move |keys: Vec<String>| {
            asked.lock().extend(keys.iter().cloned());
            async move {
                let all = keys.into_iter().map(|key| (key, value)).collect::<Vec<_>>();
                if fails { Err(TestError::new()) } else { Ok(all) }
            }
        };
        let load = self.nodes[node].cache.get_or_set_many(names(keys), factory);
        let answers = load.tags(tags(call.tags)).options(call.options()).await;
        let answers = answers.ok().map(|all| all.into_iter().map(|c| seen(Some(c))).collect());
        let brings = (!fails).then_some(value);
        let mut expected = vec![None; keys.len()];
        let mut unique: Vec<u8> = keys.to_vec();
        unique.sort_unstable();
        unique.dedup();
        for key in unique {
            let loaded = loaded.lock().contains(&name(key));
            let (answer, must) = self.model.load((node, key), brings, call, loaded);
            assert_eq!(loaded, must.unwrap_or(loaded), "whether {key} was loaded on {node}");
            let places = keys.iter().zip(&mut expected).filter(|(k, _)| **k == key);
            places.for_each(|(_, place)| *place = answer);
        }
        let fine = expected.iter().all(Option::is_some);
        assert_eq!(answers, fine.then_some(expected), "{keys:?} on {node}");
        if call.skip_l1 {
            self.model.forget(keys.iter().copied());
        }
    }

    async fn set(&mut self, node: usize, key: u8, call: &Call) {
        let (value, key_name) = (self.value(), name(key));
        let set = self.nodes[node].cache.set(&key_name, value).tags(tags(call.tags));
        done(set.options(call.options()).await.expect("no trouble"));
        self.model.set(key, value, call);
    }

    async fn set_many(&mut self, node: usize, keys: &[u8], call: &Call) {
        let entries: Vec<_> = keys.iter().map(|key| (*key, self.value())).collect();
        let named = entries.iter().map(|(key, value)| (name(*key), *value));
        let set = self.nodes[node].cache.set_many(named).tags(tags(call.tags));
        set.options(call.options()).await.expect("no trouble");
        entries.iter().for_each(|(key, value)| self.model.set(*key, *value, call));
    }

    async fn reserve(&mut self, node: usize, key: u8, meanwhile: Meanwhile, call: &Call) {
        let (value, other) = (self.value(), self.nodes[1 - node].cache.clone());
        let cache = self.nodes[node].cache.clone();
        let reservation = cache.reserve(name(key)).await.expect("no trouble");
        let superseded = match meanwhile {
            Meanwhile::Nothing => false,
            Meanwhile::Removed => {
                done(other.remove(name(key)).await.expect("no trouble"));
                self.model.remove(key);
                true
            }
            Meanwhile::Tag(tag) => {
                done(other.remove_by_tag(format!("t{tag}")).await.expect("no trouble"));
                self.model.invalidate(Some(1 << tag), true);
                call.tags >> tag & 1 == 1
            }
        };
        self.pass(20).await;
        let key_name = name(key);
        let set = cache.set(&key_name, value).reserved(reservation).tags(tags(call.tags));
        let reach = set.options(call.options()).await.expect("no trouble").l2();
        assert_eq!(reach == WriteStatus::Superseded, superseded, "{meanwhile:?}: {reach:?}");
        if !superseded {
            self.model.set(key, value, call);
        }
    }
}
