//! A cluster in which one server is badly configured: the doctor names that server.

use crinkle_testkit::ability::Ability;
use crinkle_testkit::cluster::ClusterServers;
use serde_json::Value;

use crate::{Ran, at, node_over, plant_ledger, until};

/// What every server should be told at least.
const WELL_KEPT: [&str; 6] =
    ["--maxmemory", "200mb", "--maxmemory-policy", "volatile-ttl", "--appendonly", "yes"];

fn server(servers: &ClusterServers, at: usize) -> String {
    format!("127.0.0.1:{}", servers.port(at))
}

/// A cluster of well-kept servers that all tell of each other: of a replica they do once it has copied something.
fn well_kept() -> ClusterServers {
    well_kept_with(&[])
}

fn well_kept_with(args: &[&str]) -> ClusterServers {
    let servers = ClusterServers::start_with(&[&WELL_KEPT[..], args].concat());
    for key in (0..50).map(|key| format!("key{key}")) {
        let owner = servers.owner(0, &key).unwrap();
        let _: redis::Value = servers.ask(owner, &["SET", &key, "", "PX", "1"]).unwrap();
    }
    let tells_of_all = |asked: usize| {
        let ranges: Vec<Vec<redis::Value>> = servers.ask(asked, &["CLUSTER", "SLOTS"]).unwrap();
        ranges.iter().all(|range| range.len() == 4)
    };
    until("all servers tell of all", || (0..6).all(tells_of_all));
    servers
}

/// What is found by a doctor who knows the server at the end, but for what is noted of an old version.
fn findings(ran: &Ran) -> Vec<(String, String, String)> {
    let json = ran.json();
    let all = json["findings"].as_array().expect("a list").iter();
    let of = |found: &Value, field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let all = all.map(|found| (of(found, "check"), of(found, "node"), of(found, "what")));
    all.filter(|(check, _, _)| check != "version").collect()
}

#[test]
fn a_well_kept_cluster_is_healthy_and_a_problem_of_one_server_is_named_with_it() {
    let servers = well_kept();
    let home = servers.owner(0, "shop:v1:L").unwrap();
    let (any, app) = (&servers.urls()[5], &servers.app_urls()[5]);
    let examined = |url: &str| findings(&at(url, &["doctor", "--json"]));
    assert!(
        matches!(&examined(any)[..], [(check, node, _)]
            if check == "ledger" && *node == server(&servers, home)),
        "there is no ledger yet, where it belongs: {:?}",
        examined(any)
    );
    plant_ledger(&servers.urls()[home], 0);
    assert_eq!(examined(any), []);
    // Each of six servers of Redis 6.2 is noted.
    let notes = if Ability::SetNxGet.is_there() { 0 } else { 6 };
    let healthy = format!("problems: 0, warnings: 0, notes: {notes}");
    let last = |ran: &Ran| ran.out.trim().lines().last().unwrap_or_default().to_owned();
    let ran = at(any, &["doctor"]);
    assert_eq!((ran.code, last(&ran)), (0, healthy.clone()));

    let said = |number: usize, words: &[&str]| {
        let _: redis::Value = servers.ask(number, words).unwrap();
    };
    let finds = |url: &str, number: usize, check: &str| {
        let found = examined(url);
        let about: Vec<_> = found.iter().filter(|(of, _, _)| of == check).collect();
        let node = server(&servers, number);
        assert!(matches!(&about[..], [(_, at, _)] if *at == node), "{check} at {node}: {found:?}");
        about[0].2.clone()
    };
    for (number, setting, bad, good, check) in [
        (0, "maxmemory-policy", "allkeys-random", "volatile-ttl", "eviction"),
        (1, "maxmemory", "0", "200mb", "maxmemory"),
        (2, "timeout", "3", "0", "timeout"),
        (3, "tcp-keepalive", "0", "300", "keepalive"),
        (4, "client-output-buffer-limit", "pubsub 0 0 0", "pubsub 32mb 8mb 60", "output_buffer"),
        (1, "appendonly", "no", "yes", "persistence"),
    ] {
        said(number, &["CONFIG", "SET", setting, bad]);
        let _ = finds(any, number, check);
        said(number, &["CONFIG", "SET", setting, good]);
    }
    let ran = at(any, &["doctor"]);
    assert_eq!(last(&ran), healthy, "all is well again");

    // Users are not replicated: a replica that does not know one is of no use when it is promoted.
    for number in [2, 3] {
        said(number, &["ACL", "SETUSER", "app", "-zadd"]);
        assert!(finds(app, number, "permissions").ends_with("lacks +zadd"));
        said(number, &["ACL", "SETUSER", "app", "+zadd"]);
    }
    said(4, &["ACL", "DELUSER", "app"]);
    assert!(finds(app, 4, "node").contains("app"));
    let ran = at(app, &["doctor"]);
    let line = format!("problem (node) at {}: ", server(&servers, 4));
    assert!(ran.code == 1 && ran.out.contains(&line), "{ran:?}");
}

#[test]
fn a_server_of_a_cluster_that_is_gone_is_named_and_who_lacks_it() {
    // The others go on telling of a server that hangs, for longer than a doctor takes.
    let mut servers = well_kept_with(&["--cluster-node-timeout", "30000"]);
    let urls = servers.urls();
    let found = |check: &str, node: &str| {
        let found = findings(&at(&urls[0], &["doctor", "--json"]));
        found.iter().any(|(of, at, _)| of == check && at == node)
    };
    let (primary, replica) = (server(&servers, 1), server(&servers, 4));
    servers.server(4).stop_process();
    assert!(found("node", &replica), "it hangs");
    servers.server(4).kill();
    until("the primary has no replica", || found("replicas", &primary));
}

#[test]
fn what_a_cluster_holds_is_shown_and_changed_whichever_server_is_asked() {
    let servers = well_kept();
    let urls = servers.urls();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(async {
        let client = crinkle_l2_redis::RedisClient::cluster(servers.app_urls()).await.unwrap();
        let cache = node_over(client).await;
        for key in 0..20 {
            cache.set(format!("key{key}"), key).tags(["tag"]).await.unwrap();
        }
        cache
    });
    for (number, url) in urls.iter().enumerate() {
        let key = format!("key{number}");
        assert_eq!(at(url, &["inspect", &key]).code, 0);
        assert_eq!(at(url, &["remove", &key, "--yes"]).code, 0);
        let gone = || runtime.block_on(cache.get::<i32>(&key).into_future()).unwrap().is_none();
        until("it is removed", gone);
        let stats = at(url, &["stats", "--json"]);
        assert_eq!(stats.json()["subscribers"], 1, "{stats:?}");
    }
    assert_eq!(at(&urls[3], &["remove-by-tag", "tag", "--yes"]).code, 0);
    let gone = || runtime.block_on(cache.get::<i32>("key19").into_future()).unwrap().is_none();
    until("the tag is removed", gone);
}
