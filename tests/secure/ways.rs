//! Unix sockets, databases, names, protocols.

use crinkle::redis::{RedisClient, acl_rule};
use crinkle_testkit::ability;
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{admin, comes_true, node_over};

use super::{ADMIN, keeps_in_step, rule_without};

/// The lines of `CLIENT LIST` with all of these words. Which protocol a connection speaks is told since Redis 7.0.
async fn connections(server: &RedisServer, words: &[&str]) -> usize {
    let list: String = admin(server, &["CLIENT", "LIST"]).await;
    let tells = list.contains(" resp=");
    if !tells && words.iter().any(|word| word.starts_with("resp=")) {
        ability::not_checked("which protocol is spoken, which `CLIENT LIST` does not tell");
    }
    let words = words.iter().filter(|word| tells || !word.starts_with("resp="));
    let words: Vec<_> = words.collect();
    let has = |line: &&str| words.iter().all(|word| line.split(' ').any(|field| field == **word));
    list.lines().filter(has).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_keep_in_step_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    let server = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let url = format!("redis+unix://{}?db=1", socket.display());
    let (one, two) =
        (RedisClient::connect(&url).await.unwrap(), RedisClient::connect(&url).await.unwrap());
    let (one, two) = (node_over(&one).await, node_over(&two).await);
    keeps_in_step(&one, &two).await;
    assert_eq!(connections(&server, &["name=crinkle", "db=1", "resp=3"]).await, 2);
    one.set("kept", 1_u64).await.unwrap();
    let keys: Vec<String> = admin(&server, &["KEYS", "*"]).await;
    assert!(keys.is_empty(), "all is in database 1: {keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_server_do_not_hear_each_other() {
    let user = format!("user app on nopass {} +select", acl_rule("shop:"));
    let server = RedisServer::start_with_users(&[ADMIN, &user]);
    let url = server.url_for("app", "any");
    let at = async |number: u32| {
        let client = RedisClient::builder(&url).database(number).connect().await.unwrap();
        node_over(&client).await
    };
    let (zero, one, also_one) = (at(0).await, at(1).await, at(1).await);
    for (cache, value) in [(&zero, 0_u64), (&one, 1)] {
        cache.set("key", value).await.unwrap();
    }
    let subscribed: (String, u64, String, u64) =
        admin(&server, &["PUBSUB", "NUMSUB", "shop:v1:ch", "shop:v1:ch@1"]).await;
    assert_eq!((subscribed.1, subscribed.3), (1, 2));
    zero.remove("key").await.unwrap();
    zero.expire_all().await.unwrap();
    keeps_in_step(&one, &also_one).await;
    assert_eq!(one.peek::<u64>("key").as_deref(), Some(&1));
    assert!(zero.peek::<u64>("key").is_none());
    comes_true("it learns of its peer", async || one.health().peers > 0).await;
    assert_eq!(one.health().peers, 1, "of the nodes of its database alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_the_name_and_the_protocol_that_were_chosen() {
    let server = RedisServer::start();
    let url = format!("{}/?protocol=resp2", server.app_url());
    let named = RedisClient::builder(&url).client_name("shop-api").connect().await.unwrap();
    let nameless = RedisClient::builder(&url).client_name("").connect().await.unwrap();
    let (one, two) = (node_over(&named).await, node_over(&nameless).await);
    keeps_in_step(&one, &two).await;
    assert_eq!(connections(&server, &["name=shop-api", "resp=2"]).await, 1);
    assert_eq!(connections(&server, &["name=crinkle"]).await, 0);
}

/// A user that may not choose a name goes without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_a_name_connects_all_the_same() {
    let user = format!("user app on nopass {}", rule_without("shop:", "client|setname"));
    let server = RedisServer::start_with_users(&[ADMIN, &user]);
    let client = RedisClient::connect(&server.url_for("app", "any")).await.unwrap();
    let cache = node_over(&client).await;
    comes_true("it is in step", async || cache.health().coherent).await;
    assert_eq!(connections(&server, &["name=crinkle"]).await, 0);
}
