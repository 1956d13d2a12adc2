//! Servers that refuse, forget, stop, and hold what is not ours.

use std::time::Duration;

use crinkle_backplane::RedisBackplane;
use crinkle_core::backplane::Backplane;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Announce, AnnounceRemoval, L2, L2Error, L2ErrorKind, Record};
use crinkle_core::protocol::ledger::{Advance, Removal, Standing, Strength, SyncAsk, Target};
use crinkle_core::protocol::record::{LoadLock, LoadLockRequest, Put};
use crinkle_core::protocol::{Epoch, Nonce, TagHash, Version};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::ability::Ability;
use crinkle_testkit::redis::RedisServer;

const ADMIN: &str = "user default on nopass ~* &* +@all";

#[tokio::test]
async fn another_type_under_a_record_is_foreign_until_it_is_overwritten() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    command(&client, &["RPUSH", "key", "not ours"]).await;
    assert_eq!(kind(store.read("key", None).await), L2ErrorKind::Foreign);
    assert_eq!(kind(store.read("key", Some(ask(1))).await), L2ErrorKind::Foreign);
    let put = store.put("key", Version(1), value(2), None).await;
    assert_eq!(kind(put), L2ErrorKind::Foreign);
    assert_eq!(kind(store.expire("key", Version(1), None).await), L2ErrorKind::Foreign);
    assert_eq!(kind(store.release("key", Version(1)).await), L2ErrorKind::Foreign);
    assert_eq!(kind(store.renew("key", Version(1), 1).await), L2ErrorKind::Foreign);
    store.set("key", value(1), None, None).await.unwrap();
    assert!(store.read("key", None).await.unwrap().found.is_some());
}

#[tokio::test]
async fn whatever_sits_under_the_ledger_gives_way_to_a_new_epoch() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    let squatters: [&[&str]; 5] = [
        &["SET", "L", "a string"],
        &["RPUSH", "L", "a list"],
        &["ZADD", "L", "5", "no epoch"],
        &["ZADD", "L", "-1", "no such epoch", "5", "f"],
        // What this version cannot read: another one's.
        &["ZADD", "L", "-1", "e312345678", "5", "f"],
    ];
    for (number, squatter) in (1..).zip(squatters) {
        command(&client, &["DEL", "L"]).await;
        command(&client, squatter).await;
        let reply = store.sync("L", &sync(number)).await.unwrap();
        assert_eq!((reply.standing, reply.epoch), (Standing::NewEpoch, Epoch(number)));
        command(&client, &["DEL", "L"]).await;
        command(&client, squatter).await;
        assert_eq!(store.advance("L", &advance(number), None).await.unwrap().epoch, Epoch(number));
    }
}

#[tokio::test]
async fn a_ledger_with_a_member_that_nobody_knows_is_not_read() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    store.advance("L", &advance(1), None).await.unwrap();
    store.sync("L", &sync(1)).await.unwrap();
    command(&client, &["ZADD", "L", "5", "x a barrier of the future"]).await;
    assert!(store.sync("L", &sync(1)).await.is_err(), "it may hide what is held");
}

/// It would hide what is loaded under it, for ever.
#[tokio::test]
async fn a_number_that_was_never_issued_ends_the_ledger() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    let tag = "h0123456789abcdef";
    let planted: [&[&str]; 5] = [
        &["ZADD", "L", "9007199254740991", tag],
        &["ZADD", "L", "+inf", tag],
        &["ZADD", "L", "9007199254740991", "FH"],
        &["ZADD", "L", "-9007199254740991", "i12345678"],
        &["ZADD", "L", "9007199254740991", "f"],
    ];
    for (number, plant) in (1..).zip(planted) {
        command(&client, &["DEL", "L"]).await;
        store.sync("L", &sync(100 * number)).await.unwrap();
        store.advance("L", &advance(number), None).await.unwrap();
        let known = SyncAsk { epoch: Some(Epoch(100 * number)), ..sync(100 * number + 1) };
        assert_eq!(store.sync("L", &known).await.unwrap().standing, Standing::Current);
        command(&client, plant).await;
        let reply = store.sync("L", &known).await.unwrap();
        assert_eq!((reply.standing, reply.epoch), (Standing::NewEpoch, Epoch(100 * number + 1)));
        assert!(reply.levels.is_empty() && reply.ids.is_empty() && reply.floor.hard == 0);
    }
}

/// A node asks for the rest of the ids never: it remembers fewer.
#[tokio::test]
async fn a_reply_holds_so_many_ids_however_many_there_are() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    store.sync("L", &sync(1)).await.unwrap();
    for part in 0..10 {
        let mut add = redis::cmd("ZADD");
        add.arg("L");
        for number in part * 10_000..(part + 1) * 10_000_u64 {
            add.arg(-1000.0 - number as f64).arg([b"i", &number.to_be_bytes()[..]].concat());
        }
        let () = add.query_async(&mut client.clone()).await.unwrap();
    }
    let reply = store.sync("L", &sync(1)).await.unwrap();
    assert_eq!(reply.ids.len(), 2048);
    assert_eq!(reply.ids.last().unwrap().0, 100_999, "the newest");
}

