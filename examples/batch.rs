//! A page of fifty products: one factory call loads all missing products. Concurrent readers of any
//! of them share the call.
//!
//! ```text
//! cargo run --release --example batch
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crinkle::{Cache, Cached};
use crinkle_examples::Expectations;
use tokio::time::sleep;

/// A database that answers any number of keys in 20 ms and counts its queries.
#[derive(Debug, Default)]
struct Database {
    queries: AtomicUsize,
    rows: AtomicUsize,
}

impl Database {
    async fn load_many(
        self: Arc<Self>,
        keys: Vec<String>,
    ) -> std::io::Result<HashMap<String, String>> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        self.rows.fetch_add(keys.len(), Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        Ok(keys.into_iter().map(|key| (key.clone(), format!("the row of {key}"))).collect())
    }

    fn reset_counts(&self) -> (usize, usize) {
        (self.queries.swap(0, Ordering::SeqCst), self.rows.swap(0, Ordering::SeqCst))
    }
}

async fn page(
    cache: &Cache,
    db: &Arc<Database>,
    ids: std::ops::Range<u32>,
) -> Result<Vec<Cached<String>>, crinkle::Error> {
    let db = Arc::clone(db);
    let keys = ids.map(|id| format!("product:{id}"));
    // An `Fn`, because the cache calls it again for keys whose load a removal has overtaken.
    let load = move |missing| Arc::clone(&db).load_many(missing);
    cache.get_or_set_many(keys, load).tags(["products"]).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut show = Expectations::new();
    let (cache, db) = (Cache::builder("shop").build()?, Arc::new(Database::default()));

    println!("A page of 50 products, none of them cached:");
    let first = page(&cache, &db, 0..50).await?;
    show.expect(first.len() == 50 && first[7].ends_with("product:7"), "in the order of the keys");
    show.expect(db.reset_counts() == (1, 50), "one query for 50 rows");

    println!("The next page, which shares 30 of them:");
    page(&cache, &db, 20..70).await?;
    show.expect(db.reset_counts() == (1, 20), "one query for the 20 that were missing");

    println!("Ten readers of one cold page, and ten of single products on it, at once:");
    let pages = (0..10).map(|_| page(&cache, &db, 100..150));
    let singles = (0..10).map(|id| {
        let (cache, db) = (cache.clone(), Arc::clone(&db));
        async move {
            let key = format!("product:{}", 100 + id);
            let load = |_| async move { db.load_many(vec![]).await.map(|_| String::new()) };
            cache.get_or_set(&key, load).await
        }
    });
    let (pages, singles) = tokio::join!(all(pages), all(singles));
    show.expect(pages.len() == 10 && singles.len() == 10, "all of them are answered");
    show.expect(db.reset_counts() == (1, 50), "by one query");

    cache.set_many([("product:1", "new".to_owned()), ("product:2", "new".to_owned())]).await?;
    cache.remove_many(["product:2", "product:3"]).await?;
    let found: Vec<Option<Cached<String>>> =
        cache.get_many(["product:1", "product:2", "product:3", "product:4"]).await?;
    let there: Vec<_> = found.iter().map(Option::is_some).collect();
    show.expect(there == [true, false, false, true], "writes and removals of many keys, too");
    show.conclude()
}

/// Runs the calls concurrently.
async fn all<T>(
    calls: impl Iterator<Item = impl Future<Output = Result<T, crinkle::Error>>>,
) -> Vec<T> {
    let mut done = Vec::new();
    for result in futures_util::future::join_all(calls).await {
        done.extend(result.ok());
    }
    done
}
