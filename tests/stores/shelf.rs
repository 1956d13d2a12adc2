//! A store in memory with only get and compare-and-swap, and one without the comparison.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{L2Error, Record};
use crinkle_core::protocol::Version;
use crinkle_core::{Clock, Moment};
use crinkle_l2_cas::{CasEntry, CasStore, PlainStore, Stored};
use crinkle_testkit::chaos::Gate;
use crinkle_testkit::clock::TokioClock;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::yield_now;
use tokio::time::sleep;

/// A value record.
pub(crate) fn record(version: u64, logical_ms: u64, ttl_ms: u64) -> Record {
    let envelope = Envelope {
        version: Version(version),
        expired: false,
        epoch: None,
        stamp: 0,
        logical_ms,
        physical_ms: ttl_ms,
        schema: 1,
        codec: 1,
        key: "key",
        weight: 1,
        tags: Vec::new(),
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        compression: 0,
        payload: b"value",
    };
    Record { bytes: envelope.encode(), ttl_ms }
}

/// A store in memory with nothing but get and compare-and-swap. Others get their turn before each call.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    clock: TokioClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, (u64, Bytes)>,
    /// When each may be forgotten, and is.
    ends: BTreeMap<String, Moment>,
    last: u64,
    writes: u64,
    biggest: usize,
    held: Vec<(String, Gate)>,
    contended: Option<String>,
    dice: Option<StdRng>,
}

/// The same without the comparison.
#[derive(Clone, Debug)]
pub(crate) struct PlainShelf(pub(crate) Shelf);

impl State {
    fn forget(&mut self, key: &str, now: Moment) {
        if self.ends.get(key).is_some_and(|ends| *ends < now) {
            self.values.remove(key);
        }
    }
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self { clock: TokioClock::new(), state: Arc::default() }
    }

    /// A store that takes up to 3 ms to begin with a call.
    pub(crate) fn slow(seed: u64) -> Self {
        let shelf = Self::new();
        shelf.state.lock().dice = Some(StdRng::seed_from_u64(seed));
        shelf
    }

    /// The way to the store: others may be faster.
    async fn travel(&self) {
        let micros = self.state.lock().dice.as_mut().map(|dice| dice.random_range(0..3_000));
        match micros {
            Some(micros) => sleep(Duration::from_micros(micros)).await,
            None => yield_now().await,
        }
    }

    /// The next write of this key that is not held yet gets stuck on its way: it comes to the gate, and is
    /// carried out when that opens, whether its caller still waits or not.
    pub(crate) fn hold(&self, key: &str) -> Gate {
        let gate = Gate::new();
        self.state.lock().held.push((key.to_owned(), gate.clone()));
        gate
    }

    /// Loses what is under a key, as an eviction does.
    pub(crate) fn lose(&self, key: &str) {
        self.state.lock().values.remove(key).expect("it is there");
    }

    /// Changes a bit of what is under a key.
    pub(crate) fn corrupt(&self, key: &str) {
        let mut state = self.state.lock();
        let (_, bytes) = state.values.get_mut(key).expect("it is there");
        let mut changed = bytes.to_vec();
        changed[20] ^= 1;
        *bytes = changed.into();
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.state.lock();
        state.values.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// The largest value that was ever stored, in bytes.
    pub(crate) fn biggest(&self) -> usize {
        self.state.lock().biggest
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// From now on, others change this key before each write.
    pub(crate) fn contend(&self, key: &str) {
        self.state.lock().contended = Some(key.to_owned());
    }

    async fn write(&self, key: &str, seen: Option<Option<u64>>, value: Stored) -> bool {
        self.travel().await;
        let gate = {
            let mut state = self.state.lock();
            let at = state.held.iter().position(|(held, _)| held == key);
            at.map(|at| state.held.remove(at).1)
        };
        let Some(gate) = gate else { return self.store(key, seen, value) };
        let (shelf, key) = (self.clone(), key.to_owned());
        let stuck = tokio::spawn(async move {
            gate.pass().await;
            shelf.store(&key, seen, value)
        });
        stuck.await.expect("no panic")
    }

    fn store(&self, key: &str, seen: Option<Option<u64>>, value: Stored) -> bool {
        let (mut state, now) = (self.state.lock(), self.clock.now());
        state.forget(key, now);
        if state.contended.as_deref() == Some(key) {
            return false;
        }
        let current = state.values.get(key).map(|(token, _)| *token);
        if seen.is_some_and(|seen| seen != current) {
            return false;
        }
        state.last += 1;
        state.writes += 1;
        state.biggest = state.biggest.max(value.bytes.len());
        let token = state.last;
        state.ends.insert(key.to_owned(), now + Duration::from_millis(value.ttl_ms));
        state.values.insert(key.to_owned(), (token, value.bytes));
        true
    }
}

#[async_trait]
impl CasStore for Shelf {
    type Token = u64;

    fn now_us(&self) -> u64 {
        1_700_000_000_000_000 + self.clock.now().as_nanos() / 1000
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<u64>>, L2Error> {
        self.travel().await;
        let mut state = self.state.lock();
        state.forget(key, self.clock.now());
        let held = state.values.get(key).cloned();
        Ok(held.map(|(token, bytes)| CasEntry { bytes, token }))
    }

    async fn swap(&self, key: &str, seen: Option<u64>, value: Stored) -> Result<bool, L2Error> {
        Ok(self.write(key, Some(seen), value).await)
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        self.travel().await;
        self.state.lock().values.remove(key);
        Ok(())
    }
}

#[async_trait]
impl PlainStore for PlainShelf {
    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, L2Error> {
        Ok(self.0.get(key).await?.map(|held| held.bytes))
    }

    async fn set(&self, key: &str, value: Stored) -> Result<(), L2Error> {
        self.0.write(key, None, value).await;
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        self.0.delete(key).await
    }
}
