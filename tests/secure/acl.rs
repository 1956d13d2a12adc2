//! Users with just enough rights, and with less.

use crinkle::ErrorKind;
use crinkle::l2::{L2, L2Error, L2ErrorKind};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2, acl_rule};
use crinkle_core::backplane::Backplane;
use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::ledger::SyncAsk;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{admin, comes_true, node_over};
use tokio::time::timeout;

use super::{ADMIN, DEADLINE, cache_named, keeps_in_step, rule_without};

/// A server and a client of its user `app`, with the least rights for `shop:`, changed a little.
async fn with(changed: &str) -> (RedisServer, RedisClient) {
    let user = format!("user app on >secret {} {changed}", acl_rule("shop:"));
    let server = RedisServer::start_with_users(&[ADMIN, &user]);
    let client = RedisClient::connect(&server.url_for("app", "secret")).await.unwrap();
    (server, client)
}

/// The command that gives the user other rights.
fn set_user(rule: &str) -> Vec<&str> {
    ["ACL", "SETUSER", "app"].into_iter().chain(rule.split_whitespace()).collect()
}

/// What the store says when it is about to meet its ledger.
async fn refusal(client: &RedisClient) -> String {
    let ask = SyncAsk {
        epoch: None,
        from: 0,
        frontier: 0,
        last: None,
        new_epoch: Epoch(1),
        retention_ms: 60_000,
        page: 100,
    };
    let error: L2Error = RedisL2::new(client.clone()).sync("shop:v1:L", &ask).await.unwrap_err();
    assert_eq!(error.kind(), L2ErrorKind::Denied);
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_keep_in_step_with_the_least_rights() {
    let (server, client) = with("").await;
    let other = RedisClient::connect(&server.url_for("app", "secret")).await.unwrap();
    keeps_in_step(&node_over(&client).await, &node_over(&other).await).await;
    let refused: Vec<redis::Value> = admin(&server, &["ACL", "LOG"]).await;
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_is_named_with_what_to_grant() {
    for (command, right) in [("setrange", "setrange"), ("zadd", "zadd"), ("script", "script|load")]
    {
        let (_server, client) = with(&format!("-{command}")).await;
        let said = refusal(&client).await;
        let wanted = format!("user `app` may not run `{right}`: `ACL SETUSER app +{right}`");
        assert!(said.contains(&wanted), "{said}");
        assert!(said.contains(&acl_rule("shop:")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_a_cache_cannot_do_without_is_missed() {
    let rule = acl_rule("shop:");
    let commands = rule.split_whitespace().filter_map(|word| word.strip_prefix('+'));
    let (server, client) = with("").await;
    let (store, bus) = (RedisL2::new(client.clone()), RedisBackplane::new(client));
    let elsewhere = ["eval", "asking", "readonly", "cluster|slots", "role"];
    let optional = ["info", "client|setname"];
    let needed = |command: &&str| !elsewhere.contains(command) && !optional.contains(command);
    for command in commands.filter(needed) {
        let without = rule_without("shop:", command);
        let () = admin(&server, &set_user(&without)).await;
        let said = match store.check_rights("shop:").await {
            Err(error) => error.to_string(),
            Ok(()) => bus.check_rights("shop:").await.unwrap_err().to_string(),
        };
        assert!(said.contains(&format!("may not run `{command}`")), "{command}: {said}");
    }
    let () = admin(&server, &set_user(&rule)).await;
    store.check_rights("shop:").await.unwrap();
    bus.check_rights("shop:").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_named_with_what_to_grant() {
    let (_server, client) = with("resetkeys ~shop:v1:e:*").await;
    let said = refusal(&client).await;
    let wanted = "may not touch `shop:v1:L`, `shop:v1:h:`: `ACL SETUSER app ~shop:*`";
    assert!(said.contains(wanted), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_channel_is_named_with_what_to_grant() {
    let (_server, client) = with("resetchannels &shop:v1:hb:*").await;
    let bus = RedisBackplane::new(client.clone());
    let said = bus.subscribe(&["shop:v1:ch".to_owned()]).await.unwrap_err().to_string();
    let wanted = "user `app` may not subscribe to `shop:v1:ch`: `ACL SETUSER app &shop:*`";
    assert!(said.contains(wanted), "{said}");
    let said = bus.publish("shop:v1:ch", "".into()).await.unwrap_err().to_string();
    assert!(said.contains("may not publish to `shop:v1:ch`: `ACL SETUSER app &shop:*`"), "{said}");
    assert!(bus.check_rights("shop:").await.unwrap_err().is_refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_says_what_it_lacks_and_is_ready_once_it_is_granted() {
    let (server, client) = with("-setrange resetchannels").await;
    let cache = cache_named("shop", &client);
    let lacks = |right: &str, error: Option<crinkle::LastError>| {
        error.is_some_and(|error| error.what.contains(right))
    };
    comes_true("the missing command is told", async || {
        lacks("may not run `setrange`", cache.health().last_l2_error)
    })
    .await;
    comes_true("the missing channel is told", async || {
        lacks("&shop:*", cache.health().last_backplane_error)
    })
    .await;
    let refused = timeout(DEADLINE, cache.ready()).await.expect("an answer in time").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::L2);
    assert!(refused.to_string().contains("may not run `setrange`"), "{refused}");
    let () = admin(&server, &["ACL", "SETUSER", "app", "+setrange"]).await;
    comes_true("the missing channel is all that is refused", async || {
        let refused = timeout(DEADLINE, cache.ready()).await.expect("an answer in time");
        refused.is_err_and(|error| {
            error.kind() == ErrorKind::Backplane && error.to_string().contains("&shop:*")
        })
    })
    .await;
    assert!(cache.health().l2_up);
    let () = admin(&server, &["ACL", "SETUSER", "app", "&shop:*"]).await;
    comes_true("it is ready", async || cache.ready().await.is_ok()).await;
}

/// Taken away later, in a script, where older servers do not name it.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_named_by_the_next_command_that_needs_it() {
    let (server, client) = with("").await;
    let cache = node_over(&client).await;
    let () = admin(&server, &["ACL", "SETUSER", "app", "-set"]).await;
    let error = cache.set("key", 1_u64).require_propagation().await.unwrap_err().to_string();
    assert!(error.contains("may not run `set`: `ACL SETUSER app +set`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_names_the_user_and_not_the_password() {
    let (server, _) = with("").await;
    for protocol in ["resp2", "resp3"] {
        let url = format!("{}/?protocol={protocol}", server.url_for("app", "mistaken"));
        let client = RedisClient::connect(&url).await.unwrap();
        let error = RedisL2::new(client.clone()).check_rights("shop:").await.unwrap_err();
        assert_eq!(error.kind(), L2ErrorKind::Denied);
        let said = error.to_string();
        assert!(
            said.contains("user `app`") && said.contains("Check the user and password"),
            "{said}"
        );
        assert!(!format!("{said} {client:?}").contains("mistaken"), "{said}");
    }
}
