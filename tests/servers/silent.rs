//! Connections that stay open and lead nowhere, or to a server that takes no writes any more.

use std::time::Duration;

use crinkle::l2::L2;
use crinkle::redis::{RedisBackplane, RedisL2};
use crinkle::{Cache, EntryOptions, Settings, WriteStatus};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::proxy::Proxy;
use crinkle_tests::redis::{
    HASTE, ask, client, comes_true, comes_true_within, node_at, over, ready, within,
};
use tokio::time::timeout;

/// Written by one node and read by another: the path of commands and the subscription both work.
async fn is_in_step(writer: &Cache, reader: &Cache, value: u32) {
    comes_true("what one node sets, the other reads", async || {
        let receipt = writer.set("k", value).await;
        let is_sent = receipt.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done);
        is_sent
            && reader.get::<u32>("k").await.is_ok_and(|found| found.is_some_and(|v| *v == value))
    })
    .await;
    comes_true("both nodes hear the bus", async || {
        [writer, reader].into_iter().all(|node| node.health().coherent)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_is_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let client_of_proxy = client(&proxy.url()).await;
    let node = ready(over(&client_of_proxy).default_options(within(HASTE))).await;
    let other = node_at(&server.url()).await;
    is_in_step(&other, &node, 1).await;
    let before = proxy.accepted();
    proxy.silence();
    is_in_step(&node, &other, 2).await;
    is_in_step(&other, &node, 3).await;
    // One for commands, one for the subscription.
    let made = proxy.accepted() - before;
    assert!((2..=4).contains(&made), "{made} new connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_a_silent_connection_holds_hold_up_no_later_ones() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RedisL2::new(client(&proxy.url()).await);
    let read = store.read("k", None).await.expect("the server answers");
    assert!(read.found.is_none());
    proxy.silence();
    let held: Vec<_> = (0..50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.read(&format!("k{number}"), None).await })
        })
        .collect();
    // The client replaces the connection 3 s after its last answer.
    comes_true_within(Duration::from_secs(7), "a later read is answered", async || {
        let read = timeout(Duration::from_millis(500), store.read("k", None)).await;
        read.is_ok_and(|read| read.is_ok())
    })
    .await;
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_falls_silent_is_connected_to_again() {
    let (store, bus) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(bus.port()).await;
    let over = async |bus: &str| {
        let builder = Cache::builder("shop")
            .default_options(EntryOptions::new(Duration::from_secs(600)))
            .l2(RedisL2::new(client(&store.app_url()).await))
            .backplane(RedisBackplane::new(client(bus).await));
        ready(builder).await
    };
    let (node, other) = (over(&proxy.url()).await, over(&bus.url()).await);
    is_in_step(&other, &node, 1).await;
    proxy.silence();
    is_in_step(&node, &other, 2).await;
    is_in_step(&other, &node, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_to_a_new_primary_is_resolved_again() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port()).await;
    let node = node_at(&proxy.url()).await;
    assert!(node.set("k", 1_u32).await.expect("held here").is_propagated());
    // The demoted server keeps its connections.
    proxy.lead_to(new.port());
    let port = new.port().to_string();
    let demoted: Option<String> = ask(&old.url(), &["REPLICAOF", "127.0.0.1", &port]).await;
    assert_eq!(demoted.as_deref(), Some("OK"));
    let other = node_at(&new.url()).await;
    is_in_step(&node, &other, 2).await;
}

/// What another node has removed on the new primary, the old one still holds; it says that it is none only to a
/// command that writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_demoted_answers_no_strict_read() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port()).await;
    // No poll finds it out first.
    let minute = Duration::from_secs(60);
    let settings = Settings::default().poll(minute).coherence_ttl(4 * minute);
    let node = ready(over(&client(&proxy.url()).await).settings(settings)).await;
    assert!(node.set("k", 1_u32).await.expect("held here").is_propagated());
    let old_port = old.port().to_string();
    let _: Option<String> = ask(&new.url(), &["REPLICAOF", "127.0.0.1", &old_port]).await;
    comes_true("the replica has what the primary has", async || {
        let [one, two]: [Option<u64>; 2] =
            [ask(&old.url(), &["DBSIZE"]).await, ask(&new.url(), &["DBSIZE"]).await];
        one == two && two.is_some_and(|records| records > 1)
    })
    .await;
    let _: Option<String> = ask(&new.url(), &["REPLICAOF", "NO", "ONE"]).await;
    let other = node_at(&new.url()).await;
    assert!(other.remove("k").await.expect("held here").is_propagated());
    // It keeps its connections, and what it has: nobody is there whom it could follow.
    proxy.lead_to(new.port());
    let _: Option<String> = ask(&old.url(), &["REPLICAOF", "127.0.0.1", "1"]).await;
    let found = node.get::<u32>("k").strict().await;
    assert!(!matches!(found, Ok(Some(_))), "it was removed");
    assert!(other.set("k", 2_u32).await.expect("held here").is_propagated());
    comes_true("the new primary answers", async || {
        let found = node.get::<u32>("k").strict().await;
        found.is_ok_and(|found| found.is_some_and(|value| *value == 2))
    })
    .await;
}
