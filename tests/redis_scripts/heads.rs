//! A look at the head of a record, on the wire.

use bytes::Bytes;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::l2::{L2, Record};
use crinkle_core::protocol::Version;
use crinkle_l2_redis::RedisL2;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::raw;
use redis::AsyncCommands;

pub(crate) fn large(version: u64) -> Record {
    let payload = vec![7; 100_000];
    let record = Envelope {
        version: Version(version),
        expired: false,
        epoch: None,
        stamp: 1,
        logical_ms: 60_000,
        physical_ms: 60_000,
        schema: 0,
        codec: 0,
        compression: 0,
        key: "key",
        weight: 1,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: Vec::new(),
        payload: &payload,
    };
    Record { bytes: record.encode(), ttl_ms: 60_000 }
}

pub(crate) async fn stat(url: &str, section: &str, name: &str) -> u64 {
    let mut connection = raw(url).await.unwrap();
    let info: String = redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(":0");
    let number = line.trim_start_matches(":calls=").trim_start_matches(':');
    number.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn heads_of_large_values_travel_without_them() {
    let server = RedisServer::start();
    let url = server.url();
    let store = RedisL2::connect(&url).await.unwrap();
    let keys: Vec<_> = (0..50).map(|number| format!("key:{number}")).collect();
    for (key, version) in keys.iter().zip(1..) {
        store.set(key, large(version), None, None).await.unwrap();
    }
    let before = stat(&url, "stats", "total_net_output_bytes").await;
    let heads = store.read_heads(&keys).await.unwrap();
    let sent = stat(&url, "stats", "total_net_output_bytes").await - before;
    let versions: Vec<_> = heads.iter().flatten().map(|head| head.version().0).collect();
    assert_eq!(versions, (1..=50).collect::<Vec<_>>());
    // Fifty heads, and what this test has asked about; not five megabytes.
    assert!(sent < 30_000, "{sent} bytes");
    assert_eq!(stat(&url, "commandstats", "cmdstat_getrange").await, 50);
}

#[tokio::test]
async fn nothing_a_load_lock_and_junk_have_the_head_that_they_have() {
    let server = RedisServer::start();
    let store = RedisL2::connect(&server.url()).await.unwrap();
    let mut connection = raw(&server.url()).await.unwrap();
    let load_lock: Bytes = record::load_lock(Version(7));
    let _: () = connection.set("load_lock", &load_lock[..]).await.unwrap();
    let _: () = connection.set("junk", "of another program").await.unwrap();
    let heads = store.read_heads(&["none", "load_lock", "junk"].map(str::to_owned)).await.unwrap();
    assert_eq!(heads, [None, record::head(&load_lock), None]);
}
