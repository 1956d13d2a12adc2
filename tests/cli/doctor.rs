//! A badly configured server each: the doctor names the problem and its fix.

use std::time::Duration;

use crinkle_testkit::ability::{self, Ability};
use crinkle_testkit::redis::RedisServer;
use serde_json::Value;

use crate::liar::{self, Lie};
use crate::{Ran, at, plant_ledger, raw, until};

/// What a server should be told at least.
const WELL_KEPT: [&str; 6] =
    ["--maxmemory", "200mb", "--maxmemory-policy", "volatile-ttl", "--appendonly", "yes"];

fn server(args: &[&str]) -> RedisServer {
    RedisServer::start_with(&[&WELL_KEPT[..], args].concat())
}

fn examined(url: &str) -> Ran {
    at(url, &["doctor", "--json"])
}

/// The finding of one check, if there is one.
fn finding(ran: &Ran, check: &str) -> Option<Value> {
    let json = ran.json();
    let mut found = json["findings"].as_array().expect("a list").iter();
    found.find(|it| it["check"] == check).cloned()
}

/// The finding of this check is this bad, and its fix says this.
fn finds(url: &str, check: &str, severity: &str, fix: &str) -> Value {
    let ran = examined(url);
    let found = finding(&ran, check).unwrap_or_else(|| panic!("no {check} in {ran:#?}"));
    assert_eq!(found["severity"], severity, "{found:#}");
    assert!(found["fix"].as_str().expect("a text").contains(fix), "{found:#}");
    assert_eq!(
        ran.code,
        i32::from(ran.out.contains("\"problem\"") || ran.out.contains("\"warning\""))
    );
    found
}

#[test]
fn a_well_kept_server_is_healthy() {
    let server = server(&[]);
    plant_ledger(&server.url(), 0);
    let ran = examined(&server.url());
    // Redis 6.2 is noted.
    let old = usize::from(!Ability::SetNxGet.is_there());
    let notes = ran.json()["findings"].as_array().unwrap().len();
    assert_eq!(
        (ran.code, notes, finding(&ran, "version").iter().count()),
        (0, old, old),
        "{ran:?}"
    );
    let ran = at(&server.url(), &["doctor"]);
    let last = ran.out.trim().lines().last().unwrap();
    assert_eq!((ran.code, last), (0, &*format!("problems: 0, warnings: 0, notes: {old}")));
}

#[test]
fn a_policy_that_evicts_the_ledger_is_found() {
    for (policy, severity) in [
        ("allkeys-lru", "warning"),
        ("allkeys-lfu", "warning"),
        ("allkeys-random", "problem"),
        ("volatile-lru", "warning"),
        ("volatile-lfu", "warning"),
        ("volatile-random", "problem"),
    ] {
        let server = server(&["--maxmemory-policy", policy]);
        let found = finds(&server.url(), "eviction", severity, "maxmemory-policy volatile-ttl");
        assert!(found["what"].as_str().unwrap().contains(policy), "{found:#}");
    }
    let server = server(&["--maxmemory-policy", "noeviction"]);
    assert_eq!(finding(&examined(&server.url()), "eviction"), None);
}

#[test]
fn memory_without_a_limit_is_found() {
    let server = server(&["--maxmemory", "0"]);
    finds(&server.url(), "maxmemory", "warning", "CONFIG SET maxmemory ");
}

#[test]
fn a_server_that_is_full_is_found() {
    let full = |policy: &str, severity| {
        let server = server(&["--maxmemory", "4mb", "--maxmemory-policy", policy]);
        let mut to = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let value = vec![b'x'; 50_000];
        for n in 0..100 {
            // Refused once it is full.
            let mut set = redis::cmd("SET");
            let set = set.arg(format!("k{n}")).arg(&value).arg("PX").arg(1_000_000);
            drop(set.query::<()>(&mut to));
        }
        finds(&server.url(), "memory_full", severity, "maxmemory");
    };
    full("noeviction", "problem");
    full("volatile-ttl", "warning");
}

