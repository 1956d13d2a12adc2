//! The bytes of records and messages: frozen, total, and sensitive to every bit.

use crinkle_core::backplane::message::{self, Body, KeyOp};
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::protocol::ledger::{Advanced, Item, Removal, Strength, Target};
use crinkle_core::protocol::record::Head;
use crinkle_core::protocol::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};
use proptest::prelude::*;

/// What version 1 looks like; nodes of later versions must read it.
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
    // 40..256 is the store's: the mark, the version and the refresh lease.
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

proptest! {
    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (record::head(&bytes), record::is_stale(&bytes, 7), Envelope::decode(&bytes));
        let _ = message::decode(&bytes);
    }

    /// As above, past the magic numbers.
    #[test]
    fn any_broken_record_decodes_or_does_not(
        at in 0_usize..140,
        with in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = sample().encode().to_vec();
        let at = at.min(bytes.len());
        let end = (at + with.len()).min(bytes.len());
        bytes.splice(at..end, with);
        let _ = (record::head(&bytes), record::is_stale(&bytes, 7), Envelope::decode(&bytes));
    }
}
