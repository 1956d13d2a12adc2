//! Passwords that change while a cache runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crinkle::Cache;
use crinkle::redis::{Credentials, RedisClient, acl_rule};
use crinkle_testkit::redis::RedisServer;
use crinkle_testkit::sentinel::{NAME, SentinelServers, USER};
use crinkle_tests::redis::{admin, comes_true, node_over};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{ADMIN, DEADLINE, cache_named, keeps_in_step};

/// Where the application keeps its secret; `None` while it cannot say.
#[derive(Clone, Default)]
struct Vault {
    secret: Arc<Mutex<Option<&'static str>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn with(secret: &'static str) -> Self {
        let vault = Self::default();
        *vault.secret.lock() = Some(secret);
        vault
    }

    async fn client(&self, url: &str) -> RedisClient {
        let vault = self.clone();
        let ask = move || {
            vault.asked.fetch_add(1, Ordering::SeqCst);
            let secret = *vault.secret.lock();
            async move { Ok(Credentials::new("app", secret.ok_or("the vault is sealed")?)) }
        };
        RedisClient::builder(url).credentials(ask).connect().await.unwrap()
    }
}

fn server_with(password: &str) -> RedisServer {
    let user = format!("user app on >{password} {}", acl_rule("shop:"));
    RedisServer::start_with_users(&[ADMIN, &user])
}

async fn in_step(one: &Cache, two: &Cache) {
    comes_true("both are in step", async || one.health().coherent && two.health().coherent).await;
    keeps_in_step(one, two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_asked_for_when_a_connection_is_made() {
    for protocol in ["resp2", "resp3"] {
        let (server, vault) = (server_with("first"), Vault::with("first"));
        let url = format!("{}/?protocol={protocol}", server.url());
        let (one, two) = (vault.client(&url).await, vault.client(&url).await);
        let (one, two) = (node_over(&one).await, node_over(&two).await);
        in_step(&one, &two).await;

        let () = admin(&server, &["ACL", "SETUSER", "app", "resetpass", ">second"]).await;
        in_step(&one, &two).await;
        let asked = vault.asked.load(Ordering::SeqCst);
        assert_eq!(asked, 4, "two nodes, two connections each, which stay");

        *vault.secret.lock() = Some("second");
        let killed: u64 = admin(&server, &["CLIENT", "KILL", "USER", "app"]).await;
        assert_eq!(killed, 4);
        comes_true("all connections are back", async || {
            vault.asked.load(Ordering::SeqCst) >= 8
                && one.health().subscribed
                && two.health().subscribed
        })
        .await;
        in_step(&one, &two).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_a_cache_says_why_and_goes_on_when_there_are_some() {
    let (server, vault) = (server_with("first"), Vault::default());
    let cache = cache_named("shop", &vault.client(&server.url()).await);
    comes_true("the reason is told", async || {
        let error = cache.health().last_l2_error;
        error.is_some_and(|error| {
            error.what.contains("the `credentials` callback failed: the vault is sealed")
        })
    })
    .await;
    *vault.secret.lock() = Some("first");
    timeout(DEADLINE, cache.ready()).await.expect("ready in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_behind_sentinels_get_the_credentials_of_the_moment() {
    let servers = SentinelServers::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = RedisClient::sentinel_builder(servers.urls(), NAME).credentials(move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Credentials::new(USER, "any")) }
    });
    let client = client.connect().await.unwrap();
    let cache = node_over(&client).await;
    cache.set("key", 1_u64).require_propagation().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "for commands and for the subscription");
}
