//! A cluster of six servers: slots move, primaries die, and the clients follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, WriteStatus};
use crinkle_testkit::ability;
use crinkle_testkit::cluster::{ClusterServers, SERVERS};
use crinkle_testkit::contract;
use crinkle_tests::current_thread;
use crinkle_tests::redis::{DEADLINE, comes_true, hasty_over, node_over};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

async fn client_of(servers: &ClusterServers) -> RedisClient {
    RedisClient::cluster(servers.app_urls()).await.expect("sound URLs")
}

async fn node(servers: &ClusterServers) -> Cache {
    node_over(&client_of(servers).await).await
}

/// A node whose calls do not wait for long for a server that is gone.
async fn hasty(servers: &ClusterServers) -> Cache {
    hasty_over(&client_of(servers).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_the_contract() {
    let servers = ClusterServers::start();
    let client = client_of(&servers).await;
    let (store, bus) = (RedisL2::new(client.clone()), RedisBackplane::new(client));
    contract::l2(&store).await;
    contract::backplane(&bus).await;
    contract::announcing(&store, &bus).await;
    let leasing = store.locking_by_script();
    contract::l2(&leasing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_a_cluster_that_makes_no_sense_is_refused() {
    assert!(RedisClient::cluster(["not a url"]).await.is_err());
    assert!(RedisClient::cluster(Vec::<String>::new()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_cluster_hear_of_writes_in_every_slot_and_read_them_in_batches() {
    let servers = ClusterServers::start();
    let (one, two) = (node(&servers).await, node(&servers).await);
    let keys: Vec<_> = (0..200).map(|key| format!("key{key}")).collect();
    let write = |by: u64| {
        let values: Vec<_> = (0..).zip(&keys).map(|(at, key)| (key.clone(), by + at)).collect();
        one.set_many(values)
    };
    assert_eq!(write(0).await.expect("stored").l2(), WriteStatus::Done);
    let found = two.get_many::<u64>(&keys).await.expect("no error");
    assert!(found.iter().zip(0..).all(|(found, at)| found.as_deref() == Some(&at)));
    assert!(keys.iter().all(|key| two.peek::<u64>(key).is_some()), "the batch is kept");
    write(1000).await.expect("stored");
    comes_true("every write was heard of", async || {
        keys.iter().all(|key| two.peek::<u64>(key).is_none())
    })
    .await;
    let found = two.get_many::<u64>(&keys).await.expect("no error");
    assert!(found.iter().zip(1000..).all(|(found, at)| found.as_deref() == Some(&at)));
    let (misses, loads) = (two.stats().misses, keys.iter().map(|key| format!("new{key}")));
    let load = |missing: Vec<String>| async move {
        crinkle::ok(missing.into_iter().map(|key| (key, 7_u64)).collect::<Vec<_>>())
    };
    let loaded = two.get_or_set_many(loads, load).await.expect("values");
    assert!(loaded.iter().all(|value| **value == 7));
    assert!(two.stats().misses >= misses + 200);
    one.remove_many(&keys).await.expect("removed");
    one.remove_by_tag("nothing").await.expect("numbered");
    comes_true("every removal was heard of", async || {
        keys.iter().all(|key| two.peek::<u64>(key).is_none())
    })
    .await;
    // Messages of different servers overtake each other; nobody takes that for a loss.
    let polls = two.stats().syncs + 3;
    comes_true("some polls have passed", async || two.stats().syncs >= polls).await;
    assert_eq!(two.stats().resyncs_message_lost, 0);
}

/// What the source of truth says, key by key, and since when that is acknowledged.
type Truth = Arc<Vec<Mutex<Vec<(u64, Instant)>>>>;

fn newest(truth: &Truth, key: usize) -> u64 {
    truth[key].lock().last().map_or(0, |(version, _)| *version)
}

/// From so far on the caches have been told of a version.
fn acknowledge(truth: &Truth, key: usize, version: u64, delay: Duration) {
    let mut all = truth[key].lock();
    all.retain(|(known, _)| *known != version);
    all.push((version, Instant::now() + delay));
}

/// Changes keys and reads them on both nodes, until told to stop. Counts reads, and answers that are older
/// than what was acknowledged `bound` before; writes must not notice anything.
async fn load(
    [one, two]: [Cache; 2],
    name: impl Fn(usize) -> String,
    truth: Truth,
    bound: Duration,
    over: Arc<AtomicBool>,
) -> (u64, Vec<String>) {
    let (mut reads, mut wrong, mut rounds) = (0, Vec::new(), 0_usize);
    while !over.load(Ordering::Relaxed) {
        let key = rounds % truth.len();
        rounds += 1;
        let (version, key_name) = (newest(&truth, key) + 1, name(key));
        // The source changes first, then the copies.
        acknowledge(&truth, key, version, Duration::from_secs(3600));
        let written = match rounds % 3 {
            0 => one.set(&key_name, version).await.expect("a receipt"),
            _ => one.remove(&key_name).await.expect("a receipt"),
        };
        if written.l2() != WriteStatus::Done {
            wrong.push(format!("{key_name} was not written: {written:?}"));
        }
        acknowledge(&truth, key, version, Duration::ZERO);
        for (node, cache) in [&one, &two].into_iter().enumerate() {
            let other = (rounds * 7) % truth.len();
            let asked = Instant::now();
            let source = Arc::clone(&truth);
            let load = move |_| async move { crinkle::ok(newest(&source, other)) };
            let found = *cache.get_or_set(name(other), load).await.expect("a value");
            let all = truth[other].lock();
            let due = all.iter().filter(|(_, at)| *at + bound < asked).map(|(version, _)| *version);
            if found < due.max().unwrap_or(0) {
                wrong.push(format!("node {node} says {found} of {}: {:?}", name(other), *all));
            }
            reads += 1;
        }
    }
    (reads, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_load_and_nobody_notices() {
    let servers = Arc::new(ClusterServers::start());
    let (one, two) = (node(&servers).await, node(&servers).await);
    let truth: Truth = Arc::new((0..20).map(|_| Mutex::default()).collect());
    let over = Arc::new(AtomicBool::new(false));
    // All in one slot, which is the one that moves.
    let name = |key: usize| format!("{{hot}}:{key}");
    // Three polls and a round trip, on a busy machine.
    let bound = Duration::from_secs(4);
    let running =
        load([one.clone(), two.clone()], name, Arc::clone(&truth), bound, Arc::clone(&over));
    let running = tokio::spawn(running);
    let moving = Arc::clone(&servers);
    let moved = tokio::task::spawn_blocking(move || {
        let slot = moving.slot(0, "{hot}")?;
        for _ in 0..6 {
            let from = moving.owner(0, "{hot}")?;
            let to = (from + 1) % 3;
            let () = moving.ask(to, &["SCRIPT", "FLUSH"])?;
            moving.move_slot(slot, from, to, Duration::from_millis(30))?;
            // The ledger, too.
            let ledger = "shop:v1:L";
            let (slot, from) = (moving.slot(0, ledger)?, moving.owner(0, ledger)?);
            moving.move_slot(slot, from, (from + 1) % 3, Duration::from_millis(30))?;
            std::thread::park_timeout(Duration::from_millis(300));
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    moved.await.expect("no panic").expect("moved");
    over.store(true, Ordering::Relaxed);
    let (reads, wrong) = running.await.expect("no panic");
    assert!(wrong.is_empty(), "{} of {reads}: {:?}", wrong.len(), &wrong[..wrong.len().min(3)]);
    assert!(reads > 100, "{reads} reads");
    for key in 0..20 {
        comes_true("both nodes answer with the newest value", async || {
            let (one, two) = (one.get::<u64>(name(key)).await, two.get::<u64>(name(key)).await);
            let is = |found: Result<Option<crinkle::Cached<u64>>, _>| {
                found.is_ok_and(|found| found.is_none_or(|found| *found == newest(&truth, key)))
            };
            is(one) && is(two)
        })
        .await;
    }
}

/// Every key is changed on one node, and soon read again on the other.
async fn both_are_in_step(one: &Cache, two: &Cache, keys: &[String], version: u64) {
    for key in keys {
        // What was queued meanwhile, or is asserted again, may remove it once more.
        comes_true("a write is acknowledged, and the other node reads it", async || {
            one.set(key, version).await.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done)
                && two.get::<u64>(key).await.is_ok_and(|found| found.as_deref() == Some(&version))
        })
        .await;
        comes_true("a removal is acknowledged", async || {
            one.remove(key).await.is_ok_and(|receipt| receipt.l2() == WriteStatus::Done)
        })
        .await;
        comes_true("the other node learns of it", async || two.peek::<u64>(key).is_none()).await;
    }
    comes_true("both are in step", async || one.health().coherent && two.health().coherent).await;
}

/// What became of writes on the primaries that nothing is done to.
#[derive(Debug, Default)]
struct Elsewhere {
    /// How many L2 had taken when their call returned, and how many wait as an invalidation, or perhaps both.
    done: usize,
    queued: usize,
    unknown: usize,
}

/// Sets keys of other primaries until told to stop. At the end, each is what was set last, or gone.
async fn write_elsewhere(
    cache: Cache,
    keys: Vec<String>,
    over: Arc<AtomicBool>,
) -> (u64, Elsewhere) {
    let (mut version, mut seen) = (0, Elsewhere::default());
    while !over.load(Ordering::Relaxed) {
        version += 1;
        for key in &keys {
            match cache.set(key, version).await.expect("a receipt").l2() {
                WriteStatus::Done => seen.done += 1,
                WriteStatus::Queued => seen.queued += 1,
                WriteStatus::Unknown => seen.unknown += 1,
                other => panic!("{key}: {other:?}"),
            }
            let read = cache.get::<u64>(key).await.expect("no error");
            assert!(
                read.is_none_or(|read| *read == version),
                "{key}: an older value than {version}"
            );
        }
        sleep(Duration::from_millis(5)).await;
    }
    (version, seen)
}

/// Keys that all three primaries hold, changed all the time from one node; `strike` does something to the
/// server of the ledger meanwhile.
async fn writing_through(strike: impl FnOnce(&mut ClusterServers, usize) + Send + 'static) {
    let mut servers = ClusterServers::start();
    let (one, two) = (hasty(&servers).await, hasty(&servers).await);
    let keys: Vec<_> = (0..12).map(|key| format!("key{key}")).collect();
    both_are_in_step(&one, &two, &keys, 1).await;
    let over = Arc::new(AtomicBool::new(false));
    let (writer, stop, written) = (one.clone(), Arc::clone(&over), keys.clone());
    let writing = tokio::spawn(async move {
        let mut version = 2;
        while !stop.load(Ordering::Relaxed) {
            for key in &written {
                version += 1;
                let load = move |_| async move { crinkle::ok(version) };
                writer.remove_by_tag("tag").await.expect("a receipt");
                let found = writer.get_or_set(key, load).tags(["tag"]).await.expect("a value");
                // What the node has removed is never fresh again there.
                assert!(
                    *found == version || found.meta().is_stale(),
                    "{key}: {} for {version}",
                    *found
                );
                writer.remove(key).await.expect("a receipt");
                sleep(Duration::from_millis(5)).await;
            }
        }
        version
    });
    let victim = servers.owner(0, "shop:v1:L").expect("an owner");
    let spared = |key: &String| {
        let owner = servers.owner(0, &format!("shop:v1:e:{key}")).expect("an owner");
        owner != victim
    };
    let elsewhere: Vec<_> = (0..20).map(|key| format!("elsewhere{key}")).filter(spared).collect();
    assert!(elsewhere.len() > 5);
    let aside = write_elsewhere(one.clone(), elsewhere.clone(), Arc::clone(&over));
    let aside = tokio::spawn(aside);
    let struck = tokio::task::spawn_blocking(move || {
        strike(&mut servers, victim);
        servers
    });
    let _servers = struck.await.expect("struck");
    over.store(true, Ordering::Relaxed);
    let version = writing.await.expect("nothing removed was answered");
    let (last, seen) = aside.await.expect("nothing older was answered");
    println!("writes on the other primaries: {seen:?}");
    // The cluster refuses every slot until all are held again; the circuit breaker of L2 is open meanwhile.
    assert!(seen.done > 0 && seen.queued > 0 && seen.unknown < seen.queued, "{seen:?}");
    both_are_in_step(&one, &two, &keys, version + 1).await;
    // Their primaries lost nothing: what was acknowledged last is there, unless an invalidation that had waited
    // came after it. Nothing older is, on either node.
    for (key, cache) in elsewhere.iter().flat_map(|key| [(key, &one), (key, &two)]) {
        comes_true("nothing older is answered", async || {
            let read = cache.get::<u64>(key).await.expect("no error");
            read.is_none_or(|read| *read == last)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_left_for_its_replica() {
    writing_through(|servers, ledger| {
        servers.fail_over(ledger).expect("its replica takes over");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_left_for_its_replica() {
    writing_through(|servers, ledger| {
        servers.server(ledger).stop_process();
        let witness = (ledger + 1) % 3;
        let began = Instant::now();
        while servers.primaries(witness).is_ok_and(|all| all.len() < 3 || all.contains(&ledger)) {
            assert!(began.elapsed() < DEADLINE, "nobody takes over");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    })
    .await;
}

/// How many messages of a kind the servers have passed on to each other.
fn passed_on(servers: &ClusterServers, kind: &str) -> u64 {
    let name = format!("cluster_stats_messages_{kind}_sent:");
    let sent = |at| {
        let info: String = servers.ask(at, &["CLUSTER", "INFO"]).expect("an answer");
        let count = info.lines().find_map(|line| line.strip_prefix(&*name)?.trim().parse().ok());
        count.unwrap_or(0_u64)
    };
    (0..6).map(sent).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_is_passed_on_to_every_other_server_once() {
    const WRITES: u64 = 500;
    // A link between two servers that is given up meanwhile would carry none.
    let servers = ClusterServers::start_with(&["--cluster-node-timeout", "30000"]);
    let cache = node(&servers).await;
    let (idle, polls) = (passed_on(&servers, "publish"), cache.stats().syncs);
    comes_true("some polls have passed", async || cache.stats().syncs >= polls + 5).await;
    let idle = passed_on(&servers, "publish") - idle;
    println!("an idle node: {idle} messages between 6 servers in 5 polls");
    let (before, polls) = (passed_on(&servers, "publish"), cache.stats().syncs);
    for key in 0..WRITES {
        cache.set(format!("key{key}"), key).await.expect("stored");
    }
    let (sent, polls) = (passed_on(&servers, "publish") - before, cache.stats().syncs - polls);
    println!("{WRITES} writes: {sent} messages between 6 servers ({polls} polls)");
    // A poll: a heartbeat through three servers, and a count of the sequence through two.
    assert!(sent >= WRITES * 5 && sent <= (WRITES + (polls + 2) * 5) * 5, "{sent}, {polls} polls");
    let owner = servers.owner(0, "channel").expect("an owner");
    let known: Vec<redis::Value> =
        servers.ask(owner, &["COMMAND", "INFO", "SPUBLISH"]).expect("an answer");
    if known == [redis::Value::Nil] {
        ability::not_checked("sharded channels, which came with Redis 7.0");
        return;
    }
    for _ in 0..WRITES {
        let _: u64 = servers.ask(owner, &["SPUBLISH", "channel", "message"]).expect("published");
    }
    let sharded = passed_on(&servers, "publishshard");
    println!("{WRITES} messages on a sharded channel: {sharded} messages between 6 servers");
}

#[test]
fn a_runtime_that_ends_during_a_look_at_the_slots_does_not_end_those_of_the_next() {
    // Accepts connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let first = current_thread();
    let mut client = first.block_on(RedisClient::cluster([url])).unwrap();
    let mut command = client.clone();
    first.spawn(async move {
        let _: redis::RedisResult<()> =
            redis::cmd("GET").arg("key").query_async(&mut command).await;
    });
    first.block_on(tokio::task::yield_now());
    drop(first);
    let answer: redis::RedisResult<()> =
        current_thread().block_on(redis::cmd("GET").arg("key").query_async(&mut client));
    let error = answer.unwrap_err().to_string();
    assert!(!error.contains("shutting down"), "{error}");
}

#[tokio::test]
async fn a_cluster_has_one_database() {
    let numbered = RedisClient::cluster(["redis://127.0.0.1:1/3"]).await;
    let error = numbered.expect_err("refused").to_string();
    assert!(error.contains("database 0 only"), "{error}");
}

/// A primary that has lost sight of all the others goes on answering: it names itself alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_does_not_know_the_others_is_not_believed() {
    let args = ["--cluster-require-full-coverage", "no"];
    let servers = ClusterServers::start_with(&args);
    let ids: Vec<String> =
        (0..SERVERS).map(|at| servers.ask(at, &["CLUSTER", "MYID"]).expect("its id")).collect();
    for id in &ids[1..] {
        let () = servers.ask(0, &["CLUSTER", "FORGET", id]).expect("forgotten for a minute");
    }
    let alone: Vec<redis::Value> = servers.ask(0, &["CLUSTER", "SLOTS"]).expect("its slots");
    assert_eq!(alone.len(), 1, "what it holds itself");
    // It is the first that is asked.
    let cache = node(&servers).await;
    let client = client_of(&servers).await;
    assert_eq!(client.primaries().await.expect("they answer").len(), 3);
    let keys: Vec<_> = (0..60).map(|key| format!("key{key}")).collect();
    let polls = cache.stats().syncs + 8;
    comes_true("every server has had its turn to be asked", async || {
        for key in &keys {
            let receipt = cache.set(key, 1_u64).await.expect("held here");
            assert_eq!(receipt.l2(), WriteStatus::Done, "{key}");
        }
        assert_eq!(client.primaries().await.expect("they answer").len(), 3);
        cache.stats().syncs >= polls
    })
    .await;
}
