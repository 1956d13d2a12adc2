//! Many caches on one client.

use crinkle::backplane::Backplane;
use crinkle::redis::RedisBackplane;
use crinkle::{Cache, Source};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::proxy::Proxy;
use crinkle_tests::redis::{ask, client, comes_true, named, ready};

/// How many connections the server has, that of the question apart.
async fn connections(server: &RedisServer) -> usize {
    let list: String = ask(&server.url(), &["CLIENT", "LIST"]).await.expect("it answers");
    list.lines().filter(|line| !line.contains("cmd=client")).count()
}

/// The channels that somebody listens to.
async fn channels(server: &RedisServer) -> usize {
    let list: Vec<String> = ask(&server.url(), &["PUBSUB", "CHANNELS"]).await.expect("it answers");
    list.len()
}

async fn caches(url: &str, count: usize) -> Vec<Cache> {
    let client = client(url).await;
    let mut caches = Vec::new();
    for number in 0..count {
        caches.push(ready(named(&format!("cache{number}"), &client)).await);
    }
    caches
}

#[tokio::test(flavor = "multi_thread")]
async fn all_caches_of_a_client_subscribe_on_one_connection() {
    let server = RedisServer::start();
    let (here, there) = (caches(&server.url(), 40).await, caches(&server.url(), 40).await);
    assert_eq!(connections(&server).await, 4, "commands and subscriptions, of two clients");
    // Each receives from its own peer.
    for (number, (one, two)) in here.iter().zip(&there).enumerate() {
        let _ = one.set("key", number).await.unwrap();
        let read = two.get::<usize>("key").await.unwrap();
        let read = read.expect("it was set");
        assert_eq!((*read, read.meta().source()), (number, Source::L2));
        let _ = one.remove("key").await.unwrap();
        comes_true("the other has heard", async || two.peek::<usize>("key").is_none()).await;
    }
    let resyncs =
        |caches: &[Cache]| caches.iter().map(|c| c.stats().resyncs_message_lost).sum::<u64>();
    assert_eq!((resyncs(&here), resyncs(&there)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_closes_leaves_its_channels_and_no_others() {
    let server = RedisServer::start();
    let mut caches = caches(&server.url(), 3).await;
    assert_eq!(channels(&server).await, 6);
    caches.pop().unwrap().close().await.unwrap();
    comes_true("its channels are left", async || channels(&server).await == 4).await;
    assert!(caches.iter().all(|cache| cache.health().subscribed));
    drop(caches);
    comes_true("the connection is closed", async || channels(&server).await == 0).await;
}

/// It takes one attempt to connect for all of them, and each is subscribed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_again_once_for_all() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let caches = caches(&proxy.url(), 20).await;
    let before = proxy.accepted();
    let killed: Option<u32> = ask(&server.url(), &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(killed, Some(1));
    comes_true("all are subscribed again", async || {
        channels(&server).await == 40 && caches.iter().all(|cache| cache.health().coherent)
    })
    .await;
    // One for all, and on a machine that stalls one that took too long.
    let made = proxy.accepted() - before;
    assert!((1..=3).contains(&made), "{made} new connections");
}

/// A node that receives nothing on a connection, though it is there, is given another; the others stay.
#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_again_is_given_a_new_connection() {
    let server = RedisServer::start();
    let client = client(&server.url()).await;
    let subscribe = async |name: &str| {
        let backplane = RedisBackplane::new(client.clone());
        backplane.subscribe(&["all".to_owned(), name.to_owned()]).await.unwrap()
    };
    let (one, two) = (subscribe("one").await, subscribe("two").await);
    assert_eq!(connections(&server).await, 1);
    drop(one);
    let one = subscribe("one").await;
    assert_eq!(connections(&server).await, 2);
    drop(two);
    comes_true("the old one is closed", async || connections(&server).await == 1).await;
    drop(one);
    comes_true("and the new one", async || connections(&server).await == 0).await;
}
