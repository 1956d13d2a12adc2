//! The cache in one process, step by step: each call, its time, its answer, and the change of the
//! counters. Needs no server.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crinkle::{Cache, Cached, EntryOptions, Error, ErrorKind, FailSafe, Moment, Source, Stats};
use crinkle_examples::{Expectations, human, now};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const CALLERS: usize = 1_000;
const HITS: u32 = 1_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut show = Show::new()?;
    miss_then_hit(&mut show).await?;
    thundering_herd(&mut show).await?;
    removal_by_tag(&mut show).await?;
    fail_safe(&mut show).await?;
    println!();
    show.expectations.conclude()?;
    println!("Everything above held. Next: cargo run --release --example three_nodes");
    Ok(())
}

/// A product in the shop's database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u32,
    price: u64,
}

/// A database that takes 20 ms, counts its queries, and can be switched off.
#[derive(Debug, Default)]
struct Database {
    queries: AtomicUsize,
    price: AtomicU64,
    down: std::sync::atomic::AtomicBool,
}

impl Database {
    /// A plain `async fn` with its own error type; a factory can return it unchanged.
    async fn load(self: Arc<Self>, id: u32) -> io::Result<Product> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(io::Error::other("the database is down"));
        }
        Ok(Product { id, price: self.price.load(Ordering::SeqCst) })
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

async fn miss_then_hit(show: &mut Show) -> anyhow::Result<()> {
    show.title("A miss, then a hit");
    let (cache, db) = (show.cache.clone(), Arc::clone(&show.db));
    let load = || {
        let db = Arc::clone(&db);
        cache.get_or_set("product:1", |_| db.load(1)).tags(["products"])
    };

    let started = now();
    let product = load().await?;
    show.call("get_or_set(\"product:1\")", started, &product);
    show.expect(
        product.meta().source() == Source::Factory,
        "the factory ran: the value was not cached",
    );

    let started = now();
    let product = load().await?;
    show.call("get_or_set(\"product:1\")", started, &product);
    show.expect(product.meta().source() == Source::L1, "this process's memory answered");
    show.expect(db.queries() == 1, "the database got one query");

    let started = now();
    for _ in 0..HITS {
        black_box(cache.get::<Product>(black_box("product:1")).await?);
    }
    let each = now().since(started) / HITS;
    show.line(&format!("get(\"product:1\"), {HITS} times"), &format!("{} each", human(each)));
    show.underneath();
    Ok(())
}

async fn thundering_herd(show: &mut Show) -> anyhow::Result<()> {
    show.title("A thundering herd: 1,000 concurrent callers of one cold key");
    let before = show.db.queries();
    let started = now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (cache, db) = (show.cache.clone(), Arc::clone(&show.db));
            tokio::spawn(async move { cache.get_or_set("product:2", |_| db.load(2)).await })
        })
        .collect();
    let mut right = 0;
    for caller in callers {
        right += usize::from(caller.await??.id == 2);
    }
    show.line(&format!("{CALLERS} × get_or_set(\"product:2\")"), &human(now().since(started)));
    show.expect(right == CALLERS, "every caller got the product");
    show.expect(show.db.queries() - before == 1, "the database got one query");
    show.underneath();
    Ok(())
}

async fn removal_by_tag(show: &mut Show) -> anyhow::Result<()> {
    show.title("A removal by tag: 1,000 products in category 7, 10 in category 8");
    let (cache, db) = (show.cache.clone(), Arc::clone(&show.db));
    for id in 100..1_110 {
        let category = if id < 1_100 { "category:7" } else { "category:8" };
        let product = Product { id, price: 100 };
        // The receipt reports the write status in L2; this cache has no L2.
        let _ = cache.set(format!("product:{id}"), product).tags(["products", category]).await?;
    }
    db.price.store(90, Ordering::SeqCst);

    let started = now();
    let receipt = cache.remove_by_tag("category:7").await?;
    let answer = format!("{:?}", receipt.l2());
    show.line("remove_by_tag(\"category:7\")", &human(now().since(started)));
    show.line("", &format!("L2 {answer}: there is none; no entry was touched"));

    let mut gone = 0;
    for id in 100..1_100 {
        gone += usize::from(cache.get::<Product>(format!("product:{id}")).await?.is_none());
    }
    show.expect(gone == 1_000, "get finds none of the 1,000");
    let other = cache.get::<Product>("product:1105").await?;
    show.expect(other.is_some(), "category 8 is still there");

    let started = now();
    let product = cache.get_or_set("product:100", |_| db.load(100)).tags(["category:7"]).await?;
    show.call("get_or_set(\"product:100\")", started, &product);
    show.expect(product.price == 90, "the new price was loaded");
    show.underneath();
    Ok(())
}

