//! The index of keys by tag: a removal gives memory back at once, and only what it hides.

use std::time::Duration;

use crinkle::Cache;
use crinkle::redis::RedisL2;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{client, connection, over, ready};
use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

const BOUND: Duration = Duration::from_secs(20);

async fn indexed(url: &str, most: usize) -> Cache {
    let client = client(url).await;
    ready(over(&client).l2(RedisL2::new(client.clone()).with_tag_index(most))).await
}

/// Waits until there are so many records, and so many keys in all sets of tags together.
async fn until_left(raw: &mut MultiplexedConnection, records: usize, noted: usize) {
    let wait = async {
        while left(raw).await != (records, noted) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(BOUND, wait).await.is_ok();
    assert!(in_time, "expected {:?}, left are {:?}", (records, noted), left(raw).await);
}

async fn left(raw: &mut MultiplexedConnection) -> (usize, usize) {
    let keys = |pattern| {
        let mut keys = redis::cmd("KEYS");
        keys.arg(pattern);
        keys
    };
    let records: Vec<String> = keys("shop:v1:e:*").query_async(raw).await.expect("an answer");
    let sets: Vec<String> = keys("shop:v1:t:*").query_async(raw).await.expect("an answer");
    let mut noted = 0;
    for set in sets {
        let size: usize = redis::cmd("SCARD").arg(set).query_async(raw).await.expect("an answer");
        noted += size;
    }
    (records.len(), noted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_gives_the_memory_of_what_it_hides_back() {
    let server = RedisServer::start();
    let (cache, mut raw) = (indexed(&server.url(), 100_000).await, connection(&server.url()).await);
    for key in 0..1500 {
        let tag = if key < 1300 { "old" } else { "other" };
        cache.set(format!("key:{key}"), key).tags([tag, "all"]).await.expect("stored");
    }
    cache.remove_by_tag("old").await.expect("removed");
    cache.set("young", 1).tags(["old"]).await.expect("stored");
    until_left(&mut raw, 201, 1701).await;
    assert_eq!(cache.get::<i32>("young").strict().await.expect("read").as_deref(), Some(&1));
    // What was younger than the first removal is known to the second.
    cache.remove_by_tag("old").await.expect("removed");
    until_left(&mut raw, 200, 1700).await;
    cache.expire_by_tag("all").await.expect("expired");
    cache.remove_by_tag("all").await.expect("removed");
    until_left(&mut raw, 0, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_with_too_many_keys_keeps_what_it_knows_and_hides_the_rest() {
    let server = RedisServer::start();
    let (cache, mut raw) = (indexed(&server.url(), 10).await, connection(&server.url()).await);
    for key in 0..25 {
        cache.set(format!("key:{key}"), key).tags(["tag"]).await.expect("stored");
    }
    cache.remove_by_tag("tag").await.expect("removed");
    until_left(&mut raw, 15, 0).await;
    for key in 0..25 {
        let read = cache.get::<i32>(format!("key:{key}")).await.expect("read");
        assert!(read.is_none(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_frees_only_records_that_have_the_tag() {
    let server = RedisServer::start();
    let (cache, mut raw) = (indexed(&server.url(), 1000).await, connection(&server.url()).await);
    for key in ["kept", "freed"] {
        cache.set(key, 1).tags(["tag"]).await.expect("stored");
    }
    cache.set("kept", 2).await.expect("stored");
    cache.remove_by_tag("tag").await.expect("removed");
    until_left(&mut raw, 1, 0).await;
    assert_eq!(cache.get::<i32>("kept").strict().await.expect("read").as_deref(), Some(&2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_keys_ends_with_the_entries_in_it() {
    let server = RedisServer::start();
    let (cache, mut raw) = (indexed(&server.url(), 1000).await, connection(&server.url()).await);
    cache.set("old", 1).tags(["tag"]).await.expect("stored");
    cache.remove_by_tag("tag").await.expect("removed");
    cache.set("young", 1).tags(["tag"]).await.expect("stored");
    until_left(&mut raw, 1, 1).await;
    let sets: Vec<String> =
        redis::cmd("KEYS").arg("shop:v1:t:*").query_async(&mut raw).await.expect("an answer");
    let life: i64 =
        redis::cmd("PTTL").arg(&sets[0]).query_async(&mut raw).await.expect("an answer");
    assert!(life > 0, "{life}");
}
