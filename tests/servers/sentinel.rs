//! A primary behind sentinels: who it is changes, and the clients follow.

use crinkle::redis::{Credentials, RedisClient};
use crinkle::{Cache, Source, WriteStatus};
use crinkle_testkit::redis::RedisServer;
use crinkle_testkit::sentinel::{NAME, SentinelServers, USER};
use crinkle_tests::redis::{comes_true, node_over, over, ready};

async fn node(servers: &SentinelServers) -> Cache {
    let client = RedisClient::sentinel_builder(servers.urls(), NAME)
        .user(Credentials::new(USER, "any"))
        .connect();
    ready(over(&client.await.expect("sound URLs"))).await
}

/// Asks one of the servers.
async fn ask_port<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> Option<T> {
    crinkle_tests::redis::ask(&format!("redis://127.0.0.1:{port}"), words).await
}

/// Both nodes write to the server at this port, and hear each other.
async fn both_use(port: u16, one: &Cache, two: &Cache) {
    comes_true("the new primary takes writes", async || {
        one.set("followed", 1_u64).await.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done)
            && ask_port::<u64>(port, &["EXISTS", "shop:v1:e:followed"]).await == Some(1)
    })
    .await;
    comes_true("the other node reads there", async || {
        two.get::<u64>("followed").await.is_ok_and(|found| found.is_some())
    })
    .await;
    comes_true("both are in step", async || one.health().coherent && two.health().coherent).await;
    one.remove("followed").await.expect("removed");
    comes_true("the other node learns of it", async || two.peek::<u64>("followed").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_left_for_the_one_that_the_sentinels_name() {
    let mut servers = SentinelServers::start();
    let (one, two) = (node(&servers).await, node(&servers).await);
    let load = one.get_or_set("key", |_| async { crinkle::ok(1_u64) }).await.expect("a value");
    assert_eq!(load.meta().source(), Source::Factory);
    assert_eq!(two.get::<u64>("key").await.expect("no error").as_deref(), Some(&1));
    let new = servers.ports()[1];
    comes_true("the replica follows", async || {
        ask_port::<u64>(new, &["EXISTS", "shop:v1:e:key"]).await == Some(1)
    })
    .await;
    servers.server(0).kill();
    both_use(new, &one, &two).await;
}

/// Two nodes, and a failover while the primary lives. A replica may be promoted before it has copied
/// anything; then there is another ledger, and what was set under the old one is never found.
async fn demoted(servers: &SentinelServers) -> (Cache, Cache) {
    let (one, two) = (node(servers).await, node(servers).await);
    comes_true("the replica has the ledger", async || {
        ask_port::<u64>(servers.ports()[1], &["EXISTS", "shop:v1:L"]).await == Some(1)
    })
    .await;
    let sentinel = servers.sentinel_ports()[0];
    comes_true("the sentinels agree to a failover", async || {
        ask_port::<String>(sentinel, &["SENTINEL", "FAILOVER", NAME]).await.is_some()
    })
    .await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_left_though_it_lives() {
    let servers = SentinelServers::start();
    let (one, two) = demoted(&servers).await;
    both_use(servers.ports()[1], &one, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_never_told_of_its_demotion_is_left() {
    let servers = SentinelServers::start();
    let old = servers.ports()[0];
    ask_port::<()>(old, &["ACL", "SETUSER", "default", "-slaveof", "-replicaof"])
        .await
        .expect("set");
    let (one, two) = demoted(&servers).await;
    both_use(servers.ports()[1], &one, &two).await;
    let role: Vec<redis::Value> = ask_port(old, &["ROLE"]).await.expect("an answer");
    assert_eq!(role[0], redis::Value::BulkString(b"master".to_vec()), "nobody has told it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_makes_no_sense_is_refused() {
    assert!(RedisClient::sentinel(["not a url"], NAME).await.is_err());
    assert!(RedisClient::sentinel(Vec::<String>::new(), NAME).await.is_err());
}

/// A sentinel that was cut off names a server that says that it is a primary, and is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_disagrees_with_the_others_is_not_believed() {
    let servers = SentinelServers::start();
    let other = RedisServer::start();
    let first = servers.sentinel_ports()[0];
    let removed: Option<String> = ask_port(first, &["SENTINEL", "REMOVE", NAME]).await;
    assert_eq!(removed.as_deref(), Some("OK"));
    let port = other.port().to_string();
    let words = ["SENTINEL", "MONITOR", NAME, "127.0.0.1", &port, "2"];
    let monitored: Option<String> = ask_port(first, &words).await;
    assert_eq!(monitored.as_deref(), Some("OK"));
    let client = RedisClient::sentinel(servers.urls(), NAME).await.expect("sound URLs");
    let cache = node_over(&client).await;
    let receipt = cache.set("key", 1_u64).await.expect("held here");
    assert_eq!(receipt.l2(), WriteStatus::Done);
    let there = ask_port::<u64>(servers.ports()[0], &["EXISTS", "shop:v1:e:key"]).await;
    assert_eq!((there, ask_port::<u64>(other.port(), &["DBSIZE"]).await), (Some(1), Some(0)));
}

/// The rights that `docs/redis.md` names for a user of the sentinels.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_sentinels_needs_no_more_than_two_commands() {
    let servers = SentinelServers::start();
    let words = ["ACL", "SETUSER", "asks", "on", ">secret", "resetchannels", "-@all"];
    let rights = ["+sentinel|masters", "+sentinel|get-master-addr-by-name"];
    for port in servers.sentinel_ports() {
        let set: Option<String> = ask_port(port, &[&words[..], &rights[..]].concat()).await;
        assert_eq!(set.as_deref(), Some("OK"));
    }
    let ports = servers.sentinel_ports().into_iter();
    let urls = ports.map(|port| format!("redis://asks:secret@127.0.0.1:{port}"));
    let client = RedisClient::sentinel(urls, NAME).await.expect("sound URLs");
    let receipt = node_over(&client).await.set("key", 1_u64).await.expect("held here");
    assert_eq!(receipt.l2(), WriteStatus::Done);
}
