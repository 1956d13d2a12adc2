//! Reading from replicas: what goes to them, what never does, and what they cannot be asked.

use std::time::Duration;

use crinkle::redis::{Credentials, RedisClient, RedisClientBuilder, RedisL2};
use crinkle::{Cache, ServerHealth, Source};
use crinkle_testkit::cluster::ClusterServers;
use crinkle_testkit::redis::RedisServer;
use crinkle_testkit::sentinel::{NAME, SentinelServers, USER};
use crinkle_tests::redis::{PATIENCE, ask, client, comes_true, node_at, node_over, over, ready};
use tokio::time::{Instant, sleep};

/// How far a replica may be behind. One that a loaded machine holds up for longer is not read from.
const LAG: Duration = Duration::from_secs(3);

/// After so long, a replica is asked for what was written or heard of before.
const SETTLED: Duration = Duration::from_secs(4);

/// What goes to primaries alone.
const OF_PRIMARIES: [&str; 6] = ["set", "getrange", "evalsha", "eval", "del", "zscore"];

/// A primary that somebody copies.
struct Pair {
    primary: RedisServer,
    replica: RedisServer,
}

impl Pair {
    fn start() -> Self {
        let fast = ["--repl-diskless-sync-delay", "0"];
        let primary = RedisServer::start_with(&fast);
        let port = primary.port().to_string();
        let of = ["--replicaof", "127.0.0.1", &port];
        let replica = RedisServer::start_with(&[&fast[..], &of].concat());
        Self { primary, replica }
    }

    fn builder(&self) -> RedisClientBuilder {
        RedisClient::builder(self.primary.app_url()).replicas([self.replica.app_url()])
    }

    /// A node that reads from the replica, and does.
    async fn reader(&self) -> Cache {
        reader(self.builder(), &[self.replica.url()]).await
    }

    async fn writer(&self) -> Cache {
        node_at(&self.primary.app_url()).await
    }

    /// Whether the replica has this version of a key.
    async fn has_copied(&self, key: &str) -> bool {
        let key = format!("shop:v1:e:{key}");
        let ask = async |url: String| ask::<Vec<u8>>(&url, &["GET", &key]).await;
        ask(self.primary.url()).await == ask(self.replica.url()).await
    }
}

/// A node that reads from replicas, once all of them are read from.
async fn reader(client: RedisClientBuilder, replicas: &[String]) -> Cache {
    let client = client.connect().await.expect("sound URLs");
    let store = RedisL2::new(client.clone()).read_from_replicas(LAG);
    let cache = ready(over(&client).l2(store)).await;
    reads_from(&cache, replicas).await;
    cache
}