/// Keys without a life, which only others leave, count as over: the next reader replaces them.
#[tokio::test]
async fn a_record_without_a_life_is_stale() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    store.set("key", value(1), None, None).await.unwrap();
    command(&client, &["PERSIST", "key"]).await;
    let read = store.read("key", Some(ask(2))).await.unwrap();
    assert_eq!(
        (read.found.map(|found| found.ttl_ms), read.load_lock),
        (Some(0), LoadLock::Granted)
    );
    assert_eq!(store.put("key", Version(1), value(3), None).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn a_ledger_ends_when_nobody_asks_for_it() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    store.sync("L", &sync(1)).await.unwrap();
    let ttl: u64 = redis::cmd("PTTL").arg("L").query_async(&mut client.clone()).await.unwrap();
    assert!(ttl <= 120_000, "a ledger lives twice the retention");
}

#[tokio::test]
async fn a_missing_permission_is_denied() {
    let all = "on >secret ~* &* +@all";
    let server = RedisServer::start_with_users(&[
        ADMIN,
        &format!("user readonly {all} -set -setrange -del"),
        &format!("user silent {all} resetchannels"),
        &format!("user numberless {all} -zadd"),
        &format!("user scriptless {all} -evalsha"),
    ]);
    let (_, admin) = open(&server.url()).await;
    admin.set("key", value(1), None, None).await.unwrap();
    let announce = || Some(Announce { channel: "ch".into(), message: "said".into() });

    let (_, store) = open(&server.url_for("readonly", "secret")).await;
    assert_eq!(kind(store.set("key", value(2), None, None).await), L2ErrorKind::Denied);
    assert_eq!(kind(store.remove("key", None).await), L2ErrorKind::Denied);
    assert_eq!(kind(store.expire("key", Version(2), None).await), L2ErrorKind::Denied);
    assert!(
        store.read("key", None).await.unwrap().found.is_some(),
        "a hit needs no right to write"
    );
    assert_eq!(store.read("absent", Some(ask(1))).await.unwrap().load_lock, LoadLock::None);

    let (_, store) = open(&server.url_for("silent", "secret")).await;
    assert_eq!(kind(store.set("key", value(2), None, announce()).await), L2ErrorKind::Denied);
    assert_eq!(kind(store.remove("key", announce()).await), L2ErrorKind::Denied);
    assert!(admin.read("key", None).await.unwrap().found.is_some(), "unannounced is unwritten");
    let said = AnnounceRemoval { channel: "ch".into(), head: "h".into(), tail: "t".into() };
    let advanced = store.advance("L", &advance(1), Some(said)).await.unwrap();
    assert!(!advanced.announced, "a number is not lost with its announcement");

    let (_, store) = open(&server.url_for("numberless", "secret")).await;
    assert_eq!(kind(store.advance("M", &advance(1), None).await), L2ErrorKind::Denied);
    let (_, store) = open(&server.url_for("scriptless", "secret")).await;
    assert_eq!(kind(store.remove("key", None).await), L2ErrorKind::Denied);
    let hit = store.read("key", None).await.unwrap();
    assert!(hit.found.is_some(), "a hit takes no script");
    let hit = store.read("key", Some(ask(1))).await;
    if Ability::SetNxGet.is_there() {
        assert!(hit.unwrap().found.is_some(), "a hit takes no script where the reader may load");
    } else {
        assert_eq!(kind(hit), L2ErrorKind::Denied);
    }
    let (_, store) = open(&server.url_for("readonly", "wrong")).await;
    assert_eq!(kind(store.read("key", None).await), L2ErrorKind::Denied);
}

