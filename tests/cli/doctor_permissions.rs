//! The doctor names the permissions that a user lacks.

use crinkle_testkit::ability::{self, Ability};
use crinkle_testkit::redis::RedisServer;
use serde_json::Value;

use crate::{Ran, at, plant_ledger};

/// The rule of docs/redis.md.
const COMMANDS: &str = "+evalsha +script|load +time +publish +subscribe +get +getrange +set +setrange \
     +del +pttl +pexpire +type +zadd +zrem +zremrangebyrank +zcount +zscore +zmscore +zrangebyscore";
const KEYS: &str = "~shop:*";
const CHANNELS: &str = "&shop:*";

/// A server with a user of these rules, whose name is crinkle, beside an administrator.
fn server(rules: &str) -> RedisServer {
    let user = format!("user crinkle on >secret resetkeys resetchannels -@all {rules}");
    let server = RedisServer::start_with_users(&["user default on nopass ~* &* +@all", &user]);
    plant_ledger(&server.url(), 0);
    server
}

/// What the user is said to lack, asked as that user and, where the server can tell that, by the administrator.
fn lacking(server: &RedisServer) -> Vec<Option<Value>> {
    let mut ran = vec![at(&server.url_for("crinkle", "secret"), &["doctor", "--json"])];
    if Ability::AclDryRun.is_there() {
        ran.push(at(&server.url(), &["doctor", "--json", "--user", "crinkle"]));
    } else {
        ability::not_checked("what an administrator is told of another user, without ACL DRYRUN");
    }
    ran.iter().map(permissions).collect()
}

fn permissions(ran: &Ran) -> Option<Value> {
    let json = ran.json();
    let mut found = json["findings"].as_array().expect("a list").iter();
    found.find(|it| it["check"] == "permissions").cloned()
}

#[test]
fn the_documented_user_lacks_nothing_and_is_told_what_it_cannot_see() {
    let server = server(&format!("{COMMANDS} {KEYS} {CHANNELS}"));
    assert_eq!(lacking(&server).into_iter().flatten().next(), None);
    let ran = at(&server.url_for("crinkle", "secret"), &["doctor", "--json"]);
    let json = ran.json();
    let checks: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["check"].as_str().unwrap())
        .collect();
    let unseen = vec!["info", "config", "optional_permissions"];
    assert_eq!((ran.code, checks), (0, unseen), "{json:#}");
    for finding in &json["findings"].as_array().unwrap()[..2] {
        assert_eq!(finding["severity"], "note");
        assert!(finding["fix"].as_str().unwrap().contains("--user"), "{finding:#}");
    }
}

#[test]
fn every_command_that_is_missing_is_named() {
    for missing in COMMANDS.split_whitespace() {
        let rest: Vec<_> = COMMANDS.split_whitespace().filter(|it| *it != missing).collect();
        let server = server(&format!("{} {KEYS} {CHANNELS}", rest.join(" ")));
        for found in lacking(&server) {
            let found = found.unwrap_or_else(|| panic!("{missing} is not missed"));
            assert_eq!(found["severity"], "problem");
            assert_eq!(found["what"], format!("user \"crinkle\" lacks {missing}"));
            let fix = found["fix"].as_str().unwrap();
            assert!(fix.starts_with(&format!("ACL SETUSER crinkle {missing} ")), "{fix}");
        }
    }
}

#[test]
fn what_a_cache_can_do_without_is_a_note() {
    let server = server(&format!("{COMMANDS} +info {KEYS} {CHANNELS}"));
    let ran = at(&server.url_for("crinkle", "secret"), &["doctor", "--json"]);
    let json = ran.json();
    let mut found = json["findings"].as_array().unwrap().iter();
    let found = found.find(|it| it["check"] == "optional_permissions").expect("a note");
    assert_eq!(found["severity"], "note");
    assert_eq!(found["what"], "user \"crinkle\" lacks +client|setname");
}

#[test]
fn keys_and_channels_that_are_out_of_reach_are_named() {
    for (rules, missing) in [
        (format!("{COMMANDS} ~other:* {CHANNELS}"), KEYS),
        (format!("{COMMANDS} {KEYS} &other:*"), CHANNELS),
    ] {
        for found in lacking(&server(&rules)) {
            assert_eq!(found.unwrap()["what"], format!("user \"crinkle\" lacks {missing}"));
        }
    }
}

#[test]
fn a_user_that_is_not_there_is_told() {
    if !Ability::AclDryRun.or_not_run() {
        return;
    }
    let server = server(&format!("{COMMANDS} {KEYS} {CHANNELS}"));
    let ran = at(&server.url(), &["doctor", "--json", "--user", "nobody"]);
    assert_eq!(permissions(&ran).unwrap()["severity"], "problem");
    assert_eq!(ran.code, 1);
}

#[test]
fn who_may_not_try_for_another_is_told_the_other_way() {
    let server = server(&format!("{COMMANDS} {KEYS} {CHANNELS}"));
    let ran = at(&server.url_for("crinkle", "secret"), &["doctor", "--json", "--user", "default"]);
    let found = permissions(&ran).unwrap();
    assert_eq!((&found["severity"], ran.code), (&Value::from("note"), 0));
    assert!(found["fix"].as_str().unwrap().contains("connect as that user"), "{found:#}");
}

/// More rights are no cure for a prefix that is mistyped.
#[test]
fn whether_the_prefix_is_right_is_asked_before_more_rights_are_advised() {
    let server = server(&format!("{COMMANDS} {KEYS} {CHANNELS}"));
    let url = server.url_for("crinkle", "secret");
    let ran = crate::crinkle(["--url", &url, "--prefix", "shop2:", "doctor", "--json"]);
    let found = permissions(&ran).expect("it is told");
    let fix = found["fix"].as_str().unwrap();
    let asked = "first make sure that \"shop2:\" is the key prefix of the cache";
    assert!(fix.starts_with(asked) && fix.contains("ACL SETUSER crinkle"), "{fix}");
}