#[test]
fn output_buffers_that_are_too_small_or_endless_are_found() {
    for limits in [["1mb", "512kb", "60"], ["32mb", "100kb", "60"], ["0", "0", "0"]] {
        let args = [&["--client-output-buffer-limit", "pubsub"], &limits[..]].concat();
        let server = server(&args);
        finds(&server.url(), "output_buffer", "warning", "pubsub 33554432 8388608 60");
    }
}

#[test]
fn a_primary_that_would_restart_empty_before_its_replica_is_found() {
    let primary = server(&["--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    finds(&primary.url(), "persistence", "note", "appendonly yes");
    let port = primary.port().to_string();
    let _replica = server(&["--replicaof", "127.0.0.1", &port]);
    until("the replica is there", || {
        let info: String = redis::from_redis_value(raw(&primary.url(), &["INFO"])).unwrap();
        info.contains("connected_slaves:1")
    });
    finds(&primary.url(), "persistence", "problem", "appendonly yes");
}

#[test]
fn a_replica_is_found_and_its_primary_is_named() {
    let primary = server(&[]);
    let port = primary.port().to_string();
    let replica = server(&["--replicaof", "127.0.0.1", &port]);
    finds(&replica.url(), "role", "problem", &format!("127.0.0.1:{port}"));
}

#[test]
fn a_disk_that_fails_is_found() {
    let gone = tempfile::tempdir().unwrap();
    let server = server(&["--save", "3600", "1", "--dir", gone.path().to_str().unwrap()]);
    gone.close().unwrap();
    raw(&server.url(), &["BGSAVE"]);
    until("the snapshot has failed", || {
        let info: String = redis::from_redis_value(raw(&server.url(), &["INFO"])).unwrap();
        info.contains("rdb_last_bgsave_status:err")
    });
    finds(&server.url(), "refused_writes", "problem", "stop-writes-on-bgsave-error no");
}

#[test]
fn connections_that_end_too_soon_or_never_are_found() {
    let server = server(&["--timeout", "3", "--tcp-keepalive", "0"]);
    finds(&server.url(), "timeout", "warning", "CONFIG SET timeout 0");
    finds(&server.url(), "keepalive", "warning", "CONFIG SET tcp-keepalive 60");
}

#[test]
fn an_old_version_is_found() {
    let server = server(&[]);
    for (version, severity) in [("5.", "problem"), ("6.1", "problem"), ("6.2", "note")] {
        let port = liar::before(server.port(), Lie::Info("redis_version:", version));
        finds(&format!("redis://127.0.0.1:{port}"), "version", severity, "7.0");
    }
}

#[test]
fn a_server_without_lua_is_found() {
    let server = server(&["--rename-command", "EVALSHA", "", "--rename-command", "SCRIPT", ""]);
    plant_ledger(&server.url(), 0);
    let found = finds(&server.url(), "commands", "problem", "Lua");
    assert_eq!(found["what"], "the server does not offer evalsha, script|load");
    assert_eq!(finding(&examined(&server.url()), "permissions"), None, "it is no right");
    if Ability::AclDryRun.is_there() {
        let ran = at(&server.url(), &["doctor", "--json", "--user", "default"]);
        assert_eq!(finding(&ran, "commands"), Some(found));
    } else {
        ability::not_checked("what an administrator is told of another user, without ACL DRYRUN");
    }
}

#[test]
fn a_server_without_a_command_is_found() {
    let server = server(&["--rename-command", "ZMSCORE", ""]);
    let found = finds(&server.url(), "commands", "problem", "Redis 6.2");
    assert_eq!(found["what"], "the server does not offer zmscore");
}

#[test]
fn clocks_that_differ_are_found() {
    let server = server(&[]);
    for (ahead, severity) in [(100, "warning"), (-100, "warning"), (-1000, "problem")] {
        let port = liar::before(server.port(), Lie::Clock(ahead));
        let found = finds(&format!("redis://127.0.0.1:{port}"), "clock", severity, "NTP");
        let side = if ahead < 0 { "behind" } else { "ahead" };
        assert!(found["what"].as_str().unwrap().contains(side), "{found:#}");
    }
}

#[test]
fn a_replica_with_another_clock_is_found() {
    let primary = server(&["--repl-diskless-sync-delay", "0"]);
    let port = primary.port().to_string();
    let replica_at = |announced: u16| {
        let announced = announced.to_string();
        let of = ["--replicaof", "127.0.0.1", &port, "--replica-announce-port", &announced];
        let replica = server(&of);
        until("the replica is there", || {
            let info: String = redis::from_redis_value(raw(&primary.url(), &["INFO"])).unwrap();
            info.contains(&format!("port={announced},"))
        });
        replica
    };
    // Where nobody listens.
    let unseen = replica_at(1);
    finds(&primary.url(), "replica_clock", "note", "run the doctor for it");
    drop(unseen);
    until("it is gone", || finding(&examined(&primary.url()), "replica_clock").is_none());
    let late = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let announced = liar::before(late.port(), Lie::Clock(-1000));
    raw(&late.url(), &["CONFIG", "SET", "replica-announce-port", &announced.to_string()]);
    raw(&late.url(), &["REPLICAOF", "127.0.0.1", &port]);
    until("the replica is there", || {
        let info: String = redis::from_redis_value(raw(&primary.url(), &["INFO"])).unwrap();
        info.contains(&format!("port={announced},"))
    });
    finds(&primary.url(), "replica_clock", "problem", "NTP");
}

/// By itself the client gives an answer half a second.
#[test]
fn the_clock_of_a_replica_that_is_slow_is_looked_at() {
    let primary = server(&["--repl-diskless-sync-delay", "0"]);
    let replica = server(&["--repl-diskless-sync-delay", "0"]);
    let slow = liar::before(replica.port(), Lie::SlowClock(Duration::from_millis(700)));
    raw(&replica.url(), &["CONFIG", "SET", "replica-announce-port", &slow.to_string()]);
    raw(&replica.url(), &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    until("the replica is there", || {
        let info: String = redis::from_redis_value(raw(&primary.url(), &["INFO"])).unwrap();
        info.contains(&format!("port={slow},"))
    });
    assert_eq!(finding(&examined(&primary.url()), "replica_clock"), None);
}

#[test]
fn a_node_of_a_cluster_is_told() {
    let server = server(&[]);
    let port = liar::before(server.port(), Lie::Info("cluster_enabled:", "1"));
    finds(&format!("redis://127.0.0.1:{port}"), "cluster", "note", "every node");
}

#[test]
fn a_ledger_that_is_absent_foreign_or_of_another_version_is_told() {
    let server = server(&[]);
    let url = server.url();
    finds(&url, "ledger", "note", "key_prefix");
    raw(&url, &["SET", "shop:v1:L", "theirs"]);
    finds(&url, "ledger", "problem", "prefix");
    raw(&url, &["DEL", "shop:v1:L"]);
    raw(&url, &["ZADD", "shop:v1:L", "1", "theirs"]);
    finds(&url, "ledger", "problem", "prefix");
    raw(&url, &["ZADD", "shop:v1:L", "-1", "e7abcdefgh"]);
    let found = finds(&url, "ledger", "problem", "roll-out");
    assert!(found["what"].as_str().unwrap().contains("e7"), "{found:#}");
}

#[test]
fn a_ledger_ahead_of_the_clock_is_found() {
    let server = server(&[]);
    plant_ledger(&server.url(), 60);
    finds(&server.url(), "ledger_clock", "warning", "NTP");
    plant_ledger(&server.url(), 400);
    finds(&server.url(), "ledger_clock", "problem", "NTP");
}

#[test]
fn an_examination_changes_nothing() {
    let server = server(&[]);
    plant_ledger(&server.url(), 0);
    let seen = || [&["DUMP", "shop:v1:L"][..], &["DBSIZE"]].map(|cmd| raw(&server.url(), cmd));
    let before = seen();
    examined(&server.url());
    assert_eq!(seen(), before);
}