/// Asks for keys that nobody has asked for, until all these servers have been asked.
async fn reads_from(cache: &Cache, replicas: &[String]) {
    let before = reads_of(replicas).await;
    let asked = std::sync::atomic::AtomicU64::new(0);
    comes_true("all replicas are read from", async || {
        let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let fresh = format!("nobody's:{}:{number}", before.iter().sum::<u64>());
        assert!(cache.get::<u64>(&fresh).await.expect("no error").is_none());
        reads_of(replicas).await.iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
}

/// How often each server was asked for a record.
async fn reads_of(servers: &[String]) -> Vec<u64> {
    let mut reads = Vec::new();
    for url in servers {
        reads.push(calls(url, "get").await);
    }
    reads
}

/// How often clients that are not the server's primary have called a command there.
async fn calls(url: &str, command: &str) -> u64 {
    let info: String = ask(url, &["INFO", "commandstats"]).await.expect("an answer");
    let line = format!("cmdstat_{command}:calls=");
    let count =
        info.lines().find_map(|at| at.strip_prefix(&*line)?.split(',').next()?.parse().ok());
    count.unwrap_or(0)
}

async fn get(cache: &Cache, key: &str) -> Option<u64> {
    cache.get::<u64>(key).await.expect("no error").map(|found| *found)
}

/// Records are read from these servers, and nothing else is asked there.
async fn plain_reads_alone_go_to(cache: &Cache, writer: &Cache, replicas: &[String]) {
    for url in replicas {
        let () = ask(url, &["CONFIG", "RESETSTAT"]).await.expect("reset");
    }
    let keys: Vec<_> = (0..60).map(|key| format!("key{key}")).collect();
    for (key, value) in keys.iter().zip(0_u64..) {
        writer.set(key, value).tags(["tag"]).await.expect("stored");
    }
    // What was heard of is asked of the primary for so long.
    sleep(SETTLED).await;
    let before: u64 = reads_of(replicas).await.iter().sum();
    for (key, value) in keys.iter().zip(0_u64..) {
        let load = cache.get_or_set(key, |_| async { crinkle::ok(99_u64) });
        let found = load.await.expect("a value");
        assert_eq!((*found, found.meta().source()), (value, Source::L2), "{key}");
    }
    let reads = reads_of(replicas).await.iter().sum::<u64>() - before;
    assert!(reads >= 50, "{reads} of 60 reads");
    // Load locks and fills, the checks of copies, strict reads, batches, removals, polls.
    cache.get_or_set("new", |_| async { crinkle::ok(1_u64) }).await.expect("a value");
    assert_eq!(cache.get::<u64>("key1").strict().await.expect("read").as_deref(), Some(&1));
    assert_eq!(cache.get::<u64>("nothing").strict().await.expect("read").as_deref(), None);
    cache.get_many::<u64>(["key2", "other"]).await.expect("read");
    cache.remove_by_tag("tag").await.expect("numbered");
    cache.remove("key3").await.expect("removed");
    let polls = cache.stats().syncs + 2;
    comes_true("some polls have passed", async || cache.stats().syncs >= polls).await;
    for url in replicas {
        for command in OF_PRIMARIES {
            // What it copies counts there as well, but for what only reads.
            let copied = ["set", "del"].contains(&command);
            assert!(copied || calls(url, command).await == 0, "{command} at {url}");
        }
        let info: String = ask(url, &["INFO", "errorstats"]).await.expect("an answer");
        assert!(!info.contains("READONLY"), "nobody writes there: {info}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_reads_go_to_a_named_replica_and_nothing_else_does() {
    let pair = Pair::start();
    let (reader, writer) = (pair.reader().await, pair.writer().await);
    plain_reads_alone_go_to(&reader, &writer, &[pair.replica.url()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_reads_go_to_the_replica_that_sentinels_name_and_nothing_else_does() {
    let servers = SentinelServers::start();
    let client = || {
        let urls = servers.urls();
        RedisClient::sentinel_builder(urls, NAME).user(Credentials::new(USER, "any"))
    };
    let replica = [format!("redis://127.0.0.1:{}", servers.ports()[1])];
    let reader = reader(client(), &replica).await;
    let writer = client().connect().await.expect("sound URLs");
    plain_reads_alone_go_to(&reader, &node_over(&writer).await, &replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_reads_go_to_the_replicas_of_a_cluster_and_nothing_else_does() {
    let servers = ClusterServers::start();
    let client = || RedisClient::cluster_builder(servers.app_urls());
    let replicas = servers.urls()[3..].to_vec();
    let reader = reader(client(), &replicas).await;
    let writer = client().connect().await.expect("sound URLs");
    plain_reads_alone_go_to(&reader, &node_over(&writer).await, &replicas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_never_undoes_what_its_reader_knows() {
    let pair = Pair::start();
    let (reader, writer) = (pair.reader().await, pair.writer().await);
    for key in ["written", "heard", "strict", "tagged"] {
        writer.set(key, 1_u64).tags([key]).await.expect("stored");
        comes_true("it is copied", async || pair.has_copied(key).await).await;
    }
    sleep(SETTLED).await;
    // Lags from now on: it answers, and receives nothing.
    let () = ask(&pair.replica.url(), &["REPLICAOF", "127.0.0.1", "1"]).await.expect("cut off");
    reader.remove("written").await.expect("removed");
    assert_eq!(get(&reader, "written").await, None);
    writer.set("heard", 2_u64).await.expect("stored");
    let token = writer.remove_by_tag("tagged").await.expect("numbered").token();
    reader.wait_for(token.expect("a number")).await.expect("heard of");
    assert_eq!((get(&reader, "heard").await, get(&reader, "tagged").await), (Some(2), None));
    let strict = reader.get::<u64>("strict").strict().await.expect("read");
    assert_eq!(strict.as_deref(), Some(&1));
    let copy: Option<Vec<u8>> = ask(&pair.replica.url(), &["GET", "shop:v1:e:written"]).await;
    assert!(copy.is_some(), "the replica still has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_lagged_for_too_long_is_not_asked() {
    let pair = Pair::start();
    let (reader, writer) = (pair.reader().await, pair.writer().await);
    let () = ask(&pair.replica.url(), &["REPLICAOF", "127.0.0.1", "1"]).await.expect("cut off");
    // The history goes on without it.
    let cut = Instant::now();
    writer.set("key", 1_u64).await.expect("stored");
    sleep((cut + LAG * 2).saturating_duration_since(Instant::now())).await;
    let reads = reads_of(&[pair.replica.url()]).await;
    for key in 0..20 {
        assert_eq!(get(&reader, &format!("absent{key}")).await, None);
    }
    assert_eq!(get(&reader, "key").await, Some(1));
    assert_eq!(reads_of(&[pair.replica.url()]).await, reads);
    let port = pair.primary.port().to_string();
    let () = ask(&pair.replica.url(), &["REPLICAOF", "127.0.0.1", &port]).await.expect("back");
    reads_from(&reader, &[pair.replica.url()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_or_hangs_costs_no_read_and_is_used_again_when_it_is_back() {
    let mut pair = Pair::start();
    let (reader, writer) = (pair.reader().await, pair.writer().await);
    for key in 0..40_u64 {
        writer.set(format!("key{key}"), key).await.expect("stored");
    }
    sleep(SETTLED).await;
    let read = async |keys: std::ops::Range<u64>| {
        let began = Instant::now();
        for key in keys {
            assert_eq!(get(&reader, &format!("key{key}")).await, Some(key));
        }
        assert!(reader.health().l2_up);
        began.elapsed()
    };
    let name = format!("127.0.0.1:{}", pair.replica.port());
    let known = |up| reader.health().l2_replicas == [ServerHealth::new(name.as_str().into(), up)];
    comes_true("it is said to be read from", async || known(true)).await;
    pair.replica.kill();
    read(0..10).await;
    comes_true("it is said not to be read from", async || known(false)).await;
    pair.replica.restart_empty();
    comes_true("it follows", async || pair.has_copied("key39").await).await;
    reads_from(&reader, &[pair.replica.url()]).await;
    comes_true("it is said to be read from again", async || known(true)).await;
    read(10..20).await;
    pair.replica.stop_process();
    let took = read(20..30).await;
    // A quarter of what a call may take, and not for each of ten keys.
    assert!(took < PATIENCE, "{took:?}: it is waited for once");
    pair.replica.cont_process();
    reads_from(&reader, &[pair.replica.url()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_replica_all_goes_to_the_primary() {
    let server = RedisServer::start();
    let client = client(&server.app_url()).await;
    let store = RedisL2::new(client.clone()).read_from_replicas(LAG);
    let cache = ready(over(&client).l2(store)).await;
    cache.set("key", 1_u64).await.expect("stored");
    assert_eq!(cache.get::<u64>("key").strict().await.expect("read").as_deref(), Some(&1));
    assert_eq!(get(&cache, "nothing").await, None);
}
