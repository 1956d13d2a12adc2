//! Caches that share a server, a connection, and a keyspace with strangers.

use crinkle::redis::RedisClient;
use crinkle::{Cache, Source};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{admin, comes_true, node_over};
use tokio::time::timeout;

use super::{DEADLINE, cache_named};

#[tokio::test(flavor = "multi_thread")]
async fn two_caches_on_one_connection_neither_see_nor_hear_each_other() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.app_url()).await.unwrap();
    let (shop, blog) = (cache_named("shop", &client), cache_named("blog", &client));
    for cache in [&shop, &blog] {
        timeout(DEADLINE, cache.ready()).await.expect("ready in time").unwrap();
    }
    shop.set("key", "shop".to_owned()).tags(["tag"]).await.unwrap();
    assert!(blog.get::<String>("key").await.unwrap().is_none());
    blog.set("key", "blog".to_owned()).tags(["tag"]).await.unwrap();

    shop.remove("key").await.unwrap();
    shop.remove_by_tag("tag").await.unwrap();
    shop.remove_all().await.unwrap();
    // A message after those, so that they would have been heard.
    blog.remove("other").require_propagation().await.unwrap();
    comes_true("both are in step", async || shop.health().coherent && blog.health().coherent).await;
    assert_eq!(blog.peek::<String>("key").as_deref().map(String::as_str), Some("blog"));
    assert!(shop.get::<String>("key").await.unwrap().is_none());
    assert_eq!((shop.health().peers, blog.health().peers), (0, 0));
    assert_eq!(blog.health().ledger_size, 0, "of barriers of the other's");

    let list: String = admin(&server, &["CLIENT", "LIST"]).await;
    let of_app = |line: &&str| line.contains("user=app");
    let subscribed = |line: &&str| of_app(line) && !line.contains(" sub=0 ");
    assert_eq!(list.lines().filter(of_app).count(), 2, "one for commands, one for subscriptions");
    assert_eq!(list.lines().filter(subscribed).count(), 1);
}

/// What others have put under the keys of the cache.
const FOREIGN: [(&str, &[&str]); 5] = [
    ("list", &["RPUSH", "shop:v1:e:list", "theirs"]),
    ("hash", &["HSET", "shop:v1:e:hash", "field", "theirs"]),
    ("set", &["SADD", "shop:v1:e:set", "theirs"]),
    ("text", &["SET", "shop:v1:e:text", "theirs"]),
    // It begins like a record, and is none.
    ("alike", &["SET", "shop:v1:e:alike", "CRK\u{1}VF and no more"]),
];

async fn is_usable(cache: &Cache) {
    assert!(cache.health().l2_up, "the breaker counts outages, not strangers");
    let receipt = cache.set("ours", 1_u64).require_propagation().await.unwrap();
    assert!(receipt.is_propagated());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_under_our_keys_is_a_counted_miss_each_time_and_no_more() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.app_url()).await.unwrap();
    let cache = node_over(&client).await;
    for (key, words) in FOREIGN {
        let _: redis::Value = admin(&server, words).await;
        for _ in 0..20 {
            let before = cache.stats();
            assert!(cache.get::<u64>(key).await.unwrap().is_none(), "{key}");
            let after = cache.stats();
            let counted = after.l2_errors + after.l2_undecodable;
            assert_eq!(counted, before.l2_errors + before.l2_undecodable + 1, "{key}");
        }
        for first in std::iter::once(true).chain([false; 20]) {
            let value = cache.get_or_set(key, |_| async { crinkle::ok(7_u64) }).await.unwrap();
            assert_eq!(value.meta().source() == Source::Factory, first, "{key}");
        }
        cache.remove(key).await.unwrap();
    }
    is_usable(&cache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_under_the_ledger_costs_what_is_cached_and_no_more() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.app_url()).await.unwrap();
    let cache = node_over(&client).await;
    cache.set("key", 1_u64).await.unwrap();
    for squatter in [
        &["SET", "shop:v1:L", "theirs"][..],
        &["RPUSH", "shop:v1:L", "theirs"],
        &["ZADD", "shop:v1:L", "5", "theirs"],
    ] {
        let epochs = cache.stats().epochs;
        let _: u64 = admin(&server, &["DEL", "shop:v1:L"]).await;
        let _: redis::Value = admin(&server, squatter).await;
        comes_true("a new ledger is met", async || cache.stats().epochs > epochs).await;
        let load = cache.get_or_set("key", |_| async { crinkle::ok(2_u64) }).await.unwrap();
        assert_ne!(load.meta().source(), Source::L1, "what was stamped before is not served");
        is_usable(&cache).await;
    }
}

#[tokio::test]
async fn a_prefix_that_could_reach_into_anothers_keys_is_refused() {
    for prefix in ["", "a*", "a?", "a[b]", "a b", "{a}", "a\n", "ä:", "shop:v1:", "shop:v1:e:"] {
        let built = Cache::builder("shop").key_prefix(prefix).build();
        assert_eq!(built.unwrap_err().kind(), crinkle::ErrorKind::InvalidOptions, "{prefix:?}");
    }
}