#[tokio::test]
async fn a_full_server_still_serves_hits_and_takes_invalidations() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    for key in ["hit", "stale", "expired", "removed"] {
        let record = if key == "hit" { value(1) } else { stale(1) };
        store.set(key, record, None, None).await.unwrap();
    }
    command(&client, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(&client, &["CONFIG", "SET", "maxmemory", "1"]).await;

    assert_eq!(kind(store.set("new", value(1), None, None).await), L2ErrorKind::Full);
    assert_eq!(kind(store.put("hit", Version(1), value(2), None).await), L2ErrorKind::Full);
    assert!(store.read("hit", Some(ask(1))).await.unwrap().found.is_some());
    let read = store.read("stale", Some(ask(1))).await.unwrap();
    assert!(
        read.found.is_some() && read.load_lock == LoadLock::None,
        "a hit does not fail for its load lock"
    );
    assert_eq!(store.read("absent", Some(ask(1))).await.unwrap().load_lock, LoadLock::None);
    store.expire("expired", Version(2), None).await.unwrap();
    assert_eq!(store.read("expired", None).await.unwrap().found, None, "rather gone than fresh");
    store.remove("removed", None).await.unwrap();
    let first = store.advance("L", &advance(1), None).await.unwrap();
    let second = store.advance("L", &advance(2), None).await.unwrap();
    assert!(second.seq > first.seq, "removals are numbered on a full server");
    assert_eq!(store.sync("L", &sync(9)).await.unwrap().ids.len(), 2);
    store.sync("M", &sync(9)).await.unwrap();

    command(&client, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(store.read("stale", Some(ask(1))).await.unwrap().load_lock, LoadLock::Granted);
}

#[tokio::test]
async fn scripts_that_the_server_forgot_come_back_unseen() {
    let server = RedisServer::start();
    let (client, store) = open(&server.url()).await;
    for version in 1..5 {
        command(&client, &["SCRIPT", "FLUSH"]).await;
        store.set("key", value(version), None, None).await.unwrap();
        command(&client, &["SCRIPT", "FLUSH"]).await;
        store.advance("L", &advance(version), None).await.unwrap();
    }
    command(&client, &["SCRIPT", "FLUSH"]).await;
    let asks = [("key".to_owned(), None), ("none".to_owned(), None)];
    let reads = store.read_many(&asks).await.unwrap();
    assert_eq!(reads.iter().map(|r| r.found.is_some()).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn a_server_may_come_up_after_its_clients() {
    let mut server = RedisServer::down();
    let (_, store) = open(&server.url()).await;
    let bus = RedisBackplane::connect(&server.url()).await.unwrap();
    assert_eq!(kind(store.read("key", None).await), L2ErrorKind::Disconnected);
    assert!(bus.subscribe(&["ch".to_owned()]).await.is_err());
    server.restart();
    store.set("key", value(1), None, None).await.unwrap();
    bus.publish("ch", "up".into()).await.unwrap();
    bus.subscribe(&["ch".to_owned()]).await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_an_error_at_once_and_found_again() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (client, store) = open(&server.url()).await;
    let bus = RedisBackplane::new(client);
    let mut heard = bus.subscribe(&["ch".to_owned()]).await.unwrap();
    store.set("key", value(1), None, None).await.unwrap();
    server.kill();
    assert_eq!(heard.next().await, None, "a subscription ends with its connection");
    assert_eq!(kind(store.read("key", None).await), L2ErrorKind::Disconnected);
    server.restart();
    assert!(store.read("key", None).await.unwrap().found.is_some(), "what was on disk is back");
    server.restart_empty();
    // The connection broke unseen: one command may find that out.
    drop(store.read("key", None).await);
    assert_eq!(store.read("key", None).await.unwrap().found, None, "an empty disk is empty");
}

#[tokio::test]
async fn calls_on_a_frozen_server_end_with_their_callers_timeout() {
    let server = RedisServer::start();
    let (_, store) = open(&server.url()).await;
    store.set("key", value(1), None, None).await.unwrap();
    server.stop_process();
    for _ in 0..20 {
        let call = tokio::time::timeout(Duration::from_millis(10), store.read("key", None));
        assert!(call.await.is_err(), "nobody answers");
    }
    server.cont_process();
    assert!(store.read("key", None).await.unwrap().found.is_some());
}

#[tokio::test]
async fn a_client_does_not_show_its_password() {
    let client = RedisClient::connect("redis://user:hunter2@localhost:1/").await.unwrap();
    let (store, bus) = (RedisL2::new(client.clone()), RedisBackplane::new(client));
    assert!(!format!("{store:?}{bus:?}").contains("hunter2"));
    let error = store.read("key", None).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(RedisL2::connect("http://localhost").await.is_err(), "an URL must make sense");
}

async fn open(url: &str) -> (RedisClient, RedisL2) {
    let client = RedisClient::connect(url).await.unwrap();
    (client.clone(), RedisL2::new(client))
}

async fn command(client: &RedisClient, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).exec_async(&mut client.clone()).await.unwrap();
}

fn kind<T: std::fmt::Debug>(result: Result<T, L2Error>) -> L2ErrorKind {
    result.unwrap_err().kind()
}

pub(crate) fn value(version: u64) -> Record {
    record(version, 60_000)
}

fn stale(version: u64) -> Record {
    record(version, 0)
}

fn record(version: u64, logical_ms: u64) -> Record {
    let envelope = Envelope {
        version: Version(version),
        expired: false,
        epoch: None,
        stamp: 0,
        logical_ms,
        physical_ms: 60_000,
        schema: 1,
        codec: 1,
        compression: 0,
        key: "key",
        weight: 1,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: Vec::new(),
        payload: b"payload",
    };
    Record { bytes: envelope.encode(), ttl_ms: 60_000 }
}

fn ask(id: u64) -> LoadLockRequest {
    LoadLockRequest { id: Version(id), ttl_ms: 60_000, replace: None, hidden: None }
}

fn advance(number: u64) -> Advance {
    let targets = vec![Target::Tag(TagHash(1))];
    Advance {
        removal: Removal { nonce: Nonce(number), strength: Strength::Hard, targets },
        epoch: None,
        frontier: 0,
        new_epoch: Epoch(number),
        retention_ms: 60_000,
    }
}

fn sync(new_epoch: u64) -> SyncAsk {
    SyncAsk {
        epoch: None,
        from: 0,
        frontier: 0,
        last: None,
        new_epoch: Epoch(new_epoch),
        page: 4096,
        retention_ms: 60_000,
    }
}
