//! Checks the records of a store: reads, load locks, fills, sets, removals and TTLs.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::SystemClock;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::l2::{Deadline, Found, L2, L2ErrorKind, Read, Record};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{Head, LoadLock, LoadLockRequest, Put};

use super::{PATIENCE, ask, envelope, fresh, value, value_of};

pub(super) async fn check<S: L2 + ?Sized>(store: &S, prefix: &str) {
    let key = |what| fresh(prefix, what);
    locks_on_a_miss(store, &key("miss")).await;
    fills(store, &key("fill")).await;
    reads_many(store, [&key("many"), &key("many"), &key("many")].map(String::as_str)).await;
    writes(store, &key("write")).await;
    refreshes(store, &key("refresh")).await;
    hides(store, &key("hidden")).await;
    expires(store, &key("expire")).await;
    releases(store, &key("release")).await;
    renews(store, &key("renew")).await;
    comes_late(store, &key("late")).await;
    meets_foreign_bytes(store, &key("foreign")).await;
    ends(store, &key("end")).await;
}

async fn locks_on_a_miss<S: L2 + ?Sized>(store: &S, key: &str) {
    let nothing = Read { found: None, load_lock: LoadLock::None };
    assert_eq!(
        read(store, key, None).await,
        nothing,
        "a plain read of an absent key takes no load lock"
    );
    assert_eq!(read(store, key, None).await, nothing, "a plain read leaves nothing behind");
    let first = read(store, key, Some(ask(1))).await;
    assert_eq!(
        first,
        Read { found: None, load_lock: LoadLock::Granted },
        "the first reader gets the load lock"
    );
    let again = read(store, key, Some(ask(1))).await;
    assert_eq!(again.load_lock, LoadLock::Granted, "asking again with the same id changes nothing");
    let held = Read { found: None, load_lock: LoadLock::HeldBy(Version(1)) };
    assert_eq!(
        read(store, key, Some(ask(2))).await,
        held,
        "the second reader gets the holder of the load lock"
    );
    assert_eq!(read(store, key, None).await, held, "so does a plain reader");
    let wrong = LoadLockRequest { replace: Some(Version(9)), ..ask(2) };
    assert_eq!(read(store, key, Some(wrong)).await, held, "only the load lock named is replaced");
    let right = LoadLockRequest { replace: Some(Version(1)), ..ask(2) };
    assert_eq!(
        read(store, key, Some(right)).await.load_lock,
        LoadLock::Granted,
        "a load lock is replaced"
    );
    let lost = put(store, key, 1, value(10, "lost")).await;
    assert_eq!(lost, Put::Refused, "a replaced load lock authorises no fill");
    assert_eq!(
        put(store, key, 2, value(11, "won")).await,
        Put::Stored,
        "the load lock that replaced it does"
    );
}

async fn fills<S: L2 + ?Sized>(store: &S, key: &str) {
    let refused = put(store, key, 1, value(2, "ghost")).await;
    assert_eq!(refused, Put::Refused, "absence never authorises a write");
    assert_eq!(read(store, key, None).await.found, None, "a refused put writes nothing");
    read(store, key, Some(ask(1))).await;
    assert_eq!(
        put(store, key, 1, value(2, "two")).await,
        Put::Stored,
        "a load lock authorises a fill"
    );
    let refused = put(store, key, 1, value(3, "three")).await;
    assert_eq!(refused, Put::Refused, "a load lock authorises one fill");
    let found = found(store, key).await;
    assert_eq!(found.bytes, value(2, "two").bytes, "a record is kept byte for byte");
    let hour = 3_600_000;
    assert!(found.ttl_ms <= 2 * hour && found.ttl_ms > hour, "a record keeps its physical TTL");
    let fresh = read(store, key, Some(ask(9))).await;
    assert_eq!(fresh.load_lock, LoadLock::None, "a fresh value needs no load lock");
    assert_eq!(put(store, key, 2, value(3, "three")).await, Put::Stored, "a version is replaced");
    store.remove(key, None).await.expect("remove");
    let refused = put(store, key, 3, value(4, "back")).await;
    assert_eq!(refused, Put::Refused, "a removed version is no longer there to replace");
}

