//! Removals by tag on one node, and what another does right after them, on real servers.

use std::time::Duration;

use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, WriteStatus};
use crinkle_testkit::cluster::ClusterServers;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::long;
use crinkle_tests::redis::{client, node_at, node_over, ready};
use tokio::time::{Instant, sleep};

const ROUNDS: usize = 100;

/// A node whose bus is another server: it receives nothing from the others.
async fn on_another_bus(server: &RedisServer, elsewhere: &RedisServer) -> Cache {
    let l2 = RedisL2::connect(&server.app_url()).await.expect("a sound URL");
    let bus = RedisBackplane::connect(&elsewhere.app_url()).await.expect("a sound URL");
    ready(Cache::builder("shop").l2(l2).backplane(bus)).await
}

async fn remove(cache: &Cache, round: usize) {
    let receipt = match round % 4 {
        0 => cache.remove_by_tag("t").await,
        1 => cache.expire_by_tag("t").await,
        2 => cache.expire_all().await,
        _ => cache.remove_all().await,
    };
    assert_eq!(receipt.expect("no trouble").l2(), WriteStatus::Done);
}

/// The removed value was answered by no strict read, whether the reader receives messages, has
/// just lost its subscription, or receives nothing.
async fn strict_reads(remover: &Cache, reader: &Cache, trouble: impl AsyncFn()) {
    for round in 0..ROUNDS {
        let key = format!("key:{round}");
        remover.set(&key, 1).tags(["t"]).options(long()).await.expect("no trouble");
        let read = reader.get::<i32>(&key).strict().await.expect("no trouble");
        assert_eq!(read.as_deref(), Some(&1), "{round}");
        trouble().await;
        remove(remover, round).await;
        let read = reader.get::<i32>(&key).strict().await.expect("no trouble");
        assert!(read.is_none(), "{round}");
        let load = reader.get_or_set(&key, |_| async { crinkle::ok(2) }).strict();
        assert_eq!(*load.await.expect("no trouble"), 2, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_read_sees_what_another_node_has_removed() {
    let (server, elsewhere) = (RedisServer::start(), RedisServer::start());
    let (remover, reader) = (node_at(&server.app_url()).await, node_at(&server.app_url()).await);
    strict_reads(&remover, &reader, async || ()).await;
    let admin = client(&server.url()).await;
    strict_reads(&remover, &reader, async || {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("pubsub");
        kill.query_async::<i64>(&mut admin.clone()).await.expect("a server");
    })
    .await;
    strict_reads(&remover, &on_another_bus(&server, &elsewhere).await, async || ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_read_in_a_cluster_asks_the_server_of_the_ledger() {
    let servers = ClusterServers::start();
    let node = async || {
        let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
        node_over(&client).await
    };
    let (remover, reader) = (node().await, node().await);
    strict_reads(&remover, &reader, async || ()).await;
}

/// A node that receives nothing writes as well as one that receives everything: what it stores
/// after a removal is readable.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_a_removal_is_readable() {
    let (server, elsewhere) = (RedisServer::start(), RedisServer::start());
    let (remover, receiving) = (node_at(&server.app_url()).await, node_at(&server.app_url()).await);
    let cut_off = on_another_bus(&server, &elsewhere).await;
    for (writer, round) in
        [&receiving, &cut_off].into_iter().flat_map(|w| (0..ROUNDS).map(move |r| (w, r)))
    {
        for how in ["set", "reserve", "load"] {
            let key = format!("{how}:{round}");
            let _ = writer.get::<i32>(&key).await.expect("no trouble");
            remove(&remover, round).await;
            let set = writer.set(&key, 7).tags(["t"]).options(long());
            let reach = match how {
                "set" => set.await.expect("no trouble").l2(),
                "reserve" => {
                    let reservation = writer.reserve(&key).await.expect("no trouble");
                    set.reserved(reservation).await.expect("no trouble").l2()
                }
                _ => {
                    let load = writer.get_or_set(&key, |_| async { crinkle::ok(7) });
                    let load = load.tags(["t"]).options(long().skip_l2_read(true));
                    load.await.expect("no trouble");
                    WriteStatus::Done
                }
            };
            let read = remover.get::<i32>(&key).strict().await.expect("no trouble");
            assert_eq!((reach, read.as_deref()), (WriteStatus::Done, Some(&7)), "{how}, {round}");
        }
    }
}

/// One connection answers them later than a call waits, if all are sent at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_removal_in_the_background_clears_nothing_else() {
    let server = RedisServer::start();
    let one = node_at(&server.url()).await;
    let _ = one.set("other", 1).await.unwrap();
    let keys: Vec<String> = (0..60_000).map(|at| format!("key:{at}")).collect();
    let _ = one.remove_many(&keys).background_l2(true).await.unwrap();
    let began = Instant::now();
    while one.health().in_flight > 0 && began.elapsed() < Duration::from_secs(120) {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((one.stats().recovery_overflows, one.health().in_flight), (0, 0));
    assert_eq!(one.peek::<i32>("other").as_deref(), Some(&1));
}
