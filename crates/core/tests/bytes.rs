//! The bytes of records and messages: their format is frozen, every input decodes or is refused,
//! and every flipped bit is noticed.

#[path = "../../protocol/tests/seed/mod.rs"]
mod seed;

use crinkle_core::backplane::message::{self, Body, KeyOp};
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::protocol::ledger::{Advanced, Item, Removal, Strength, Target};
use crinkle_core::protocol::record::Head;
use crinkle_core::protocol::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};
use proptest::prelude::*;

/// A record of version 1; nodes of later versions must read it.
const RECORD: &str = "43524b0156460000010203040506070800000000000000000000000000000000\
    000000000000000900066517289880000000000000007530000000000000ea600000004d0100000a0000001f00000005";

fn sample() -> Envelope<'static> {
    Envelope {
        version: Version(0x0102_0304_0506_0708),
        expired: false,
        epoch: Some(Epoch(9)),
        stamp: 1_800_000_000_000_000,
        logical_ms: 30_000,
        physical_ms: 60_000,
        schema: 77,
        codec: 1,
        compression: 0,
        key: "product:42",
        weight: 3,
        etag: None,
        last_modified: None,
        took_us: 0,
        displaced: false,
        tags: vec!["products", "a\0b\n"],
        payload: b"hello",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_record_round_trips_in_the_bytes_of_version_1() {
    let bytes = sample().encode();
    assert_eq!(Envelope::decode(&bytes), Some(sample()));
    assert_eq!(hex(&bytes[..80]), RECORD);
}

#[test]
fn the_compression_is_the_byte_after_the_codec() {
    let packed = Envelope { compression: 2, ..sample() };
    let bytes = packed.encode();
    assert_eq!(hex(&bytes[..80]), RECORD.replace("0000004d0100", "0000004d0102"));
    assert_eq!(Envelope::decode(&bytes), Some(packed));
}

#[test]
fn any_flipped_bit_of_the_writer_is_a_miss() {
    let bytes = sample().encode();
    // The store may change bits 40..256: the mark, the version and the refresh lock.
    for bit in (0..bytes.len() * 8).filter(|bit| !(40..256).contains(bit)) {
        let mut broken = bytes.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Envelope::decode(&broken), None, "bit {bit}");
    }
}

#[test]
fn any_truncation_of_a_record_is_a_miss() {
    let bytes = sample().encode();
    for len in 0..bytes.len() {
        assert_eq!(Envelope::decode(&bytes[..len]), None, "{len} bytes");
    }
}

#[test]
fn the_expired_mark_cannot_be_undone_by_one_bit() {
    let head = Head::Value { version: Version(5), expired: true, refresh: None };
    let bytes = record::with_head(&sample().encode(), head);
    for bit in 0..8 {
        let mut broken = bytes.to_vec();
        broken[5] ^= 1 << bit;
        assert_eq!(record::head(&broken), None);
    }
}

/// B5: a message carries at most 64 tags. A message with more is refused as a whole.
#[test]
fn a_message_of_more_than_64_tags_is_refused() {
    for (count, fits) in [(1, true), (64, true), (65, false), (256, false), (5000, false)] {
        let targets: Vec<_> = (1..=count).map(|tag| Target::Tag(TagHash(tag))).collect();
        let what = Removal { nonce: Nonce(1), strength: Strength::Hard, targets };
        let numbers = Advanced { epoch: Epoch(1), seq: 2, prev: None, announced: true };
        let open = message::removal(PublisherId(1), 1, "ch", &what);
        let decoded = message::decode(&message::numbered(&open, numbers));
        assert_eq!(decoded.is_some(), fits, "{count} tags");
    }
}

#[test]
fn every_message_round_trips_and_no_truncation_decodes() {
    let me = PublisherId(7);
    let targets = vec![Target::Tag(TagHash(5)), Target::Tag(TagHash(6))];
    let what = Removal { nonce: Nonce(3), strength: Strength::Soft, targets };
    let numbers = Advanced { epoch: Epoch(1), prev: None, seq: 9, announced: false };
    let removal = message::numbered(&message::removal(me, 2, "ch", &what), numbers);
    let item = Item { seq: 9, prev: None, removal: what };
    let targets = vec![Target::Register(0xFFFE)];
    let what = Removal { nonce: Nonce(3), strength: Strength::Hard, targets };
    let register = message::numbered(&message::removal(me, 2, "ch", &what), numbers);
    let of_register = Item { seq: 9, prev: None, removal: what };
    let (version, key) = (Version(8), KeyHash(4));
    let cases = [
        (removal, Body::Removal { epoch: Epoch(1), item }),
        (register, Body::Removal { epoch: Epoch(1), item: of_register }),
        (
            message::key(me, 1, KeyOp::Expired, version, key),
            Body::Key { op: KeyOp::Expired, version, key },
        ),
        (message::heartbeat(me, 0, 11, 12), Body::Heartbeat { beat: 11, next: 12 }),
    ];
    for (bytes, body) in cases {
        assert_eq!(message::decode(&bytes).map(|m| m.body), Some(body));
        for len in 0..bytes.len() {
            assert_eq!(message::decode(&bytes[..len]), None);
        }
    }
}