async fn fail_safe(show: &mut Show) -> anyhow::Result<()> {
    show.title("Fail-safe: the database goes down, and the entry expires after 50 ms");
    let options = EntryOptions::new(Duration::from_millis(50))
        .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)));
    let (cache, db) = (show.cache.clone(), Arc::clone(&show.db));
    let load = || {
        let db = Arc::clone(&db);
        cache.get_or_set("product:3", |_| db.load(3)).options(options.clone())
    };
    let product = load().await?;
    sleep(Duration::from_millis(60)).await;
    db.down.store(true, Ordering::SeqCst);
    drop(product);

    let started = now();
    let product = load().await?;
    show.call("get_or_set(\"product:3\")", started, &product);
    show.expect(product.meta().is_stale(), "fail-safe served the stale value, marked as stale");

    let (started, before) = (now(), db.queries());
    let product = load().await?;
    show.call("get_or_set(\"product:3\")", started, &product);
    show.expect(db.queries() == before, "the database gets no query for 30 s (the throttle)");

    let _ = cache.remove("product:3").await?;
    let started = now();
    let error: Error = match load().await {
        Err(error) => error,
        Ok(product) => anyhow::bail!("a removed value came back: {product:?}"),
    };
    show.line("remove, then get_or_set", &human(now().since(started)));
    println!("     {error}");
    show.expect(
        error.kind() == ErrorKind::Factory && error.factory_error::<io::Error>().is_some(),
        "a removed value is no fallback; the caller gets the database's own error",
    );
    show.underneath();
    Ok(())
}

/// Prints the steps.
#[derive(Debug)]
struct Show {
    cache: Cache,
    db: Arc<Database>,
    expectations: Expectations,
    step: usize,
    last: Stats,
}

impl Show {
    fn new() -> Result<Self, Error> {
        let cache = Cache::builder("shop")
            .default_options(EntryOptions::new(Duration::from_secs(300)))
            .build()?;
        let db = Arc::new(Database::default());
        db.price.store(100, Ordering::SeqCst);
        let expectations = Expectations::new();
        Ok(Self { cache, db, expectations, step: 0, last: Stats::default() })
    }

    fn title(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
    }

    fn line(&self, what: &str, outcome: &str) {
        println!("   {what:<34}{outcome}");
    }

    fn call<T>(&self, what: &str, started: Moment, cached: &Cached<T>) {
        let took = human(now().since(started));
        let stale = if cached.meta().is_stale() { ", stale" } else { "" };
        self.line(what, &format!("{took:<10} from {:?}{stale}", cached.meta().source()));
    }

    fn expect(&mut self, holds: bool, what: &str) {
        self.expectations.expect(holds, what);
    }

    /// Prints the changes of the counters since the last call.
    fn underneath(&mut self) {
        let (now, then) = (self.cache.stats(), self.last);
        let moved: Vec<_> = [
            ("L1 hits", now.l1_hits - then.l1_hits),
            ("misses", now.misses - then.misses),
            ("factory calls", now.factory_calls - then.factory_calls),
            ("factory failures", now.factory_failures - then.factory_failures),
            ("shared another's load", now.joined - then.joined),
            ("hidden by a removal", now.hidden - then.hidden),
            ("stale answers", now.stale - then.stale),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
        println!("   underneath: {}", moved.join(", "));
        self.last = now;
    }
}
