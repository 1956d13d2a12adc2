//! The bodies of the fuzz targets: Crinkle's decoders on arbitrary bytes. They cover records,
//! messages, the ledger's chunks and replies, and the command's arguments.
//!
//! Each takes any bytes and returns whether they were valid. It panics if a rule is broken. The
//! tests of this crate run the bodies on the corpus and on seeded mutations of it; `fuzz/` is the
//! package for `cargo fuzz` (see `docs/verification.md`).

mod args;
mod ledger;
mod reply;

use bytes::{BufMut, Bytes, BytesMut};
use crinkle_core::backplane::message;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::l2::{Record, Slot};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::LoadLockRequest;

pub use args::args;
pub use ledger::ledger;
pub use reply::reply;

/// A body and its name, which is also the name of its corpus.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("record", record),
    ("message", message),
    ("tags", tags),
    ("ledger", ledger),
    ("reply", reply),
    ("args", args),
];

/// Decodes a record as a node does, and runs the operations of a store on it.
///
/// # Panics
///
/// If a rule is broken.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    let head = record::head(bytes);
    let _ = record::is_stale(bytes, 7);
    let envelope = Envelope::decode(bytes);
    if let Some(envelope) = &envelope {
        assert!(head.is_some(), "a record has a head");
        let again = envelope.encode();
        assert_eq!(
            Envelope::decode(&again).as_ref(),
            Some(envelope),
            "encoding and decoding keep the record"
        );
    }
    store(&Bytes::copy_from_slice(bytes));
    envelope.is_some()
}

/// Runs every operation of a store on these bytes.
fn store(bytes: &Bytes) {
    let there = || Slot::new(bytes.clone(), 1000);
    let (id, other) = (Version(1), Version(2));
    let ask = LoadLockRequest { id, ttl_ms: 10, replace: None, hidden: None };
    let version = record::head(bytes).map(crinkle_core::protocol::record::Head::version);
    for ask in [None, Some(ask), Some(LoadLockRequest { hidden: version, replace: version, ..ask })]
    {
        let (mut slot, mut plain) = (there(), there());
        let read = slot.read(ask, 500);
        let found = read.found.map(|found| found.bytes.len());
        assert!(found.is_none_or(|len| len == bytes.len()), "a read keeps the length");
        plain.expire(other, 500);
        let _ = (plain.renew(id, 10, 500), plain.release(id, 500), slot.renew(id, 10, 500));
        let record = Record { bytes: bytes.clone(), ttl_ms: u64::MAX };
        let _ = (slot.put(version.unwrap_or(id), record, 500), slot.release(id, 500));
    }
}

/// Decodes a message of the backplane.
#[must_use]
pub fn message(bytes: &[u8]) -> bool {
    message::decode(bytes).is_some()
}

/// Decodes the metadata of a record (tags, etag, weight and so on), with a valid checksum.
///
/// # Panics
///
/// If a rule is broken.
#[must_use]
pub fn tags(bytes: &[u8]) -> bool {
    let record = with_metadata(bytes);
    let Some(envelope) = Envelope::decode(&record) else { return false };
    assert!(envelope.tags.len() <= 1024, "there is a limit");
    let texts = envelope.tags.iter().chain(&envelope.etag).chain(&envelope.last_modified);
    assert!(texts.map(|text| text.len()).sum::<usize>() <= bytes.len(), "no text is invented");
    let again = envelope.encode();
    // Texts that are too long are dropped, and not written again.
    assert_eq!(Envelope::decode(&again).map(|e| e.tags), Some(envelope.tags));
    true
}

fn with_metadata(meta: &[u8]) -> Bytes {
    let plain = Envelope {
        version: Version(1),
        expired: false,
        epoch: None,
        stamp: 0,
        logical_ms: 1,
        physical_ms: 1,
        schema: 0,
        codec: 0,
        compression: 0,
        key: "k",
        weight: 1,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: Vec::new(),
        payload: &[],
    };
    let mut record = BytesMut::from(&plain.encode()[..]);
    let len = u32::try_from(meta.len()).unwrap_or(u32::MAX);
    record[72..76].copy_from_slice(&len.to_be_bytes());
    record.put_slice(meta);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&record[32..80]), &record[84..]);
    record[80..84].copy_from_slice(&sum.to_be_bytes());
    record.freeze()
}