async fn reads_many<S: L2 + ?Sized>(store: &S, [held, full, free]: [&str; 3]) {
    read(store, held, Some(ask(1))).await;
    store.set(full, value(2, "two"), None, None).await.expect("set");
    let asks = [(held, Some(ask(3))), (full, Some(ask(4))), (free, Some(ask(5))), (full, None)];
    let asks = asks.map(|(key, ask)| (key.to_owned(), ask));
    let reads = store.read_many(&asks).await.expect("read_many");
    let load_locks: Vec<_> = reads.iter().map(|read| read.load_lock).collect();
    let expected =
        [LoadLock::HeldBy(Version(1)), LoadLock::None, LoadLock::Granted, LoadLock::None];
    assert_eq!(load_locks, expected, "several reads are answered in order, each independently");
    let bytes = |at: usize| reads[at].found.as_ref().map(|found| found.bytes.clone());
    let two = Some(value(2, "two").bytes);
    assert_eq!((bytes(0), bytes(1), bytes(2), bytes(3)), (None, two.clone(), None, two));
    assert_eq!(
        put(store, free, 5, value(6, "six")).await,
        Put::Stored,
        "their load locks are load locks"
    );
    assert_eq!(store.read_many(&[]).await.expect("read_many"), [], "no keys give no answers");
}

async fn writes<S: L2 + ?Sized>(store: &S, key: &str) {
    read(store, key, Some(ask(1))).await;
    store.set(key, value(5, "set"), None, None).await.expect("set");
    let refused = put(store, key, 1, value(6, "late")).await;
    assert_eq!(refused, Put::Refused, "a set voids a load lock");
    store.set(key, value(5, "set"), None, None).await.expect("set again");
    assert_eq!(version(store, key).await, 5, "a set is idempotent");
    store.remove(key, None).await.expect("remove");
    store.remove(key, None).await.expect("removing nothing is no error");
    read(store, key, Some(ask(2))).await;
    store.remove(key, None).await.expect("remove");
    let refused = put(store, key, 2, value(7, "late")).await;
    assert_eq!(refused, Put::Refused, "a remove voids a load lock");
    assert_eq!(
        read(store, key, None).await.load_lock,
        LoadLock::None,
        "a removed load lock is gone"
    );
}

async fn refreshes<S: L2 + ?Sized>(store: &S, key: &str) {
    let stale = value_of(5, "stale", 0);
    store.set(key, stale.clone(), None, None).await.expect("set");
    let plain = read(store, key, None).await;
    assert_eq!(
        plain.load_lock,
        LoadLock::None,
        "a plain reader of a stale value is given no load lock"
    );
    let first = read(store, key, Some(ask(1))).await;
    assert_eq!(
        first.load_lock,
        LoadLock::Granted,
        "a reader of a stale value gets its refresh lock"
    );
    let served = first.found.expect("a stale value is served with its load lock");
    assert_eq!(payload(&served), "stale", "a stale value is served with its load lock");
    let second = read(store, key, Some(ask(2))).await;
    assert_eq!(second.load_lock, LoadLock::HeldBy(Version(1)), "one refresh at a time");
    assert!(second.found.is_some(), "a refresh does not hide the value");
    assert_eq!(
        read(store, key, Some(ask(1))).await.load_lock,
        LoadLock::Granted,
        "asking is idempotent"
    );
    let replacing = LoadLockRequest { replace: Some(Version(1)), ..ask(2) };
    let replaced = read(store, key, Some(replacing)).await.load_lock;
    assert_eq!(replaced, LoadLock::Granted, "a refresh lock is replaced");
    assert_eq!(version(store, key).await, 5, "a refresh lock leaves the version");
    assert_eq!(put(store, key, 5, value(6, "new")).await, Put::Stored, "a refresh is a put");
    assert_eq!(
        read(store, key, Some(ask(3))).await.load_lock,
        LoadLock::None,
        "it ends the load lock"
    );
    let brief = LoadLockRequest { ttl_ms: 1, ..ask(1) };
    store.set(key, stale, None, None).await.expect("set");
    read(store, key, Some(brief)).await;
    until(store, key, Some(ask(4)), "a refresh lock ends", |r| r.load_lock == LoadLock::Granted)
        .await;
}

