//! Servers whose wall clocks differ, step, and hand over to each other.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crinkle::redis::{Credentials, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions, WriteStatus};
use crinkle_core::SystemClock;
use crinkle_core::l2::{Deadline, L2, L2ErrorKind, Record};
use crinkle_testkit::cluster::ClusterServers;
use crinkle_testkit::redis::RedisServer;
use crinkle_testkit::sentinel::{NAME, SentinelServers, USER};
use crinkle_tests::redis::{client, comes_true, node_at, node_over, over, ready};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Sixty keys, whichever servers they are on, all set, announced and read back by another node.
async fn sets_go_through(case: &str, writer: &Cache, reader: &Cache) {
    for key in 0..60 {
        let (key, value) = (format!("key{key}"), format!("{case} {key}"));
        let receipt = writer.set(&*key, value.clone()).await.expect("it holds here");
        assert_eq!(receipt.l2(), WriteStatus::Done, "{case}: {key}: {:?}", writer.health());
        assert!(receipt.is_propagated(), "{case}: {key}");
        let read = async || reader.get::<String>(&*key).await.expect("no error");
        comes_true("the other node reads it", async || {
            read().await.is_some_and(|read| *read == value)
        })
        .await;
    }
    let health = writer.health();
    assert!(health.l2_up, "{case}: {:?}", health.last_l2_error);
    assert_eq!(health.recovery_backlog, 0, "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_go_through_whatever_the_clocks_of_a_clusters_servers_show() {
    let mut servers = ClusterServers::start_ahead([0, 0, 9000, 0, 0, 9000], &[]);
    let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
    let (one, two) = (node_over(&client).await, node_over(&client).await);
    sets_go_through("9 s ahead", &one, &two).await;
    // And they step, under way: the last two steps are forward and back.
    for ms in [-9000, -30_000, 30_000, 0] {
        servers.server(2).set_ahead(ms);
        sets_go_through(&format!("{ms} ms ahead"), &one, &two).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_server_with_another_clock_takes_sets_at_once() {
    for ahead in [[0, 9000], [0, -9000], [0, 30_000]] {
        let mut servers = SentinelServers::start_ahead(ahead);
        let client = RedisClient::sentinel_builder(servers.urls(), NAME)
            .user(Credentials::new(USER, "any"))
            .connect();
        let client = client.await.expect("sound URLs");
        let (one, two) = (node_over(&client).await, node_over(&client).await);
        sets_go_through(&format!("{ahead:?}, before"), &one, &two).await;
        servers.server(0).kill();
        comes_true("the other server takes writes", async || {
            let receipt = one.set("probe", 1).await.expect("it holds here");
            receipt.l2() == WriteStatus::Done
        })
        .await;
        comes_true("what failed is settled", async || one.health().recovery_backlog == 0).await;
        sets_go_through(&format!("{ahead:?}, after"), &one, &two).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_primary_of_a_cluster_with_another_clock_takes_sets() {
    let mut servers = ClusterServers::start_ahead([0, 0, 0, 0, 0, -30_000], &[]);
    let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
    let (one, two) = (node_over(&client).await, node_over(&client).await);
    sets_go_through("before", &one, &two).await;
    servers.fail_over(2).expect("its replica takes over");
    comes_true("the new primary is known", async || {
        for key in 0..60 {
            let key = format!("key{key}");
            if one.set(&*key, 0).await.expect("it holds here").l2() != WriteStatus::Done {
                return false;
            }
        }
        true
    })
    .await;
    comes_true("what failed is settled", async || one.health().recovery_backlog == 0).await;
    sets_go_through("after", &one, &two).await;
}

/// A deadline is told in the time of the server that gets it, and what comes after it removes, and is called
/// late. Whatever that server's clock shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_late_by_the_clock_of_its_own_server_only() {
    for ahead in [-30_000, -3000, 0, 3000, 30_000] {
        let server = RedisServer::start_ahead(ahead, &[]);
        let store = RedisL2::new(client(&server.app_url()).await);
        let record = || Record { bytes: vec![1; 100].into(), ttl_ms: 60_000 };
        let within = |limit| Some(Deadline::after(Arc::new(SystemClock), limit));
        let set = |limit| store.set("shop:key", record(), within(limit), None);
        let long = Duration::from_secs(10);
        set(long).await.expect("in time");
        let late = set(Duration::ZERO).await.expect_err("late");
        assert_eq!(late.kind(), L2ErrorKind::Late, "{late}");
        assert!(!late.is_outage() && !late.is_unknown(), "{late}");
        assert!(store.read("shop:key", None).await.expect("read").found.is_none());
        // A step forward makes it late by mistake, and it is sent again; a step back does not.
        for step in [20_000, 60_000, -60_000] {
            server.set_ahead(ahead + step);
            set(long).await.expect("in time");
            assert!(store.read("shop:key", None).await.expect("read").found.is_some());
        }
    }
}

/// A way to a server that can be held up: what clients send stays in it.
struct Way {
    port: u16,
    held: watch::Sender<bool>,
}

impl Way {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (held, holding) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server, holding.clone()));
            }
        });
        Self { port, held }
    }
}

async fn pass_on(client: TcpStream, server: u16, mut holding: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let ((mut from, mut to_client), (mut answers, mut to)) =
        (client.into_split(), server.into_split());
    let there = async {
        let mut bytes = vec![0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            let free = holding.wait_for(|held| !held).await.is_ok();
            if !free || to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = async { tokio::io::copy(&mut answers, &mut to_client).await };
    tokio::select! {
        () = there => (),
        _ = back => (),
    }
}

/// The bytes of a `set` come out of a proxy long after its deadline, over a newer value of another node.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_a_proxy_keeps_back_shows_nothing_older_whatever_the_clock() {
    for ahead in [0, 3000, -3000, -30_000] {
        let server = RedisServer::start_ahead(ahead, &[]);
        let way = Way::to(server.port()).await;
        let limit = Duration::from_secs(1);
        let options = EntryOptions::new(Duration::from_secs(600)).l2_hard_timeout(limit);
        let url = format!("redis://app:any@127.0.0.1:{}", way.port);
        let one = ready(over(&client(&url).await).default_options(options)).await;
        let two = node_at(&server.app_url()).await;
        assert_eq!(one.set("key", 0).await.expect("set").l2(), WriteStatus::Done);
        way.held.send_replace(true);
        assert_eq!(one.set("key", 1).await.expect("it holds here").l2(), WriteStatus::Unknown);
        assert_eq!(two.set("key", 2).await.expect("set").l2(), WriteStatus::Done);
        sleep(limit + Duration::from_millis(600)).await;
        way.held.send_replace(false);
        let seen = Mutex::new(HashSet::new());
        comes_true("what follows is settled", async || {
            seen_by(&seen, &two).await;
            one.health().recovery_backlog == 0 && one.health().l2_up
        })
        .await;
        seen_by(&seen, &two).await;
        seen_by(&seen, &one).await;
        assert!(!seen.lock().contains(&1), "{ahead} ms ahead: the older value is back");
    }
}

async fn seen_by(seen: &Mutex<HashSet<i32>>, node: &Cache) {
    let read = node.get::<i32>("key").await.expect("no error");
    seen.lock().extend(read.as_deref().copied());
}
