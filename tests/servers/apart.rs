//! L2 on one server and the bus on another, and a writer that loses the bus alone.

use std::time::Duration;

use crinkle::redis::{RedisBackplane, RedisL2};
use crinkle::{Cache, EntryOptions, ErrorKind};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{DEADLINE, ask, client, comes_true, ready};
use tokio::time::{Instant, sleep, timeout};

/// Three polls and a round trip, and what a loaded machine may add. Without the rule it is an hour.
const BOUND: Duration = Duration::from_secs(9);

/// A user of the bus who can be switched off.
const WRITER: [&str; 8] =
    ["ACL", "SETUSER", "writer", "on", ">pw", "allkeys", "allchannels", "+@all"];

async fn node(l2: &RedisServer, bus: &str) -> crinkle::CacheBuilder {
    Cache::builder("shop")
        .default_options(EntryOptions::new(Duration::from_secs(3600)))
        .l2(RedisL2::new(client(&l2.url()).await))
        .backplane(RedisBackplane::new(client(bus).await))
}

async fn fresh(cache: &Cache) -> Option<i64> {
    let read = cache.get::<i64>("price").await.expect("no trouble");
    read.filter(|read| !read.meta().is_stale()).map(|read| *read)
}

/// Until when the reader answers a value that was replaced now.
async fn right_within(reader: &Cache, old: i64) {
    let began = Instant::now();
    let mut last = Duration::ZERO;
    while began.elapsed() < BOUND + Duration::from_secs(1) {
        if fresh(reader).await == Some(old) {
            last = began.elapsed();
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(last < BOUND, "the old value was answered as fresh for {last:?}");
    comes_true("the reader is in step", async || reader.health().coherent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_lost_the_bus_alone_leaves_nobody_with_the_old_value() {
    let (l2, bus) = (RedisServer::start(), RedisServer::start());
    let _: Option<String> = ask(&bus.url(), &WRITER).await;
    let writer = ready(node(&l2, &bus.url_for("writer", "pw")).await).await;
    let reader = ready(node(&l2, &bus.url()).await).await;
    let _ = writer.set("price", 1_i64).await.unwrap();
    comes_true("the reader has it", async || fresh(&reader).await == Some(1)).await;
    let off: Option<String> = ask(&bus.url(), &["ACL", "SETUSER", "writer", "off"]).await;
    assert!(off.is_some());
    let _: Option<i64> = ask(&bus.url(), &["CLIENT", "KILL", "USER", "writer"]).await;
    let _ = writer.set("price", 2_i64).await.unwrap();
    right_within(&reader, 1).await;
    let _ = writer.remove("price").await.unwrap();
    // Nobody is left who could tell later.
    drop(writer);
    right_within(&reader, 2).await;
    assert_eq!(fresh(&reader).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_stopped_leaves_nobody_with_the_old_value() {
    let (l2, bus) = (RedisServer::start(), RedisServer::start());
    let writer = ready(node(&l2, &bus.url()).await).await;
    let reader = ready(node(&l2, &bus.url()).await).await;
    let _ = writer.set("price", 1_i64).await.unwrap();
    comes_true("the reader has it", async || fresh(&reader).await == Some(1)).await;
    bus.stop_process();
    let _ = writer.remove("price").await.unwrap();
    let began = Instant::now();
    comes_true("it is gone", async || fresh(&reader).await.is_none()).await;
    assert!(began.elapsed() < BOUND);
    bus.cont_process();
    comes_true("the mark is taken back", async || {
        let before = reader.stats().resyncs_owed;
        sleep(Duration::from_secs(3)).await;
        reader.stats().resyncs_owed == before && reader.health().coherent
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_publish_is_an_error_from_the_start() {
    let (l2, bus) = (RedisServer::start(), RedisServer::start());
    let _: Option<String> = ask(&bus.url(), &WRITER).await;
    let mute: Option<String> = ask(&bus.url(), &["ACL", "SETUSER", "writer", "-publish"]).await;
    assert!(mute.is_some());
    let writer = node(&l2, &bus.url_for("writer", "pw")).await.build().unwrap();
    let error = timeout(DEADLINE, writer.ready()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backplane, "{error}");
    assert!(error.to_string().contains("publish"), "{error}");
    // Who goes on all the same leaves nobody with the old value.
    let reader = ready(node(&l2, &bus.url()).await).await;
    let _ = reader.set("price", 1_i64).await.unwrap();
    assert_eq!(fresh(&reader).await, Some(1));
    let _ = writer.remove("price").await.unwrap();
    right_within(&reader, 1).await;
}
