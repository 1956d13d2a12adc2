//! A server that is down, hung, full, restarted empty, or holds what is not ours.

use std::time::Duration;

use crinkle::{Cache, EntryOptions, ErrorKind, Source, WriteStatus};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{
    DEADLINE, PATIENCE, client, comes_true, connection, in_time, is_ready, over, within,
};
use tokio::time::timeout;

fn options() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(600))
        .l2_soft_timeout(Duration::from_millis(100))
        .l2_hard_timeout(Duration::from_millis(300))
}

async fn hasty_at(url: &str) -> Cache {
    cache_with(url, options()).await
}

/// For tests of what is answered, not of how long that may take.
async fn patient_at(url: &str) -> Cache {
    cache_with(url, within(PATIENCE)).await
}

async fn cache_with(url: &str, options: EntryOptions) -> Cache {
    over(&client(url).await).default_options(options).build().expect("sound settings")
}

async fn load(cache: &Cache, key: &str, value: u64) -> crinkle::Cached<u64> {
    let answer = cache.get_or_set(key, move |_| async move { crinkle::ok(value) });
    in_time(answer).await.expect("a value")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_the_start_is_used_once_it_is_up() {
    let mut server = RedisServer::down();
    let cache = hasty_at(&server.app_url()).await;
    assert_eq!(*load(&cache, "early", 1).await, 1);
    assert!(!cache.health().subscribed);
    let receipt = cache.remove_by_tag("any").await.expect("held here");
    assert!(!receipt.is_propagated());
    server.restart();
    is_ready(&cache).await;
    comes_true("the removal has its number", async || cache.health().pending_removals == 0).await;
    comes_true("L2 takes values", async || {
        let _ = cache.set("late", 2_u64).await;
        let other = hasty_at(&server.app_url()).await;
        is_ready(&other).await;
        other.get::<u64>("late").await.is_ok_and(|found| found.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_server_costs_each_call_at_most_its_timeout_and_then_nothing() {
    let server = RedisServer::start();
    let cache = hasty_at(&server.app_url()).await;
    is_ready(&cache).await;
    load(&cache, "warm", 1).await;
    server.stop_process();
    for n in 0..20 {
        assert_eq!(*load(&cache, &format!("cold{n}"), n).await, n);
    }
    assert!(!cache.health().l2_up, "the breaker is open");
    let queued = timeout(DEADLINE, cache.set("warm", 2_u64).into_future()).await;
    assert_eq!(queued.expect("in time").expect("held here").l2(), WriteStatus::Queued);
    assert_eq!(cache.peek::<u64>("warm").as_deref(), Some(&2));
    server.cont_process();
    comes_true("the breaker closes", async || cache.health().l2_up).await;
    comes_true("the queue drains", async || cache.health().recovery_backlog == 0).await;
    let other = hasty_at(&server.app_url()).await;
    is_ready(&other).await;
    let seen = other.get::<u64>("warm").await.expect("no error");
    assert_ne!(seen.as_deref(), Some(&1), "the value from before the write came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_restarted_empty_hides_everything_from_before() {
    let mut server = RedisServer::start();
    let (one, two) = (patient_at(&server.app_url()).await, patient_at(&server.app_url()).await);
    is_ready(&one).await;
    is_ready(&two).await;
    load(&one, "key", 1).await;
    assert_eq!(load(&two, "key", 99).await.meta().source(), Source::L2);
    server.kill();
    server.restart_empty();
    comes_true("both have met the new ledger", async || {
        one.stats().epochs == 1 && two.stats().epochs == 1
    })
    .await;
    assert!(one.peek::<u64>("key").is_none() && two.peek::<u64>("key").is_none());
    comes_true("L2 is used again", async || {
        load(&one, "key", 2).await.meta().source() != Source::Factory
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_permission_runs_on_l1_and_is_told() {
    let users = [
        "user default on nopass ~* &* +@all",
        "user guest on >secret ~* &* -@all +ping +hello +client|setname +subscribe",
    ];
    let server = RedisServer::start_with_users(&users);
    let cache = patient_at(&server.url_for("guest", "secret")).await;
    assert_eq!(*load(&cache, "key", 1).await, 1);
    let receipt = cache.set("key", 2_u64).await.expect("held here");
    assert_eq!(receipt.l2(), WriteStatus::Queued);
    assert_eq!(cache.peek::<u64>("key").as_deref(), Some(&2));
    let error = cache.set("key", 3_u64).require_propagation().await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::NotPropagated);
    let said = error.to_string();
    assert!(said.contains("\"key\"") && said.contains("refuses this client"), "{said}");
    assert!(cache.stats().l2_errors > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_at_a_key_is_a_counted_miss_and_is_left_alone() {
    let server = RedisServer::start();
    let mut raw = connection(&server.url()).await;
    let () = redis::cmd("LPUSH")
        .arg("shop:v1:e:list")
        .arg("theirs")
        .query_async(&mut raw)
        .await
        .expect("planted");
    let cache = patient_at(&server.app_url()).await;
    is_ready(&cache).await;
    let before = cache.stats().l2_errors;
    assert_eq!(*load(&cache, "list", 5).await, 5);
    assert!(cache.stats().l2_errors > before);
    assert_eq!(load(&cache, "list", 6).await.meta().source(), Source::L1);
    let kind: String =
        redis::cmd("TYPE").arg("shop:v1:e:list").query_async(&mut raw).await.expect("an answer");
    assert_eq!(kind, "list");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_corrupt_bytes_at_a_key_are_counted_misses_that_refill() {
    let server = RedisServer::start();
    let mut raw = connection(&server.url()).await;
    let cache = patient_at(&server.app_url()).await;
    let other = patient_at(&server.app_url()).await;
    is_ready(&cache).await;
    is_ready(&other).await;
    load(&cache, "flipped", 1).await;
    let mut bytes: Vec<u8> = read(&mut raw, "flipped").await;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    write(&mut raw, "flipped", &bytes).await;
    write(&mut raw, "foreign", b"not ours at all").await;
    for key in ["flipped", "foreign"] {
        let before = other.stats().l2_undecodable;
        assert!(other.get::<u64>(key).await.expect("no error").is_none());
        assert!(other.stats().l2_undecodable > before, "{key} was not counted");
        assert_eq!(load(&other, key, 7).await.meta().source(), Source::Factory);
        let third = patient_at(&server.app_url()).await;
        is_ready(&third).await;
        assert_eq!(
            load(&third, key, 8).await.meta().source(),
            Source::L2,
            "{key} was not refilled"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_on_the_channel_is_counted_and_harms_nobody() {
    let server = RedisServer::start();
    let mut raw = connection(&server.url()).await;
    let cache = patient_at(&server.app_url()).await;
    is_ready(&cache).await;
    load(&cache, "key", 1).await;
    for junk in [&b""[..], b"hello", b"CB\x01K", &[0xff; 4096]] {
        let () = redis::cmd("PUBLISH")
            .arg("shop:v1:ch")
            .arg(junk)
            .query_async(&mut raw)
            .await
            .expect("published");
    }
    comes_true("all junk is counted", async || cache.stats().messages_undecodable == 4).await;
    assert_eq!(*load(&cache, "key", 2).await, 1, "the entry is still valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_still_answers_hits_and_takes_removals() {
    let server =
        RedisServer::start_with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let cache = patient_at(&server.app_url()).await;
    is_ready(&cache).await;
    assert_eq!(cache.set("kept", 1_u64).await.expect("stored").l2(), WriteStatus::Done);
    let mut raw = connection(&server.url()).await;
    for size in [100_000, 1_000, 10] {
        for n in 0..20_000 {
            let mut set = redis::cmd("SET");
            set.arg(format!("filler{size}:{n}")).arg(vec![0_u8; size]);
            let set: Result<(), _> = set.query_async(&mut raw).await;
            if set.is_err() {
                break;
            }
        }
    }
    let receipt = cache.set("refused", 2_u64).await.expect("held here");
    assert_eq!(receipt.l2(), WriteStatus::Queued);
    let other = patient_at(&server.app_url()).await;
    is_ready(&other).await;
    assert_eq!(load(&other, "kept", 9).await.meta().source(), Source::L2);
    assert_eq!(cache.remove("kept").await.expect("removed").l2(), WriteStatus::Done);
    comes_true("the other node has heard", async || other.peek::<u64>("kept").is_none()).await;
}

async fn read(raw: &mut redis::aio::MultiplexedConnection, key: &str) -> Vec<u8> {
    let get = redis::cmd("GET").arg(format!("shop:v1:e:{key}")).to_owned();
    get.query_async(raw).await.expect("an answer")
}

async fn write(raw: &mut redis::aio::MultiplexedConnection, key: &str, bytes: &[u8]) {
    let mut set = redis::cmd("SET");
    set.arg(format!("shop:v1:e:{key}")).arg(bytes).arg("PX").arg(600_000);
    let () = set.query_async(raw).await.expect("planted");
}
