//! Random operations on a record, in Redis and on a `Slot`: the same answers, the same bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::SystemClock;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::l2::{Deadline, L2, L2ErrorKind, Read, Record, Slot};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{Head, LoadLockRequest};
use crinkle_l2_redis::RedisL2;
use crinkle_testkit::redis::RedisServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longer than the test runs, so that no answer depends on how fast it does.
const LONG_MS: u64 = 3_600_000;

#[derive(Debug)]
enum Op {
    Read(Option<LoadLockRequest>),
    Put(Version, Record),
    Set(Record, Option<Duration>),
    Remove,
    Expire(Version),
    Release(Version),
    Renew(Version, u64),
}

#[tokio::test]
async fn every_record_script_does_what_slot_does() {
    let server = RedisServer::start();
    let store = RedisL2::connect(&server.url()).await.unwrap();
    let older = RedisL2::connect(&server.url()).await.unwrap().locking_by_script();
    for seed in 0..40 {
        let store = if seed % 2 == 0 { &store } else { &older };
        let mut rng = StdRng::seed_from_u64(seed);
        let (key, mut slot) = (format!("key:{seed}"), Slot::default());
        for step in 0..150 {
            let op = any_op(&mut rng, &slot);
            let at = format!("seed {seed}, step {step}, {op:?}");
            let (theirs, ours) = (real(store, &key, &op).await, mirror(&mut slot, step, &op));
            assert_eq!(theirs, ours, "{at}");
            let (theirs, ours) = (real(store, &key, &Op::Read(None)).await, slot.read(None, step));
            assert_eq!(theirs, format!("{:?}", visible(ours)), "what is left after {at}");
        }
    }
}

async fn real(store: &RedisL2, key: &str, op: &Op) -> String {
    match op {
        Op::Read(ask) => format!("{:?}", visible(store.read(key, *ask).await.unwrap())),
        Op::Put(expected, record) => {
            format!("{:?}", store.put(key, *expected, record.clone(), None).await.unwrap())
        }
        Op::Set(record, limit) => {
            let deadline = limit.map(|limit| Deadline::after(Arc::new(SystemClock), limit));
            let set = store.set(key, record.clone(), deadline, None).await;
            let late = set.err().map(|error| error.kind());
            let expected = limit.filter(Duration::is_zero).map(|_| L2ErrorKind::Late);
            assert_eq!(late, expected, "only a late set fails");
            "()".to_owned()
        }
        Op::Remove => format!("{:?}", store.remove(key, None).await.unwrap()),
        Op::Expire(version) => format!("{:?}", store.expire(key, *version, None).await.unwrap()),
        Op::Release(id) => format!("{:?}", store.release(key, *id).await.unwrap()),
        Op::Renew(id, ttl) => format!("{:?}", store.renew(key, *id, *ttl).await.unwrap()),
    }
}

fn mirror(slot: &mut Slot, now: u64, op: &Op) -> String {
    match op {
        Op::Read(ask) => format!("{:?}", visible(slot.read(*ask, now))),
        Op::Put(expected, record) => format!("{:?}", slot.put(*expected, record.clone(), now)),
        Op::Set(_, Some(Duration::ZERO)) | Op::Remove => format!("{:?}", slot.remove()),
        Op::Set(record, _) => format!("{:?}", slot.set(record.clone(), now)),
        Op::Expire(version) => format!("{:?}", slot.expire(*version, now)),
        Op::Release(id) => format!("{:?}", slot.release(*id, now)),
        Op::Renew(id, ttl) => format!("{:?}", slot.renew(*id, *ttl, now)),
    }
}

/// An answer without what is the clock's: the life that is left, and when a refresh lock ends.
fn visible(read: Read) -> (Option<Bytes>, String) {
    let bytes = read.found.map(|found| {
        let mut bytes = found.bytes.to_vec();
        if let Some(Head::Value { refresh: Some(_), .. }) = record::head(&bytes) {
            bytes[24..32].fill(0);
        }
        Bytes::from(bytes)
    });
    (bytes, format!("{:?}", read.load_lock))
}

fn any_op(rng: &mut StdRng, slot: &Slot) -> Op {
    match rng.random_range(0..20) {
        0..6 => Op::Read(Some(any_ask(rng, slot))),
        6..10 => Op::Put(any_version(rng), any_record(rng)),
        10..12 => {
            let minute = Duration::from_secs(60);
            Op::Set(any_record(rng), [None, Some(minute)][rng.random_range(0..2)])
        }
        12 => Op::Set(any_record(rng), Some(Duration::ZERO)),
        13 => Op::Remove,
        14..16 => Op::Expire(any_version(rng)),
        16..18 => Op::Release(any_version(rng)),
        _ => Op::Renew(any_version(rng), LONG_MS),
    }
}

fn any_ask(rng: &mut StdRng, slot: &Slot) -> LoadLockRequest {
    let stored = slot.clone().into_stored();
    let refreshing =
        matches!(stored.and_then(|(bytes, _)| record::head(&bytes)), Some(Head::Value { .. }));
    let maybe = |rng: &mut StdRng| rng.random_bool(0.4).then(|| any_version(rng));
    // A refresh lock that has ended when it begins; a load lock without a value cannot have no life.
    let ttl_ms = if refreshing && rng.random_bool(0.3) { 0 } else { LONG_MS };
    LoadLockRequest { id: any_version(rng), ttl_ms, replace: maybe(rng), hidden: maybe(rng) }
}

/// Few, so that they meet; the last ones have bytes that collation or signs would get wrong.
fn any_version(rng: &mut StdRng) -> Version {
    Version([1, 2, 3, u64::MAX, 0x8000_0000_0000_0000, 0x0100][rng.random_range(0..6)])
}

fn any_record(rng: &mut StdRng) -> Record {
    let envelope = Envelope {
        version: any_version(rng),
        expired: rng.random_bool(0.2),
        epoch: None,
        stamp: rng.random(),
        logical_ms: if rng.random_bool(0.5) { 0 } else { LONG_MS },
        physical_ms: [LONG_MS, 2 * LONG_MS, u64::MAX][rng.random_range(0..3)],
        schema: rng.random(),
        codec: 1,
        compression: 0,
        key: "key",
        weight: 1,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: vec!["tag"],
        payload: b"payload",
    };
    let mut bytes = envelope.encode().to_vec();
    match rng.random_range(0..12) {
        0 => bytes.truncate(rng.random_range(0..90)),
        1 => bytes = record::load_lock(any_version(rng)).to_vec(),
        2 => bytes[rng.random_range(0..8)] ^= 1 << rng.random_range(0..8),
        3 => bytes = b"foreign\r\n\0".to_vec(),
        4 => bytes[6..8].fill(0xFF),
        _ => {}
    }
    Record { bytes: bytes.into(), ttl_ms: 2 * LONG_MS }
}