async fn hides<S: L2 + ?Sized>(store: &S, key: &str) {
    store.set(key, value(5, "hidden"), None, None).await.expect("set");
    let other = LoadLockRequest { hidden: Some(Version(4)), ..ask(1) };
    assert_eq!(
        read(store, key, Some(other)).await.load_lock,
        LoadLock::None,
        "another version is hidden"
    );
    let this = LoadLockRequest { hidden: Some(Version(5)), ..ask(1) };
    let hidden = read(store, key, Some(this)).await;
    assert_eq!(
        hidden.load_lock,
        LoadLock::Granted,
        "a hidden value has a load lock like a stale one"
    );
    let rival = LoadLockRequest { hidden: Some(Version(5)), ..ask(2) };
    let rival = read(store, key, Some(rival)).await.load_lock;
    assert_eq!(rival, LoadLock::HeldBy(Version(1)), "a hidden value is loaded once");
    assert_eq!(put(store, key, 5, value(6, "new")).await, Put::Stored, "and replaced by a put");
}

async fn expires<S: L2 + ?Sized>(store: &S, key: &str) {
    store.expire(key, Version(4), None).await.expect("expiring nothing is no error");
    assert_eq!(read(store, key, None).await.found, None, "expiring nothing leaves nothing");
    let brief = Record { ttl_ms: 3_600_000, ..value_of(5, "kept", 0) };
    store.set(key, brief, None, None).await.expect("set");
    read(store, key, Some(ask(1))).await;
    for _ in 0..2 {
        store.expire(key, Version(6), None).await.expect("expire");
        let found = found(store, key).await;
        assert_eq!(payload(&found), "kept", "an expired value stays as a fallback");
        assert!(found.ttl_ms <= 3_600_000 && found.ttl_ms > 1_800_000, "with its remaining TTL");
        let head = Head::Value { version: Version(6), expired: true, refresh: None };
        assert_eq!(
            record::head(&found.bytes),
            Some(head),
            "under the new version, without load locks"
        );
    }
    assert_eq!(put(store, key, 5, value(7, "old")).await, Put::Refused, "a refresh is voided");
    let again = read(store, key, Some(ask(2))).await;
    assert_eq!(again.load_lock, LoadLock::Granted, "an expired value is stale at any age");
    assert_eq!(put(store, key, 6, value(8, "new")).await, Put::Stored, "and may be refreshed");
    store.remove(key, None).await.expect("remove");
    read(store, key, Some(ask(3))).await;
    store.expire(key, Version(9), None).await.expect("expire");
    assert_eq!(
        put(store, key, 3, value(8, "late")).await,
        Put::Refused,
        "expire voids a load lock"
    );
}

async fn releases<S: L2 + ?Sized>(store: &S, key: &str) {
    store.release(key, Version(1)).await.expect("releasing nothing is no error");
    read(store, key, Some(ask(1))).await;
    store.release(key, Version(2)).await.expect("release");
    let kept = read(store, key, None).await.load_lock;
    assert_eq!(kept, LoadLock::HeldBy(Version(1)), "only its holder releases a load lock");
    store.release(key, Version(1)).await.expect("release");
    assert_eq!(
        read(store, key, None).await.load_lock,
        LoadLock::None,
        "a released load lock is gone"
    );
    store.set(key, value_of(5, "stale", 0), None, None).await.expect("set");
    store.release(key, Version(5)).await.expect("release");
    assert_eq!(version(store, key).await, 5, "a value is not a load lock");
    read(store, key, Some(ask(1))).await;
    store.release(key, Version(1)).await.expect("release");
    assert_eq!(version(store, key).await, 5, "releasing a refresh keeps the value");
    assert_eq!(read(store, key, Some(ask(2))).await.load_lock, LoadLock::Granted, "and frees it");
}

async fn renews<S: L2 + ?Sized>(store: &S, key: &str) {
    assert!(!renew(store, key, 1, 1_000).await, "there is nothing to renew");
    read(store, key, Some(LoadLockRequest { ttl_ms: 50, ..ask(1) })).await;
    assert!(!renew(store, key, 2, 1_000).await, "only its holder renews a load lock");
    if renew(store, key, 1, 60_000).await {
        let held = read(store, key, Some(ask(2))).await.load_lock;
        assert_eq!(held, LoadLock::HeldBy(Version(1)), "a renewed load lock holds");
    }
    assert!(!renew(store, key, 2, 60_000).await, "another's load lock is not renewed");
    store.set(key, value_of(5, "stale", 0), None, None).await.expect("set");
    assert!(!renew(store, key, 1, 60_000).await, "a load lock voided by a set is not renewed");
    read(store, key, Some(LoadLockRequest { ttl_ms: 1, ..ask(3) })).await;
    assert!(renew(store, key, 3, 60_000).await, "a refresh lock is renewed while it is there");
    let held = read(store, key, Some(ask(4))).await.load_lock;
    assert_eq!(held, LoadLock::HeldBy(Version(3)), "a renewed refresh lock holds");
    assert!(found(store, key).await.ttl_ms > 3_600_000, "renewing keeps the value's TTL");
}

