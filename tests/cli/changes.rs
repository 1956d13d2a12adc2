//! What changes something: it goes the way of the cache's own calls, and not by mistake.

use std::time::Duration;

use crinkle_testkit::redis::RedisServer;

use crate::liar::{self, Lie};
use crate::{DEADLINE, at, command, crinkle, node, plant_ledger, ran, raw, until};

/// Waits until the node no longer answers from its L1 what it held.
async fn gone(node: &crinkle_core::Cache, key: &str) {
    let hidden = async {
        while node.peek::<u32>(key).is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, hidden).await.expect("the node learns of it");
}

async fn run(server: &RedisServer, args: &'static [&'static str]) -> crate::Ran {
    let url = server.url();
    tokio::task::spawn_blocking(move || at(&url, args)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_by_tag_holds_on_every_node() {
    let server = RedisServer::start();
    let (one, two) = (node(&server).await, node(&server).await);
    one.set("a", 1_u32).tags(["red"]).await.unwrap();
    one.set("b", 2_u32).tags(["blue"]).await.unwrap();
    assert_eq!(two.get::<u32>("a").await.unwrap().as_deref(), Some(&1));
    assert_eq!(two.get::<u32>("b").await.unwrap().as_deref(), Some(&2));
    let ran = run(&server, &["remove-by-tag", "red", "green", "--yes", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    assert_eq!(json["change"], "remove_by_tag");
    assert_eq!((&json["tags"][1], &json["subscribers"]), (&"green".into(), &2.into()));
    gone(&one, "a").await;
    gone(&two, "a").await;
    assert!(two.get::<u32>("a").allow_stale().await.unwrap().is_none(), "it was hard");
    assert_eq!(two.get::<u32>("b").await.unwrap().as_deref(), Some(&2));
    let tags = run(&server, &["tags", "green", "--json"]).await;
    assert_eq!(tags.json()["hard"]["number"], json["number"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_removed_and_expired_on_every_node() {
    let server = RedisServer::start();
    let (one, two) = (node(&server).await, node(&server).await);
    for key in ["a", "b", "c"] {
        one.set(key, 1_u32).await.unwrap();
        two.get::<u32>(key).await.unwrap().unwrap();
    }
    let ran = run(&server, &["remove", "a", "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    gone(&two, "a").await;
    assert!(two.get::<u32>("a").allow_stale().await.unwrap().is_none());
    let ran = run(&server, &["remove", "b", "--soft", "--yes", "--json"]).await;
    assert_eq!(ran.json()["change"], "expire");
    gone(&two, "b").await;
    assert!(two.get::<u32>("b").await.unwrap().is_none());
    assert_eq!(two.get::<u32>("b").allow_stale().await.unwrap().as_deref(), Some(&1));
    assert_eq!(two.get::<u32>("c").await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_leaves_fallbacks_unless_it_is_hard() {
    let server = RedisServer::start();
    let node = node(&server).await;
    node.set("a", 1_u32).tags(["red"]).await.unwrap();
    let ran = run(&server, &["remove-by-tag", "red", "--soft", "--yes", "--json"]).await;
    assert_eq!(ran.json()["change"], "expire_by_tag");
    gone(&node, "a").await;
    assert_eq!(node.get::<u32>("a").allow_stale().await.unwrap().as_deref(), Some(&1));
    let ran = run(&server, &["clear", "--yes", "--json"]).await;
    assert_eq!((&ran.json()["change"], ran.code), (&"clear".into(), 0));
    assert_eq!(node.get::<u32>("a").allow_stale().await.unwrap().as_deref(), Some(&1));
    let ran = run(&server, &["clear", "--hard", "--yes", "--json"]).await;
    assert_eq!(ran.json()["change"], "clear_hard");
    let hidden = async {
        while node.get::<u32>("a").allow_stale().await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, hidden).await.expect("the node learns of it");
}

#[test]
fn nothing_is_changed_without_a_yes_or_a_prefix() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let before = raw(&server.url(), &["DUMP", "shop:v1:L"]);
    for args in [&["clear"][..], &["remove", "a"], &["remove-by-tag", "a"], &["clear", "--hard"]] {
        let unconfirmed = at(&server.url(), args);
        assert_eq!(unconfirmed.code, 2, "{unconfirmed:?}");
        assert!(unconfirmed.err.contains("--yes"), "{unconfirmed:?}");
        let url = server.url();
        let mut command = command([&["--url", &url], args, &["--yes"]].concat());
        let nowhere = ran(command.env("CRINKLE_PREFIX", "shop:"));
        assert_eq!(nowhere.code, 2, "{nowhere:?}");
        assert!(nowhere.err.contains("--prefix is missing"), "{nowhere:?}");
    }
    assert_eq!(raw(&server.url(), &["DUMP", "shop:v1:L"]), before);
}

#[test]
fn a_prefix_that_nobody_uses_is_refused_and_stays_unused() {
    let server = RedisServer::start();
    let ran = at(&server.url(), &["clear", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no ledger") && ran.err.contains("key_prefix"), "{ran:?}");
    assert_eq!(raw(&server.url(), &["DBSIZE"]), redis::Value::Int(0));
}

/// Caches may keep entries for longer than the default settings do.
#[test]
fn barriers_of_months_ago_are_not_forgotten() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let (now, _): (u64, u64) = redis::from_redis_value(raw(&server.url(), &["TIME"])).unwrap();
    let months_ago = format!("{}000000", now - 100 * 86_400);
    raw(&server.url(), &["ZADD", "shop:v1:L", &months_ago, "h0123456789abcdef"]);
    assert_eq!(at(&server.url(), &["remove-by-tag", "a", "--yes"]).code, 0);
    let stats = at(&server.url(), &["stats", "--json"]).json();
    assert_eq!(stats["ledger"]["barriers"], 2, "{stats:#}");
    assert!(stats["ledger"]["clear"]["hard"].is_null(), "{stats:#}");
}

#[test]
fn a_server_that_is_down_hung_or_refuses_has_its_own_exit_code() {
    let down = RedisServer::down();
    let ran = at(&down.url(), &["clear", "--yes"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("cannot reach the server at 127.0.0.1:"), "{ran:?}");

    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    server.stop_process();
    let ran = at(&server.url(), &["clear", "--yes", "--timeout", "1"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    server.cont_process();

    let users = ["user default on nopass ~* &* +@all", "user guest on >secret ~* &* +@read +time"];
    let server = RedisServer::start_with_users(&users);
    plant_ledger(&server.url(), 0);
    let ran = at(&server.url_for("guest", "secret"), &["clear", "--yes"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let ran = at(&server.url_for("guest", "wr0ng"), &["clear", "--yes"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("refuses this user") && !ran.err.contains("wr0ng"), "{ran:?}");
}

#[test]
fn a_replica_refuses_and_nothing_is_unverified() {
    let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    plant_ledger(&primary.url(), 0);
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    until("the replica has the ledger", || {
        raw(&replica.url(), &["DBSIZE"]) == redis::Value::Int(1)
    });
    for args in [&["clear", "--yes"][..], &["remove", "a", "--yes"]] {
        let ran = at(&replica.url(), args);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.err.contains("read only replica"), "{ran:?}");
    }
}

#[test]
fn a_change_whose_answer_is_lost_is_not_called_done() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let port = liar::before(server.port(), Lie::LostAnswers);
    let url = format!("redis://127.0.0.1:{port}");
    for args in [&["clear"][..], &["remove", "a"]] {
        let ran = at(&url, &[args, &["--yes", "--timeout", "1"]].concat());
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains("Run the command again"), "{ran:?}");
        assert_eq!(ran.out, "");
    }
}

#[test]
fn the_url_may_come_from_the_environment() {
    let server = RedisServer::start();
    plant_ledger(&server.url(), 0);
    let mut command = command(["--prefix", "shop:", "clear", "--yes"]);
    assert_eq!(ran(command.env("CRINKLE_REDIS_URL", server.url())).code, 0);
    assert_eq!(crinkle(["--prefix", "shop:", "clear", "--yes"]).code, 2);
}

/// A typing error is not done in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_there_is_said() {
    let server = RedisServer::start();
    let node = node(&server).await;
    node.set("product:7", 1_u32).await.unwrap();
    for args in [&["remove", "prodct:7", "--yes"][..], &["remove", "prodct:7", "--soft", "--yes"]] {
        let ran = run(&server, args).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("There was no record of this key in Redis"), "{ran:?}");
        assert!(ran.out.contains("crinkle keys --prefix shop:"), "{ran:?}");
    }
    let json = run(&server, &["remove", "prodct:7", "--yes", "--json"]).await;
    assert_eq!(json.json()["found"], false);
    let there = run(&server, &["remove", "product:7", "--yes", "--json"]).await;
    assert_eq!((there.code, &there.json()["found"]), (0, &true.into()));
}
