//! Connections to real servers, and caches over them, that are used from several runtimes, which end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crinkle::redis::{Credentials, RedisBackplane, RedisClient};
use crinkle::{Cache, Settings, WriteStatus};
use crinkle_core::backplane::Backplane;
use crinkle_testkit::cluster::ClusterServers;
use crinkle_testkit::redis::RedisServer;
use crinkle_testkit::sentinel::{NAME, SentinelServers, USER};
use crinkle_tests::redis::{DEADLINE, client, comes_true, node_at, over, ready};
use crinkle_tests::{current_thread, multi_thread};
use redis::AsyncCommands;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::timeout;

const KINDS: [fn() -> Runtime; 2] = [current_thread, multi_thread];

/// A node that trusts what it holds for an hour, unless a message says otherwise.
async fn trusting(client: &RedisClient) -> Cache {
    let settings = Settings::default().coherence_ttl(Duration::from_secs(3600));
    ready(over(client).settings(settings)).await
}

/// A command after the runtime of the connection has ended: it is not one error first.
fn commands_go_on(connect: impl AsyncFn() -> RedisClient) {
    for runtime in KINDS {
        let (first, second) = (runtime(), runtime());
        let mut client = first.block_on(async {
            let mut client = connect().await;
            comes_true("the server is there", async || {
                let mut client = client.clone();
                client.set::<_, _, ()>("key", 1).await.is_ok()
            })
            .await;
            let () = client.set("key", 2).await.expect("a connection");
            client
        });
        drop(first);
        let found: u32 = second.block_on(client.get("key")).expect("a new connection");
        assert_eq!(found, 2);
        drop(second);
        // The new one does not depend on who asked for it.
        let found: u32 = current_thread().block_on(client.get("key")).expect("the same one");
        assert_eq!(found, 2);
    }
}

#[test]
fn commands_outlive_the_runtime_that_connected() {
    let server = RedisServer::start();
    commands_go_on(async || client(&server.url()).await);
}

#[test]
fn commands_to_a_cluster_outlive_the_runtime_that_connected() {
    let servers = ClusterServers::start();
    commands_go_on(async || RedisClient::cluster(servers.urls()).await.expect("sound URLs"));
}

#[test]
fn commands_to_a_primary_behind_sentinels_outlive_the_runtime_that_connected() {
    let servers = SentinelServers::start();
    commands_go_on(async || {
        let builder = RedisClient::sentinel_builder(servers.urls(), NAME);
        builder.user(Credentials::new(USER, "any")).connect().await.expect("sound URLs")
    });
}

/// A subscriber is told that its subscription has ended.
#[test]
fn a_subscription_ends_with_its_runtime() {
    let server = RedisServer::start();
    let (first, second) = (current_thread(), current_thread());
    let mut subscription = first.block_on(async {
        let bus = RedisBackplane::new(client(&server.url()).await);
        bus.subscribe(&["news".to_owned()]).await.expect("subscribed")
    });
    drop(first);
    let ended =
        second.block_on(async { timeout(DEADLINE, subscription.next()).await }).expect("in time");
    assert!(ended.is_none());
}

/// A cache in a `static`, built by the first of several tests.
#[test]
fn a_cache_outlives_the_runtime_that_first_used_it() {
    for runtime in KINDS {
        let server = RedisServer::start();
        let others = multi_thread();
        let peer = others.block_on(node_at(&server.url()));
        let first = runtime();
        let cache = first.block_on(async {
            let cache = trusting(&client(&server.url()).await).await;
            let _ = cache.set("row", 1_u32).tags(["rows"]).await.expect("stored");
            let _ = cache.set("other", 1_u32).tags(["rows"]).await.expect("stored");
            cache
        });
        drop(first);
        let _ = others.block_on(async { peer.remove("row").await }).expect("removed");
        for test in 2..5_u32 {
            runtime().block_on(async {
                comes_true("the removal is heard", async || cache.peek::<u32>("row").is_none())
                    .await;
                let row = cache.get_or_set("row", move |_| async move { crinkle::ok(test) });
                assert_eq!(*row.await.expect("no error"), test);
                let receipt = cache.set("row", test).await.expect("stored");
                assert_eq!(
                    receipt.l2(),
                    WriteStatus::Done,
                    "the first write after a runtime ended"
                );
                let _ = peer.remove("row").await.expect("removed");
            });
        }
        let _ = others.block_on(async { peer.remove_by_tag("rows").await }).expect("removed");
        let last = runtime();
        last.block_on(async {
            comes_true("that is heard, too", async || cache.peek::<u32>("other").is_none()).await;
            comes_true("it is in step", async || cache.health().coherent).await;
            server.stop_process();
            let _ = cache.remove("queued").await.expect("it holds here");
            assert_eq!(cache.health().recovery_backlog, 1);
        });
        drop(last);
        server.cont_process();
        others.block_on(comes_true("nothing is queued", async || {
            cache.health().recovery_backlog == 0
        }));
    }
}

/// A runtime that lives, and that nobody drives: neither the tasks nor the connection go on there.
#[test]
fn a_cache_leaves_a_runtime_that_nobody_drives() {
    let server = RedisServer::start();
    let (first, second) = (current_thread(), multi_thread());
    let cache = first.block_on(async {
        let cache = trusting(&client(&server.url()).await).await;
        let _ = cache.set("row", 1_u32).await.expect("stored");
        cache
    });
    second.block_on(async {
        let peer = node_at(&server.url()).await;
        let _ = peer.remove("row").await.expect("removed");
        // Any call that is more than a hit notices.
        let _ = cache.get::<u32>("absent").await.expect("no error");
        comes_true("the removal is heard", async || cache.peek::<u32>("row").is_none()).await;
        comes_true("commands are answered", async || {
            cache.set("row", 2_u32).await.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done)
        })
        .await;
        comes_true("it is in step", async || cache.health().coherent).await;
    });
    // Driven again, what was left there ends.
    first.block_on(async {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    second.block_on(comes_true("it still is", async || cache.health().coherent));
}

/// Several runtimes at the same time, while the first of them ends.
#[test]
fn calls_of_many_runtimes_share_one_cache() {
    let server = RedisServer::start();
    let first = multi_thread();
    let cache = first.block_on(node_at(&server.url()));
    let calls = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..4_u32)
        .map(|caller| {
            let (cache, calls) = (cache.clone(), Arc::clone(&calls));
            thread::spawn(move || {
                for round in 0..50_u32 {
                    let runtime = KINDS[(caller as usize) % 2]();
                    runtime.block_on(async {
                        let key = format!("{}", round % 5);
                        let read =
                            cache.get_or_set(&key, move |_| async move { crinkle::ok(round) });
                        match timeout(DEADLINE, IntoFuture::into_future(read)).await {
                            Ok(Ok(_)) => {}
                            // It led a load that ended with the first runtime.
                            Ok(Err(error)) => {
                                assert_eq!(error.kind(), crinkle::ErrorKind::NoRuntime, "{error}");
                            }
                            Err(_) => panic!("a call hangs"),
                        }
                        let _ = cache.remove(&key).await.expect("removed");
                    });
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let last = multi_thread();
    last.block_on(comes_true("half of it is done", async || calls.load(Ordering::Relaxed) >= 100));
    first.shutdown_background();
    callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
    last.block_on(comes_true("it is in step", async || cache.health().coherent));
}
