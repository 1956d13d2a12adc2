//! A cache over a real memcached.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{L2, L2ErrorKind, Raw};
use crinkle_core::{Cache, EntryOptions, Settings};
use crinkle_l2_cas::{CasL2, CasStore, Stored};
use crinkle_l2_memcached::Memcached;
use crinkle_testkit::memcached::MemcachedServer;
use crinkle_tests::Loads;
use crinkle_tests::redis::comes_true_within;
use tokio::time::timeout;

/// The limit of a wait.
const LIMIT: Duration = Duration::from_secs(20);

fn store(server: &MemcachedServer) -> CasL2<Memcached> {
    CasL2::new(Memcached::connect(&server.url()).unwrap())
}

async fn node(server: &MemcachedServer, bus: &MemoryBackplane) -> Cache {
    let settings = Settings::default().poll(Duration::from_millis(100));
    // What a busy machine may take.
    let limit = Duration::from_secs(5);
    let options = EntryOptions::new(Duration::from_secs(3600));
    let options = options.l2_soft_timeout(limit).l2_hard_timeout(limit);
    let builder = Cache::builder("shop").settings(settings).default_options(options);
    let cache = builder.l2(store(server)).backplane(bus.clone()).build().unwrap();
    cache.ready().await.unwrap();
    cache
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_a_memcached() {
    let (server, bus, loads) = (MemcachedServer::start(), MemoryBackplane::new(), Loads::new());
    let (one, two) = (node(&server, &bus).await, node(&server, &bus).await);
    let odd = "a key with spaces, \n, ключ and so on";
    for key in ["plain", odd] {
        assert_eq!(*one.get_or_set(key, loads.value(1)).tags(["t"]).await.unwrap(), 1);
        assert_eq!(*two.get_or_set(key, loads.value(2)).tags(["t"]).await.unwrap(), 1);
    }
    assert_eq!(loads.count(), 2, "once per key");
    two.remove("plain").await.unwrap();
    comes_true_within(LIMIT, "the copy of the other node goes", async || {
        one.peek::<i32>("plain").is_none()
    })
    .await;
    assert!(one.get::<i32>("plain").await.unwrap().is_none());
    two.remove_by_tag("t").await.unwrap();
    comes_true_within(LIMIT, "the tagged one goes", async || {
        one.get::<i32>(odd).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_memcached_hides_what_was_stamped_before() {
    let (mut server, bus) = (MemcachedServer::start(), MemoryBackplane::new());
    let cache = node(&server, &bus).await;
    cache.set("key", 1).await.unwrap();
    server.kill();
    assert_eq!(*cache.get::<i32>("key").await.unwrap().unwrap(), 1, "L1 goes on");
    cache.remove("other").await.unwrap();
    server.restart();
    comes_true_within(LIMIT, "the ledger is another", async || cache.stats().epochs > 0).await;
    assert!(cache.get::<i32>("key").await.unwrap().is_none());
    cache.set("key", 2).await.unwrap();
    assert_eq!(*cache.get::<i32>("key").await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_process_that_is_gone_does_not_fit() {
    let mut server = MemcachedServer::start();
    let memcached = Memcached::connect(&server.url()).unwrap();
    let value = || Stored { bytes: "value".into(), ttl_ms: 60_000, lasting: true };
    assert!(memcached.swap("key", None, value()).await.unwrap());
    let old = memcached.get("key").await.unwrap().unwrap().token;
    server.restart();
    // The first call finds the connection broken.
    comes_true_within(LIMIT, "it is connected again", async || memcached.get("key").await.is_ok())
        .await;
    assert!(memcached.swap("key", None, value()).await.unwrap());
    let new = memcached.get("key").await.unwrap().unwrap().token;
    assert!(old != new, "both processes count from one");
    assert!(!memcached.swap("key", Some(old), value()).await.unwrap());
    assert!(memcached.swap("key", Some(new), value()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_large_for_memcached_stays_in_l1() {
    let server = MemcachedServer::start();
    let cache = Cache::builder("shop").codec(Raw).l2(store(&server)).build().unwrap();
    let loads = Loads::new();
    let large = vec![7_u8; 2 << 20];
    let loaded = cache.get_or_set("key", loads.value(large.clone())).await.unwrap();
    assert!(*loaded == large);
    assert!(cache.peek::<Vec<u8>>("key").is_some());
    let record = crinkle_core::l2::Record { bytes: large.into(), ttl_ms: 60_000 };
    let error = store(&server).set("key", record, None, None).await.unwrap_err();
    assert_eq!(error.kind(), L2ErrorKind::Full, "{error}");
    assert!(!error.is_unknown(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_one_request_takes_are_read_at_once() {
    let server = MemcachedServer::start();
    let l2 = store(&server);
    let asks: Vec<_> = (0..350).map(|n| (format!("key {n}"), None)).collect();
    for (key, _) in asks.iter().step_by(7) {
        let record = crinkle_core::l2::Record { bytes: key.clone().into(), ttl_ms: 60_000 };
        l2.set(key, record, None, None).await.unwrap();
    }
    let reads = l2.read_many(&asks).await.unwrap();
    for (n, ((key, _), read)) in asks.iter().zip(&reads).enumerate() {
        let expected = n.is_multiple_of(7).then_some(key.as_bytes());
        assert_eq!(read.found.as_ref().map(|found| &found.bytes[..]), expected, "{key}");
    }
}

/// A call that is dropped while its answer is on the way must not leave that answer to the next call.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_calls_do_not_mix_up_answers() {
    let server = MemcachedServer::start();
    let memcached = Arc::new(Memcached::connect(&server.url()).unwrap());
    for key in ["one", "two"] {
        let value = Stored { bytes: key.into(), ttl_ms: 60_000, lasting: true };
        assert!(memcached.swap(key, None, value).await.unwrap());
    }
    for micros in 0..200 {
        let _ = timeout(Duration::from_micros(micros), memcached.get("one")).await;
        assert_eq!(memcached.get("two").await.unwrap().unwrap().bytes, "two");
    }
}

#[test]
fn a_url_that_makes_no_sense_is_an_error() {
    Memcached::connect("redis://localhost").unwrap_err();
    Memcached::connect("localhost:11211").unwrap_err();
    assert_eq!(
        Memcached::connect("unix:///run/memcached.sock").unwrap().url(),
        "unix:///run/memcached.sock"
    );
}
