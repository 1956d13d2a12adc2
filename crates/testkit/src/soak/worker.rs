//! One of the processes of a long run.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_backplane::{RedisBackplane, RedisClient};
use crinkle_core::{BoxError, Cache, EntryOptions, FailSafe, Settings};
use crinkle_l2_redis::RedisL2;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::{Outcome, measure};

/// The number of actors that use the cache.
const ACTORS: usize = 16;

/// The number of keys that are reused.
const KEYS: u32 = 3000;

/// The number of tags.
const TAGS: u32 = 100;

/// Uses a cache until standard input ends, and prints a sample of its resources every second.
///
/// # Errors
///
/// If the cache cannot be built.
pub fn work(url: &str, number: u64) -> Outcome<()> {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(use_cache(url, number))
}

async fn use_cache(url: &str, number: u64) -> Outcome<()> {
    let client = RedisClient::connect(url).await?;
    let options = EntryOptions::new(Duration::from_secs(3))
        .fail_safe(FailSafe::for_up_to(Duration::from_secs(8)))
        .jitter(Duration::from_secs(1));
    let cache = Cache::builder("soak")
        .settings(Settings::default().capacity(20_000).poll(Duration::from_millis(500)))
        .default_options(options)
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client))
        .build()?;
    let calls = Arc::new(AtomicU64::new(0));
    for actor in 0..ACTORS as u64 {
        let rng = StdRng::seed_from_u64(number * 1000 + actor);
        tokio::spawn(act(cache.clone(), rng, Arc::clone(&calls)));
    }
    loop {
        sleep(Duration::from_secs(1)).await;
        let sample = measure::process(cache.entry_count(), calls.load(Ordering::Relaxed));
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &sample)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
}

/// Ignores errors, since the server may be down.
async fn act(cache: Cache, mut rng: StdRng, calls: Arc<AtomicU64>) {
    loop {
        let key = format!("key:{}", rng.random_range(0..KEYS));
        let tag = format!("tag:{}", rng.random_range(0..TAGS));
        let size = rng.random_range(100..2000);
        let load = async move |_| Ok::<_, BoxError>("x".repeat(size));
        match rng.random_range(0..1000) {
            // A key that is read only once.
            0..40 => {
                let once = format!("once:{}", rng.random::<u64>());
                drop(cache.get_or_set(&once, load).tags([tag]).await);
            }
            40..60 => drop(cache.set(&key, "y".repeat(size)).tags([tag]).await),
            60..75 => drop(cache.remove(&key).await),
            75..90 => drop(cache.expire(&key).await),
            90..95 => drop(cache.remove_by_tag(&tag).await),
            95..100 => drop(cache.expire_by_tag(&tag).await),
            100 => drop(cache.expire_all().await),
            _ => drop(cache.get_or_set(&key, load).tags([tag]).await),
        }
        calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(rng.random_range(1..20))).await;
    }
}
