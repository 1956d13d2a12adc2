//! What changes nothing: inspect, tags, stats.

use std::collections::BTreeSet;

use crinkle_core::l2::{Compression, L2};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::LoadLockRequest;
use crinkle_core::{Cache, Settings};
use crinkle_l2_redis::RedisL2;
use crinkle_testkit::redis::RedisServer;
use serde_json::Value;

use crate::{Ran, at, crinkle, node, number, plant_ledger, raw};

/// What no output may ever hold.
const VALUE: &str = "hunter2-hunter2-hunter2";

async fn run(server: &RedisServer, args: &[&str]) -> Ran {
    let (url, args) = (server.url(), args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let run = move || at(&url, &args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn inspected(server: &RedisServer, key: &str) -> (i32, Value) {
    let ran = run(server, &["inspect", key, "--json"]).await;
    assert!(!ran.out.contains("hunter2"), "{ran:?}");
    (ran.code, ran.json())
}

fn fields(json: &Value) -> BTreeSet<&str> {
    json.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_shown_without_its_value() {
    let server = RedisServer::start();
    let node = node(&server).await;
    node.set("a", VALUE.to_owned()).tags(["red", "blue"]).await.unwrap();
    let (code, json) = inspected(&server, "a").await;
    assert_eq!((code, &json["kind"], &json["verdict"]), (0, &"value".into(), &"fresh".into()));
    assert_eq!(json["redis_key"], "shop:v1:e:a");
    assert_eq!(json["tags"], serde_json::json!(["red", "blue"]));
    assert_eq!((&json["codec"], &json["codec_name"]), (&1.into(), &"messagepack".into()));
    assert_eq!((&json["compression"], &json["weight"]), (&"none".into(), &1.into()));
    assert_eq!(json["logical_ms"], 3_600_000);
    assert!(json["age_ms"].as_u64().unwrap() < 60_000, "{json:#}");
    assert_eq!(json["epoch"], json["ledger_epoch"]);
    assert!(json["payload_bytes"].as_u64().unwrap() < json["record_bytes"].as_u64().unwrap());
    let text = run(&server, &["inspect", "a"]).await;
    assert!(text.out.contains("verdict       fresh") && !text.out.contains("hunter2"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_that_hides_a_record_is_named() {
    let server = RedisServer::start();
    let node = node(&server).await;
    let write = || node.set("a", VALUE.to_owned()).tags(["red", "blue"]);
    write().await.unwrap();
    node.expire_by_tag("blue").await.unwrap();
    let (_, json) = inspected(&server, "a").await;
    assert_eq!((&json["verdict"], &json["why"]), (&"stale".into(), &"tag".into()));
    let number = number(node.remove_by_tag("red").await);
    let (_, json) = inspected(&server, "a").await;
    assert_eq!((&json["verdict"], &json["why"]), (&"hidden".into(), &"tag".into()));
    let hides = &json["hidden_by"][0];
    assert_eq!(
        (&hides["by"], &hides["tag"], &hides["hard"]),
        (&"tag".into(), &"red".into(), &true.into())
    );
    assert_eq!(hides["number"], number);
    write().await.unwrap();
    assert_eq!(inspected(&server, "a").await.1["verdict"], "fresh");
    node.remove_all().await.unwrap();
    let (_, json) = inspected(&server, "a").await;
    assert_eq!((&json["verdict"], &json["why"]), (&"hidden".into(), &"clear".into()));
    assert_eq!(json["hidden_by"][0]["by"], "clear");
    write().await.unwrap();
    node.expire("a").await.unwrap();
    let (_, json) = inspected(&server, "a").await;
    assert_eq!((&json["verdict"], &json["why"]), (&"stale".into(), &"expired".into()));
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_ledger_is_gone_is_hidden() {
    let server = RedisServer::start();
    let node = node(&server).await;
    node.set("a", VALUE.to_owned()).await.unwrap();
    node.close().await.unwrap();
    raw(&server.url(), &["DEL", "shop:v1:L"]);
    let (_, json) = inspected(&server, "a").await;
    assert_eq!((&json["verdict"], &json["why"]), (&"hidden".into(), &"epoch".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_keys_compressed_values_and_load_locks_are_found() {
    let server = RedisServer::start();
    let cache = Cache::builder("shop")
        .settings(Settings::default().compression(Compression::lz4().above(1)))
        .l2(RedisL2::connect(&server.url()).await.unwrap())
        .build()
        .unwrap();
    cache.ready().await.unwrap();
    let long = "k".repeat(600);
    cache.set(&long, VALUE.repeat(20)).await.unwrap();
    let (code, json) = inspected(&server, &long).await;
    assert_eq!((code, &json["compression"]), (0, &"lz4".into()), "{json:#}");
    assert!(json["redis_key"].as_str().unwrap().starts_with("shop:v1:h:"), "{json:#}");
    let store = RedisL2::connect(&server.url()).await.unwrap();
    let ask = LoadLockRequest { id: Version(7), ttl_ms: 60_000, replace: None, hidden: None };
    store.read("shop:v1:e:locked", Some(ask)).await.unwrap();
    let (code, json) = inspected(&server, "locked").await;
    assert_eq!((code, &json["kind"]), (0, &"load_lock".into()));
    assert_eq!(json["load_lock"], "0000000000000007");
}

#[test]
fn what_is_absent_foreign_or_unreadable_is_told() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let ran = at(&server.url(), &["inspect", "nothing", "--json"]);
    assert_eq!((ran.code, &ran.json()["kind"]), (1, &"absent".into()));
    raw(&server.url(), &["LPUSH", "shop:v1:e:list", "theirs"]);
    let ran = at(&server.url(), &["inspect", "list"]);
    assert_eq!((ran.code, ran.err.contains("no record of Crinkle")), (1, true), "{ran:?}");
    raw(&server.url(), &["SET", "shop:v1:e:text", "theirs"]);
    let ran = at(&server.url(), &["inspect", "text", "--json"]);
    assert_eq!((ran.code, &ran.json()["kind"]), (1, &"unreadable".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_shows_its_newest_removals() {
    let server = RedisServer::start();
    let node = node(&server).await;
    let ran = run(&server, &["tags", "red", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["hard"]), (1, &Value::Null));
    let hard = number(node.remove_by_tag("red").await);
    let soft = number(node.expire_by_tag("red").await);
    let ran = run(&server, &["tags", "red", "--json"]).await;
    let json = ran.json();
    assert_eq!(
        (ran.code, &json["hard"]["number"], &json["soft"]["number"]),
        (0, &hard.into(), &soft.into())
    );
    assert!(json["hard"]["at"].as_str().unwrap().starts_with("20"), "{json:#}");
    let text = run(&server, &["tags", "red"]).await;
    assert!(text.out.contains(&hard.to_string()), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_and_its_listeners_are_counted() {
    let server = RedisServer::start();
    let (one, _two) = (node(&server).await, node(&server).await);
    one.remove_by_tags(["a", "b", "c"]).await.unwrap();
    one.expire_by_tag("a").await.unwrap();
    one.expire_all().await.unwrap();
    let ran = run(&server, &["stats", "--json"]).await;
    let json = ran.json();
    let ledger = &json["ledger"];
    assert_eq!(
        (ran.code, &ledger["barriers"], &ledger["ids"]),
        (0, &4.into(), &3.into()),
        "{json:#}"
    );
    assert_eq!(json["subscribers"], 2);
    assert!(ledger["bytes"].as_u64().unwrap() > 100, "{json:#}");
    assert!(!ledger["clear"]["soft"].is_null() && ledger["clear"]["hard"].is_null(), "{json:#}");
    assert!(json["server"]["used_memory"].as_u64().unwrap() > 0);
}

#[test]
fn looking_at_a_prefix_begins_no_ledger() {
    let server = RedisServer::start();
    let url = server.url();
    for args in [&["stats"][..], &["tags", "a"], &["inspect", "a"], &["doctor"]] {
        assert_eq!(at(&url, args).code, 1, "{args:?}");
    }
    assert_eq!(raw(&url, &["DBSIZE"]), redis::Value::Int(0));
    let mut by_environment = crate::command(["--url", &url, "stats"]);
    assert_eq!(crate::ran(by_environment.env("CRINKLE_PREFIX", "shop:")).code, 1);
    assert_eq!(crinkle(["--url", &url, "stats"]).code, 2);
}

/// Scripts of operators read these names.
#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_json_stay() {
    let server = RedisServer::start();
    let node = node(&server).await;
    node.set("a", VALUE.to_owned()).tags(["red"]).await.unwrap();
    let set = |names: &'static str| names.split_whitespace().collect::<BTreeSet<_>>();
    let (_, json) = inspected(&server, "a").await;
    assert_eq!(
        fields(&json),
        set(
            "key redis_key kind load_lock verdict why hidden_by version expired epoch ledger_epoch stamp \
             age_ms logical_ms physical_ms ttl_ms refresh_lock tags codec codec_name compression \
             schema weight etag last_modified factory_us payload_bytes record_bytes"
        )
    );
    let tags = run(&server, &["tags", "red", "--json"]).await.json();
    assert_eq!(fields(&tags), set("tag hash hard soft register clear"));
    let stats = run(&server, &["stats", "--json"]).await.json();
    assert_eq!(fields(&stats), set("prefix address ledger subscribers server"));
    assert_eq!(
        fields(&stats["ledger"]),
        set("epoch frontier barriers ids folded trimmed clear ttl_ms bytes")
    );
    assert_eq!(
        fields(&stats["server"]),
        set("version used_memory maxmemory connected_clients evicted_keys")
    );
    let removed = run(&server, &["remove-by-tag", "red", "--yes", "--json"]).await.json();
    assert_eq!(fields(&removed), set("prefix address change tags epoch number at subscribers"));
    let doctor = run(&server, &["doctor", "--json"]).await.json();
    assert_eq!(fields(&doctor["findings"][0]), set("severity check what why fix"));
}
