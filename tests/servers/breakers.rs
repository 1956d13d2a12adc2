//! A cluster one of whose primaries does not answer: keys on the others notice nothing.

use crinkle::redis::RedisClient;
use crinkle::{Cache, Source, WriteStatus};
use crinkle_testkit::cluster::ClusterServers;
use crinkle_tests::redis::{PATIENCE, comes_true, hasty_over};
use crinkle_tests::servers_down;
use tokio::time::Instant;

/// Nobody takes over, and slots without a primary are no reason to refuse the others.
fn without_failover() -> ClusterServers {
    let servers = ClusterServers::start_with(&["--cluster-require-full-coverage", "no"]);
    for at in 0..6 {
        let set = ["CONFIG", "SET", "cluster-replica-no-failover", "yes"];
        let () = servers.ask(at, &set).expect("set");
    }
    servers
}

fn owner(servers: &ClusterServers, key: &str) -> usize {
    servers.owner(0, &format!("shop:v1:e:{key}")).expect("an owner")
}

/// With two primaries of three out of sight, a server refuses every key for a while (`CLUSTERDOWN`): one that was
/// frozen has to be back in the eyes of all before the next is.
async fn all_see_all(servers: &ClusterServers) {
    let wanted = ["cluster_state:ok", "cluster_slots_pfail:0", "cluster_slots_fail:0"];
    let is_well = |at| {
        let info = servers.ask::<String>(at, &["CLUSTER", "INFO"]);
        info.is_ok_and(|info| wanted.iter().all(|line| info.lines().any(|is| is == *line)))
    };
    comes_true("every server sees all others", async || (0..6).all(is_well)).await;
}

/// Keys of one primary, and keys of the others.
fn keys(servers: &ClusterServers, of: usize) -> (Vec<String>, Vec<String>) {
    (0..60).map(|key| format!("key{key}")).partition(|key| owner(servers, key) == of)
}

/// Each of `there` is asked for until its circuit breaker is open; each of `elsewhere` is written meanwhile, and
/// read from L2.
async fn works_elsewhere(cache: &Cache, there: &[String], elsewhere: &[String], name: &str) {
    for (n, (dead, key)) in (0_u32..).zip(there.iter().cycle().zip(elsewhere)) {
        let read = cache.get::<u32>(dead).skip_l1_read(true).await.expect("no error");
        assert!(read.is_none_or(|read| read.meta().source() == Source::L1));
        let receipt = cache.set(key, n).l2_hard_timeout(PATIENCE).await.expect("a receipt");
        assert_eq!(receipt.l2(), WriteStatus::Done, "{key}");
        let read = cache.get::<u32>(key).skip_l1_read(true);
        let read = read.l2_soft_timeout(PATIENCE).l2_hard_timeout(PATIENCE);
        let read = read.await.expect("no error").expect("it was written");
        assert_eq!((*read, read.meta().source()), (n, Source::L2), "{key}");
    }
    assert_eq!(servers_down(cache), [name.to_owned()]);
    let (before, began) = (cache.stats().l2_errors, Instant::now());
    for key in there.iter().take(5) {
        assert_eq!(cache.set(key, 0_u32).await.expect("a receipt").l2(), WriteStatus::Queued);
    }
    let failed = cache.stats().l2_errors - before;
    // The polls go on, and each finds it gone.
    let polls = began.elapsed().as_secs() + 1;
    assert!(failed <= 5 + 3 * polls, "nothing waits for it: {failed} errors");
}

async fn used_again(cache: &Cache, there: &[String]) {
    comes_true("the server is used again", async || servers_down(cache).is_empty()).await;
    for key in there.iter().take(5) {
        comes_true("its keys are written again", async || {
            cache.set(key, 7_u32).await.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_costs_keys_of_the_others_nothing() {
    let mut servers = without_failover();
    let ledger = servers.owner(0, "shop:v1:L").expect("an owner");
    for victim in [(ledger + 1) % 3, ledger] {
        let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
        let cache = hasty_over(&client).await;
        let names: Vec<_> = cache.health().l2_servers.into_iter().map(|s| s.name).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let (there, elsewhere) = keys(&servers, victim);
        let name = format!("127.0.0.1:{}", servers.port(victim));
        let resyncs = cache.stats().resyncs_l2_back;
        servers.server(victim).stop_process();
        works_elsewhere(&cache, &there, &elsewhere, &name).await;
        assert_eq!(cache.stats().resyncs_l2_back, resyncs, "nothing came back yet");
        servers.server(victim).cont_process();
        used_again(&cache, &there).await;
        // It may wait for the next subscription.
        comes_true("it came back", async || cache.stats().resyncs_l2_back > resyncs).await;
        all_see_all(&servers).await;
        cache.close().await.expect("nothing waits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_costs_keys_of_the_others_nothing() {
    let mut servers = without_failover();
    let ledger = servers.owner(0, "shop:v1:L").expect("an owner");
    let victim = (ledger + 1) % 3;
    let client = RedisClient::cluster(servers.app_urls()).await.expect("sound URLs");
    let cache = hasty_over(&client).await;
    let (there, elsewhere) = keys(&servers, victim);
    let name = format!("127.0.0.1:{}", servers.port(victim));
    servers.server(victim).kill();
    works_elsewhere(&cache, &there, &elsewhere, &name).await;
}