/// Writes the checksum that a writer would write, so that the decoder reads what follows it.
fn seal(bytes: &mut [u8]) {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[32..80]), &bytes[84..]);
    bytes[80..84].copy_from_slice(&sum.to_be_bytes());
}

/// Checks any bytes: the head must match the bytes, and the parts of a record must fill them.
fn judge(bytes: &[u8]) -> Result<(), TestCaseError> {
    let head = record::head(bytes);
    let magic = bytes.starts_with(b"CRK\x01");
    prop_assert!(head.is_none() || magic && bytes.len() >= 16);
    let Some(found) = Envelope::decode(bytes) else { return Ok(()) };
    let is_value = matches!(head, Some(Head::Value { version, .. }) if version == found.version);
    prop_assert!(is_value, "a record has the version of its head");
    let taken = found.key.len() + found.payload.len();
    let tags = found.tags.iter().map(|tag| tag.len() + 5).sum::<usize>();
    prop_assert!(record::HEADER_LEN + taken + tags <= bytes.len(), "nothing is made up");
    prop_assert_eq!(record::tags(bytes), Some(found.tags.clone()));
    let again = found.encode();
    prop_assert_eq!(Envelope::decode(&again), Some(found));
    Ok(())
}

#[test]
fn a_record_that_has_displaced_another_says_so_to_readers_that_know_it() {
    let displaced = Envelope { displaced: true, ..sample() };
    let (bytes, plain) = (displaced.encode(), sample().encode());
    assert_eq!(Envelope::decode(&bytes), Some(displaced));
    // One word of metadata that other versions skip: a type, and a length of zero.
    assert_eq!(bytes.len(), plain.len() + 5);
    assert!(hex(&bytes).contains("0600000000"));
}

proptest! {
    #![proptest_config(seed::config(256))]

    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(record::head(&bytes).is_none() || bytes.starts_with(b"CRK\x01"));
        judge(&bytes)?;
        let _ = message::decode(&bytes);
        // With the right magic number and checksum.
        let mut sealed = bytes;
        sealed.resize(sealed.len().max(record::HEADER_LEN), 0);
        sealed[..8].copy_from_slice(b"CRK\x01VF\0\0");
        seal(&mut sealed);
        let is_value = matches!(record::head(&sealed), Some(Head::Value { .. }));
        prop_assert!(is_value, "the head is reached");
        judge(&sealed)?;
    }

    /// As above, with correct lengths, so that the metadata is decoded.
    #[test]
    fn any_metadata_is_read_or_is_a_miss(meta in prop::collection::vec(any::<u8>(), 0..60)) {
        let plain = Envelope { tags: vec![], weight: 1, ..sample() }.encode();
        let at = record::HEADER_LEN + sample().key.len();
        let mut bytes = [&plain[..at], &meta[..], &plain[at..]].concat();
        bytes[72..76].copy_from_slice(&u32::try_from(meta.len()).unwrap().to_be_bytes());
        seal(&mut bytes);
        judge(&bytes)?;
        if let Some(found) = Envelope::decode(&bytes) {
            prop_assert_eq!((found.key, found.payload), (sample().key, sample().payload));
        }
    }

    /// A known word with any content is read, or is a miss.
    #[test]
    fn any_word_of_the_metadata_is_read_or_is_a_miss(
        kind in 0..9_u8,
        body in prop::collection::vec(prop_oneof![b'a'..=b'z', any::<u8>()], 0..20),
    ) {
        let plain = Envelope { tags: vec![], weight: 1, ..sample() }.encode();
        let at = record::HEADER_LEN + sample().key.len();
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut bytes = [&plain[..at], &[kind], &len, &body, &plain[at..]].concat();
        bytes[72..76].copy_from_slice(&u32::try_from(body.len() + 5).unwrap().to_be_bytes());
        seal(&mut bytes);
        let long = |most| body.len() >= most;
        let text = str::from_utf8(&body).is_ok();
        let readable = match kind { 1 | 3 | 4 => text, 2 => long(4), 5 => long(8), _ => true };
        prop_assert_eq!(Envelope::decode(&bytes).is_some(), readable);
        judge(&bytes)?;
    }

    /// As above, with the right magic numbers.
    #[test]
    fn any_broken_record_decodes_or_does_not(
        at in 0_usize..140,
        with in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = sample().encode().to_vec();
        let at = at.min(bytes.len());
        let end = (at + with.len()).min(bytes.len());
        bytes.splice(at..end, with);
        judge(&bytes)?;
        if bytes.len() >= record::HEADER_LEN {
            seal(&mut bytes);
            judge(&bytes)?;
        }
    }
}