async fn comes_late<S: L2 + ?Sized>(store: &S, key: &str) {
    let within = |limit| Some(Deadline::after(Arc::new(SystemClock), limit));
    let in_time = within(Duration::from_secs(60));
    store.set(key, value(1, "in time"), in_time, None).await.expect("set");
    assert_eq!(version(store, key).await, 1, "a set that is in time stores");
    let late = store.set(key, value(2, "late"), within(Duration::ZERO), None).await;
    let late = late.expect_err("a set after its deadline fails");
    assert_eq!(late.kind(), L2ErrorKind::Late, "a set after its deadline is no outage");
    let read = read(store, key, None).await;
    assert_eq!(read.found, None, "a set after its deadline removes the record instead");
}

async fn meets_foreign_bytes<S: L2 + ?Sized>(store: &S, key: &str) {
    let foreign = Record { bytes: "not a record".into(), ttl_ms: 60_000 };
    store.set(key, foreign.clone(), None, None).await.expect("set");
    let plain = read(store, key, None).await;
    let shown = plain.found.map(|found| found.bytes);
    assert_eq!(shown, Some(foreign.bytes.clone()), "a plain reader gets foreign bytes");
    assert_eq!(put(store, key, 0, value(1, "over")).await, Put::Refused, "they have no version");
    assert!(!renew(store, key, 0, 1_000).await, "they are no load lock");
    let asked = read(store, key, Some(ask(1))).await;
    let granted = Read { found: None, load_lock: LoadLock::Granted };
    assert_eq!(asked, granted, "for a load, foreign bytes are absent");
    assert_eq!(put(store, key, 1, value(2, "ours")).await, Put::Stored, "and replaced by a fill");
    store.set(key, foreign, None, None).await.expect("set");
    store.expire(key, Version(3), None).await.expect("expire");
    assert_eq!(read(store, key, None).await.found, None, "expiring foreign bytes removes them");
}

async fn ends<S: L2 + ?Sized>(store: &S, key: &str) {
    let bytes = envelope(1, "brief", 1).encode();
    store.set(key, Record { bytes, ttl_ms: 1 }, None, None).await.expect("set");
    until(store, key, None, "a record expires with its TTL", |r| r.found.is_none()).await;
    read(store, key, Some(LoadLockRequest { ttl_ms: 1, ..ask(1) })).await;
    until(store, key, None, "a load lock expires with its TTL", |r| r.load_lock == LoadLock::None)
        .await;
    assert_eq!(
        put(store, key, 1, value(2, "late")).await,
        Put::Refused,
        "an ended load lock is gone"
    );
}

async fn read<S: L2 + ?Sized>(store: &S, key: &str, ask: Option<LoadLockRequest>) -> Read {
    store.read(key, ask).await.expect("read")
}

async fn put<S: L2 + ?Sized>(store: &S, key: &str, expected: u64, record: Record) -> Put {
    store.put(key, Version(expected), record, None).await.expect("put")
}

async fn renew<S: L2 + ?Sized>(store: &S, key: &str, load_lock: u64, ttl_ms: u64) -> bool {
    store.renew(key, Version(load_lock), ttl_ms).await.expect("renew")
}

async fn found<S: L2 + ?Sized>(store: &S, key: &str) -> Found {
    read(store, key, None).await.found.expect("a stored record is found")
}

async fn version<S: L2 + ?Sized>(store: &S, key: &str) -> u64 {
    record::head(&found(store, key).await.bytes).expect("a record").version().0
}

fn payload(found: &Found) -> String {
    let envelope = Envelope::decode(&found.bytes).expect("an intact record");
    String::from_utf8_lossy(envelope.payload).into_owned()
}

/// Reads until `done` holds; panics if it never does.
async fn until<S: L2 + ?Sized>(
    store: &S,
    key: &str,
    ask: Option<LoadLockRequest>,
    what: &str,
    done: fn(&Read) -> bool,
) {
    let polling = async {
        while !done(&read(store, key, ask).await) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, polling).await.is_ok(), "{what}");
}
