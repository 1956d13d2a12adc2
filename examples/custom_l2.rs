//! A custom L2: two nodes over a `HashMap`, through compare-and-swap.
//!
//! Replace the map by your table or bucket. `get` returns a value and a token of its state, `swap`
//! writes if the token still fits, `delete` deletes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use crinkle::backplane::MemoryBackplane;
use crinkle::cas::{CasEntry, CasL2, CasStore, Stored};
use crinkle::l2::L2Error;
use crinkle::{Cache, Clock, SystemClock};
use crinkle_examples::Expectations;
use crinkle_testkit::contract;

#[derive(Debug, Default)]
struct Map(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    values: HashMap<String, CasEntry<u64>>,
    /// One counter for all keys: a token must not fit a key that was deleted and created again.
    last: u64,
}

impl Map {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CasStore for Map {
    type Token = u64;

    fn now_us(&self) -> u64 {
        SystemClock.now().as_nanos() / 1000
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<u64>>, L2Error> {
        Ok(self.lock().values.get(key).cloned())
    }

    async fn swap(&self, key: &str, seen: Option<u64>, value: Stored) -> Result<bool, L2Error> {
        let mut inside = self.lock();
        if inside.values.get(key).map(|held| held.token) != seen {
            return Ok(false);
        }
        inside.last += 1;
        let held = CasEntry { bytes: value.bytes, token: inside.last };
        inside.values.insert(key.to_owned(), held);
        Ok(true)
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        self.lock().values.remove(key);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    contract::cas_store(&Map::default()).await;
    let store = Arc::new(CasL2::new(Map::default()));
    contract::l2(&store).await;
    println!("The store fulfils the contract. Two nodes share it:\n");
    let (bus, mut all) = (MemoryBackplane::new(), Expectations::new());
    let node = || Cache::builder("shop").l2(Arc::clone(&store)).backplane(bus.clone()).build();
    let (one, two) = (node()?, node()?);
    one.get_or_set("answer", async |_| crinkle::ok(42)).tags(["numbers"]).await?;
    let found = two.get::<i32>("answer").await?;
    all.expect(found.is_some_and(|answer| *answer == 42), "one node finds what the other loaded");
    two.remove_by_tag("numbers").await?;
    all.expect(two.get::<i32>("answer").await?.is_none(), "a removal by tag holds at once");
    println!("\n{}", two.guarantees());
    all.conclude()
}
