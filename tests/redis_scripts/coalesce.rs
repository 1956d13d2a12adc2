//! Concurrent reads, which share round trips: each gets its own answer.

use crinkle_core::l2::{L2, Read};
use crinkle_core::protocol::record::{LoadLock, LoadLockRequest};
use crinkle_core::protocol::{Epoch, Version};
use crinkle_l2_redis::RedisL2;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::raw;
use futures_util::future::join_all;
use redis::AsyncCommands;

use crate::heads::{large, stat};
use crate::liar::{Lie, before};

const CALLS: u64 = 200;

fn ask(id: u64) -> LoadLockRequest {
    LoadLockRequest { id: Version(id), ttl_ms: 60_000, replace: None, hidden: None }
}

#[tokio::test]
async fn concurrent_reads_get_each_its_own_answer() {
    let server = RedisServer::start();
    let store = RedisL2::connect(&server.url()).await.unwrap();
    for number in (0..CALLS).filter(|number| number % 2 == 0) {
        store.set(&format!("key:{number}"), large(1_000 + number), None, None).await.unwrap();
    }
    let reads = (0..CALLS).map(|number| {
        let store = &store;
        async move { store.read(&format!("key:{number}"), Some(ask(1 + number))).await.unwrap() }
    });
    for (number, Read { found, load_lock }) in (0..CALLS).zip(join_all(reads).await) {
        let version = found.and_then(|found| crinkle_core::l2::record::head(&found.bytes));
        if number % 2 == 0 {
            assert_eq!(version.map(|head| head.version()), Some(Version(1_000 + number)));
            assert_eq!(load_lock, LoadLock::None, "key {number}");
        } else {
            assert_eq!((version, load_lock), (None, LoadLock::Granted), "key {number}");
        }
    }
    // The load locks of the others are their own.
    let read = store.read("key:1", Some(ask(9_999))).await.unwrap();
    assert_eq!(read.load_lock, LoadLock::HeldBy(Version(2)));
}

#[tokio::test]
async fn the_first_reads_of_an_older_server_get_each_its_own_answer() {
    let server = RedisServer::start();
    let older = before(server.port(), Lie::OlderServer);
    let store = RedisL2::connect(&format!("redis://127.0.0.1:{older}")).await.unwrap();
    for number in 0..CALLS {
        store.set(&format!("key:{number}"), large(1_000 + number), None, None).await.unwrap();
    }
    let reads = (0..CALLS).map(|number| {
        let (store, ask) = (&store, (number % 2 == 0).then(|| ask(1 + number)));
        async move { store.read(&format!("key:{number}"), ask).await.unwrap() }
    });
    for (number, read) in (0..CALLS).zip(join_all(reads).await) {
        let found = read.found.and_then(|found| crinkle_core::l2::record::head(&found.bytes));
        assert_eq!(found.map(|head| head.version()), Some(Version(1_000 + number)));
    }
}

#[tokio::test]
async fn a_key_of_another_type_fails_alone() {
    let server = RedisServer::start();
    let url = server.url();
    let store = RedisL2::connect(&url).await.unwrap();
    let _: () = raw(&url).await.unwrap().rpush("key:7", "of another program").await.unwrap();
    let reads = (0..CALLS).map(|number| {
        let store = &store;
        async move { store.read(&format!("key:{number}"), Some(ask(1 + number))).await }
    });
    for (number, read) in (0..CALLS).zip(join_all(reads).await) {
        match read {
            Ok(read) => assert_eq!((number != 7, read.load_lock), (true, LoadLock::Granted)),
            Err(error) => assert_eq!(number, 7, "{error}"),
        }
    }
}

#[tokio::test]
async fn concurrent_calls_ask_the_ledger_together() {
    let server = RedisServer::start();
    let url = server.url();
    let store = RedisL2::connect(&url).await.unwrap();
    let asks = (0..CALLS).map(|_| store.shared_frontier("ledger", Epoch(7)));
    for answer in join_all(asks).await {
        assert_eq!(answer.unwrap(), None, "there is no ledger");
    }
    let asked = stat(&url, "commandstats", "cmdstat_zmscore").await;
    assert!(asked <= CALLS / 10, "{asked} requests for {CALLS} calls");
}
