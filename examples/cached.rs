//! A repository with attributes: `#[cached]` on what it reads, `#[invalidates]` on what it changes.
//!
//! ```text
//! cargo run --release --example cached
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crinkle::{Cache, Cached, cached, invalidates};
use crinkle_examples::Expectations;
use thiserror::Error;
use tokio::time::sleep;

#[derive(Clone, Debug, Error)]
enum ShopError {
    #[error("no product {0}")]
    NoSuchProduct(u32),
    #[error(transparent)]
    Cache(crinkle::Error),
}

/// Gives callers the error of the function, as it was.
impl From<crinkle::Error> for ShopError {
    fn from(error: crinkle::Error) -> Self {
        error.factory_error::<Self>().cloned().unwrap_or(Self::Cache(error))
    }
}

/// The names of products, and how many queries ran.
#[derive(Debug, Default)]
struct Db {
    names: Mutex<HashMap<u32, String>>,
    queries: AtomicU32,
}

impl Db {
    async fn name(&self, id: u32) -> Option<String> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        self.names.lock().ok()?.get(&id).cloned()
    }

    async fn search(&self, word: &str) -> Vec<u32> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        let Ok(names) = self.names.lock() else { return Vec::new() };
        names.iter().filter(|(_, name)| name.contains(word)).map(|(id, _)| *id).collect()
    }

    async fn rename(&self, id: u32, name: &str) -> bool {
        sleep(Duration::from_millis(20)).await;
        let Ok(mut names) = self.names.lock() else { return false };
        names.get_mut(&id).map(|old| name.clone_into(old)).is_some()
    }
}

#[derive(Clone, Debug)]
struct Shop {
    cache: Cache,
    db: Arc<Db>,
}

impl Shop {
    #[cached(cache = self.cache, key = "name:{id}", ttl = "60s", fail_safe = "1h")]
    async fn name(&self, id: u32) -> Result<String, ShopError> {
        self.db.name(id).await.ok_or(ShopError::NoSuchProduct(id))
    }

    /// Shares the list with its callers, and keeps only one that found something.
    #[cached(
        cache = self.cache,
        key = "search:{word}",
        tags = ["searches", "word:{word}"],
        ttl = "10s",
        stale_while_revalidate = "1m",
        when = |found| !found.is_empty()
    )]
    async fn search(&self, word: &str) -> Result<Cached<Vec<u32>>, ShopError> {
        Ok(self.db.search(word).await)
    }

    #[invalidates(cache = self.cache, keys = ["name:{id}"], tags = ["searches"])]
    async fn rename(&self, id: u32, name: &str) -> Result<(), ShopError> {
        if self.db.rename(id, name).await { Ok(()) } else { Err(ShopError::NoSuchProduct(id)) }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut show = Expectations::new();
    let names = HashMap::from([(7, "green tea".to_owned()), (8, "black tea".to_owned())]);
    let db = Arc::new(Db { names: Mutex::new(names), ..Db::default() });
    let shop = Shop { cache: Cache::builder("shop").build()?, db: Arc::clone(&db) };
    let queries = || db.queries.swap(0, Ordering::SeqCst);

    println!("Two callers at once, and a third after them:");
    let (one, two) = tokio::join!(shop.name(7), shop.name(7));
    let three = shop.name(7).await?;
    show.expect(one? == three && two? == three, "all have \"green tea\"");
    show.expect(queries() == 1, "one query ran");

    println!("A search, which shares its list:");
    let (one, two) = (shop.search("tea").await?, shop.search("tea").await?);
    show.expect(one.len() == 2 && std::ptr::eq(&*one, &*two), "both callers hold the same list");
    show.expect(shop.search("coffee").await?.is_empty(), "\"coffee\" finds nothing");
    show.expect(shop.search("coffee").await?.is_empty(), "and is asked for again");
    show.expect(queries() == 3, "three queries ran: an empty list is not kept");

    println!("A product gets another name:");
    shop.rename(8, "coffee").await?;
    show.expect(shop.name(8).await? == "coffee", "its key is removed");
    show.expect(shop.search("tea").await?.len() == 1, "and the searches that showed it");

    println!("There is no product 9:");
    let _ = queries();
    for _ in 0..2 {
        let error = shop.name(9).await.expect_err("there is none");
        show.expect(matches!(error, ShopError::NoSuchProduct(9)), "the function's own error");
    }
    show.expect(queries() == 2, "which is not kept");
    show.conclude()
}
