//! The keys that a server holds.

use crinkle_testkit::redis::RedisServer;

use crate::{Ran, at, node, plant_ledger, raw};

async fn run(server: &RedisServer, args: &'static [&'static str]) -> Ran {
    let url = server.url();
    tokio::task::spawn_blocking(move || at(&url, args)).await.unwrap()
}

fn sorted(ran: &Ran) -> Vec<&str> {
    let mut lines: Vec<_> = ran.out.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_by_prefix_and_by_tag() {
    let server = RedisServer::start();
    let node = node(&server).await;
    let long = "l".repeat(600);
    node.set("a", 1_u32).tags(["red", "blue"]).await.unwrap();
    node.set("b", 2_u32).tags(["blue"]).await.unwrap();
    node.set(&long, 3_u32).tags(["red"]).await.unwrap();
    raw(&server.url(), &["SET", "shop2:v1:e:other", "x"]);
    raw(&server.url(), &["SET", "shop:something", "x"]);
    let all = run(&server, &["keys"]).await;
    assert_eq!((all.code, sorted(&all)), (0, vec!["a", "b", &*long]), "{all:?}");
    let red = run(&server, &["keys", "--tag", "red"]).await;
    assert_eq!(sorted(&red), ["a", &*long], "{red:?}");
    let json = run(&server, &["keys", "--tag", "blue", "--json"]).await;
    assert!(json.out.lines().any(|line| line == r#"{"key":"b","tags":["blue"]}"#), "{json:?}");
    let few = run(&server, &["keys", "--limit", "2"]).await;
    assert_eq!(few.out.lines().count(), 2, "{few:?}");
    assert!(few.err.contains("there may be more"), "{few:?}");
    assert!(!all.err.contains("more"), "{all:?}");
    let none = run(&server, &["keys", "--tag", "green"]).await;
    assert_eq!((none.code, &*none.out), (1, ""), "{none:?}");
}

/// `KEYS` holds the server up for as long as it takes.
#[test]
fn a_large_server_is_walked_by_cursor() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let fill = "for i = 1, 3000 do redis.call('SET', 'shop:v1:e:' .. i, 'x') end";
    raw(&server.url(), &["EVAL", fill, "0"]);
    let ran = at(&server.url(), &["keys", "--limit", "5000"]);
    assert_eq!(ran.out.lines().count(), 3000);
    let redis::Value::BulkString(stats) = raw(&server.url(), &["INFO", "commandstats"]) else {
        panic!("no statistics");
    };
    let stats = String::from_utf8(stats).unwrap();
    assert!(stats.contains("cmdstat_scan:") && !stats.contains("cmdstat_keys:"), "{stats}");
}

#[test]
fn a_prefix_that_nobody_uses_is_said() {
    let server = RedisServer::start();
    let ran = at(&server.url(), &["keys"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no ledger") && ran.err.contains("key_prefix"), "{ran:?}");
}
