//! Secure connections to Redis: users, TLS, and caches that share a server.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

mod acl;
mod authority;
mod cluster;
mod renamed;
mod rotation;
mod sharing;
mod tls;
mod ways;

use crinkle::Cache;
use crinkle::redis::{RedisClient, acl_rule};
use crinkle_tests::redis::{DEADLINE, comes_true, named};

const ADMIN: &str = "user default on nopass ~* &* +@all";

/// The rule of a user with the least permissions, except this one. Every server understands it;
/// before Redis 7.0 a rule cannot remove the permission for a subcommand (`-script|load`).
fn rule_without(prefix: &str, right: &str) -> String {
    let rule = acl_rule(prefix);
    let others = rule.split_whitespace().filter(|word| word.strip_prefix('+') != Some(right));
    others.collect::<Vec<_>>().join(" ")
}

fn cache_named(name: &str, client: &RedisClient) -> Cache {
    named(name, client).build().unwrap()
}

/// Checks that one node reads the other's writes and receives its removals.
async fn keeps_in_step(one: &Cache, two: &Cache) {
    one.set("shared", 1_u64).await.unwrap();
    let found = async || two.get::<u64>("shared").await.unwrap().is_some();
    comes_true("the other node reads it", found).await;
    one.remove("shared").await.unwrap();
    comes_true("the other node learns of it", async || two.peek::<u64>("shared").is_none()).await;
    one.set("shared", 2_u64).tags(["tag"]).await.unwrap();
    comes_true("the other node reads it again", found).await;
    one.remove_by_tag("tag").await.unwrap();
    comes_true("the other node learns of the tag", async || two.peek::<u64>("shared").is_none())
        .await;
}
