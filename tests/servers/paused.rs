//! A server that stops answering for ten seconds while it is used, and then goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crinkle::{Cache, EntryOptions};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{client, comes_true_within, connection, over, ready};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_secs(10);
/// For one L2 operation.
const HARD: Duration = Duration::from_secs(3);
const FACTORY: Duration = Duration::from_millis(5);
/// What a loaded machine may add; a call that waits for the whole pause is to be found.
const SLACK: Duration = Duration::from_secs(3);
const KEYS: usize = 200;
const WORKERS: u64 = 8;

/// The truth: what each key was written with last. Writing the source comes first, as it should.
#[derive(Default)]
struct Source {
    next: AtomicU64,
    values: Mutex<HashMap<String, u64>>,
}

impl Source {
    fn write(&self, key: &str) -> u64 {
        // One number per write, taken under the lock, so that larger is later for each key.
        let mut values = self.values.lock();
        let value = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        values.insert(key.to_owned(), value);
        value
    }

    fn read(&self, key: &str) -> u64 {
        self.values.lock().get(key).copied().unwrap_or(0)
    }
}

/// The slowest call of all, and of those that began when the breaker was open.
#[derive(Default)]
struct Slowest {
    at_all: AtomicU64,
    while_open: AtomicU64,
    calls_while_open: AtomicU64,
}

impl Slowest {
    fn note(&self, open: bool, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.at_all.fetch_max(took, Ordering::Relaxed);
        if open {
            self.while_open.fetch_max(took, Ordering::Relaxed);
            self.calls_while_open.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn limited_at(url: &str) -> Cache {
    let options = EntryOptions::new(Duration::from_secs(600)).l2_hard_timeout(HARD);
    ready(over(&client(url).await).default_options(options)).await
}

/// One key belongs to one worker, so that the order of its writes is known.
async fn work(
    worker: u64,
    cache: Cache,
    source: Arc<Source>,
    slowest: Arc<Slowest>,
    over: Arc<AtomicBool>,
) {
    let mut rng = StdRng::seed_from_u64(worker);
    while !over.load(Ordering::Relaxed) {
        let key = format!("{worker}:{}", rng.random_range(0..KEYS));
        let open = !cache.health().l2_up;
        let began = Instant::now();
        match rng.random_range(0..10) {
            0 => {
                let value = source.write(&key);
                cache.set(&key, value).await.expect("it holds here");
            }
            1 => {
                source.write(&key);
                cache.remove(&key).await.expect("it holds here");
            }
            _ => {
                let (source, at) = (Arc::clone(&source), key.clone());
                let load = move |_| async move {
                    let value = source.read(&at);
                    sleep(FACTORY).await;
                    crinkle::ok(value)
                };
                cache.get_or_set(&key, load).await.expect("a value");
            }
        }
        slowest.note(open, began.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
}

async fn survives(server: &RedisServer, pause: impl AsyncFnOnce()) {
    let cache = limited_at(&server.app_url()).await;
    let (source, slowest) = (Arc::new(Source::default()), Arc::new(Slowest::default()));
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (source, slowest) = (Arc::clone(&source), Arc::clone(&slowest));
        workers.spawn(work(worker, cache.clone(), source, slowest, Arc::clone(&over)));
    }
    pause().await;
    comes_true_within(PAUSE * 3, "the breaker closes", async || cache.health().l2_up).await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended.expect("no worker failed");
    }
    comes_true_within(PAUSE * 3, "everything queued is sent", async || {
        let health = cache.health();
        health.recovery_backlog == 0 && health.pending_removals == 0
    })
    .await;
    let most = |slowest: &AtomicU64| Duration::from_millis(slowest.load(Ordering::Relaxed));
    let bound = HARD * 2 + FACTORY + SLACK;
    assert!(most(&slowest.at_all) <= bound, "a call took {:?}", most(&slowest.at_all));
    assert!(slowest.calls_while_open.load(Ordering::Relaxed) > 100, "the breaker was not open");
    let paid = most(&slowest.while_open);
    assert!(paid < HARD, "a call took {paid:?} though the breaker was open");
    nothing_is_older_than_its_last_write(&limited_at(&server.app_url()).await, &source).await;
}

async fn nothing_is_older_than_its_last_write(observer: &Cache, source: &Source) {
    let mut there = 0;
    for worker in 0..WORKERS {
        for key in (0..KEYS).map(|key| format!("{worker}:{key}")) {
            if let Some(found) = observer.get::<u64>(&key).await.expect("an answer") {
                assert_eq!(*found, source.read(&key), "{key} is older than its last write");
                there += 1;
            }
        }
    }
    // Most keys were written during the pause, and so invalidated.
    assert!(there > 20, "almost nothing was left to compare: {there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_costs_a_call_its_timeouts_and_no_key_its_last_write() {
    let server = RedisServer::start();
    survives(&server, async || {
        sleep(Duration::from_secs(1)).await;
        server.stop_process();
        sleep(PAUSE).await;
        server.cont_process();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_clients_cost_a_call_its_timeouts_and_no_key_its_last_write() {
    let server = RedisServer::start();
    survives(&server, async || {
        sleep(Duration::from_secs(1)).await;
        let mut raw = connection(&server.url()).await;
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(PAUSE.as_millis().to_string()).arg("ALL");
        let () = pause.query_async(&mut raw).await.expect("paused");
        sleep(PAUSE).await;
    })
    .await;
}
