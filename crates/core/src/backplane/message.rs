//! The wire format of messages. A message holds no values, and no keys in clear text.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | `CB` |
//! | 2 | 1 | wire version, `1` |
//! | 3 | 1 | type: `R` removal, `K` key, `H` heartbeat |
//! | 4 | 16 | publisher |
//! | 20 | 8 | the publisher's sequence number, from 1; 0 on a heartbeat to itself |
//!
//! then, for a removal: epoch, previous id (0 for none), number, nonce (8 each), strength (`H`,
//! `S`), count (2), and that many tag hashes (16 each); no tag means everything. With strength `h`
//! or `s` the last 16 bits of each hash name a register instead, whatever the tag. For a key: op
//! (`B` before the write, `W` written, `R` removed, `E` expired), version (8), key hash (16). For a
//! heartbeat: a number (8), and the sequence number of the publisher's next message (8).
//!
//! A script can put the fields of a removal together in this order: what comes before the numbers,
//! the numbers, what comes after.

use bytes::{BufMut, Bytes, BytesMut};

use crate::announce::AnnounceRemoval;
use crate::events::Notice;
use crate::protocol::ledger::{Advanced, Item, MAX_TARGETS, Removal, Strength, Target};
use crate::protocol::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};

const MAGIC: &[u8; 3] = b"CB\x01";

/// An invalidation message of another node, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The node that published it.
    pub publisher: PublisherId,
    /// Its place in the publisher's sequence, from 1; 0 if it has none.
    pub seq: u64,
    /// The content.
    pub body: Body,
}

/// What a message announces: a numbered removal, a changed key, or a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// A removal was numbered.
    Removal {
        /// The epoch of the number.
        epoch: Epoch,
        /// The removal and its number.
        item: Item,
    },
    /// A key changed, or is about to.
    Key {
        /// What happened.
        op: KeyOp,
        /// The version it has now, or will have.
        version: Version,
        /// The key.
        key: KeyHash,
    },
    /// A publisher is alive.
    Heartbeat {
        /// Chosen by the publisher.
        beat: u64,
        /// The sequence number its next message will have.
        next: u64,
    },
}

impl Body {
    /// The kind of the message for events; `None` for a heartbeat.
    pub(crate) fn notice(&self) -> Option<Notice> {
        match self {
            Self::Removal { .. } => Some(Notice::Removal),
            Self::Key { op, .. } => Some((*op).into()),
            Self::Heartbeat { .. } => None,
        }
    }
}

impl From<KeyOp> for Notice {
    fn from(op: KeyOp) -> Self {
        match op {
            KeyOp::Before => Self::Before,
            KeyOp::Written => Self::Written,
            KeyOp::Removed => Self::Removed,
            KeyOp::Expired => Self::Expired,
        }
    }
}

/// The change of a key that a message announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyOp {
    /// A write begins that cannot be announced in one step: another message confirms it.
    Before,
    /// A value was stored.
    Written,
    /// The record was removed.
    Removed,
    /// The record was marked as expired.
    Expired,
}

/// Encodes the message that announces a change of a key.
#[must_use]
pub fn key(from: PublisherId, seq: u64, op: KeyOp, version: Version, key: KeyHash) -> Bytes {
    let mut out = header(b'K', from, seq, 25);
    out.put_u8(match op {
        KeyOp::Before => b'B',
        KeyOp::Written => b'W',
        KeyOp::Removed => b'R',
        KeyOp::Expired => b'E',
    });
    out.put_u64(version.0);
    out.put_u128(key.0);
    out.freeze()
}

/// Encodes a heartbeat.
#[must_use]
pub fn heartbeat(from: PublisherId, seq: u64, beat: u64, next: u64) -> Bytes {
    let mut out = header(b'H', from, seq, 16);
    out.put_u64(beat);
    out.put_u64(next);
    out.freeze()
}

/// Encodes the message about a removal, with a gap for its numbers.
#[must_use]
pub fn removal(from: PublisherId, seq: u64, channel: &str, what: &Removal) -> AnnounceRemoval {
    let mut tail = BytesMut::with_capacity(11 + 16 * what.targets.len());
    tail.put_u64(what.nonce.0);
    // A message is about tags or about registers. A register hides what each of its tags hides.
    let widened = what.targets.iter().any(|target| matches!(target, Target::Register(_)));
    tail.put_u8(match (what.strength, widened) {
        (Strength::Hard, false) => b'H',
        (Strength::Soft, false) => b'S',
        (Strength::Hard, true) => b'h',
        (Strength::Soft, true) => b's',
    });
    let hash = |target: &Target| match target {
        Target::Tag(tag) => Some(tag.0),
        Target::Register(register) => Some(u128::from(*register)),
        Target::Everything => None,
    };
    let hashes: Vec<_> = what.targets.iter().filter_map(hash).collect();
    tail.put_u16(u16::try_from(hashes.len()).unwrap_or(u16::MAX));
    for hash in hashes {
        tail.put_u128(hash);
    }
    let head = header(b'R', from, seq, 0).freeze();
    AnnounceRemoval { channel: channel.to_owned(), head, tail: tail.freeze() }
}

/// Encodes the whole message about a removal, as a store that announces does.
#[must_use]
pub fn numbered(announce: &AnnounceRemoval, numbers: Advanced) -> Bytes {
    let mut out = BytesMut::with_capacity(announce.head.len() + 24 + announce.tail.len());
    out.put_slice(&announce.head);
    out.put_u64(numbers.epoch.0);
    out.put_u64(numbers.prev.map_or(0, |id| id.0));
    out.put_u64(numbers.seq);
    out.put_slice(&announce.tail);
    out.freeze()
}

/// Decodes a message; `None` for anything that is not one. Allocates at most the list of targets.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Message> {
    let mut r = Reader(bytes);
    if r.take::<3>()? != *MAGIC {
        return None;
    }
    let [kind] = r.take()?;
    let publisher = PublisherId(u128::from_be_bytes(r.take()?));
    let seq = r.u64()?;
    let body = match kind {
        b'R' => removal_body(&mut r)?,
        b'K' => key_body(&mut r)?,
        b'H' => Body::Heartbeat { beat: r.u64()?, next: r.u64()? },
        _ => return None,
    };
    r.0.is_empty().then_some(Message { publisher, seq, body })
}

fn removal_body(r: &mut Reader<'_>) -> Option<Body> {
    let epoch = Epoch(r.u64()?);
    let prev = Some(r.u64()?).filter(|id| *id != 0).map(Nonce);
    let seq = r.u64()?;
    let nonce = Nonce(r.u64()?);
    let (strength, widened) = match r.take()? {
        [b'H'] => (Strength::Hard, false),
        [b'S'] => (Strength::Soft, false),
        [b'h'] => (Strength::Hard, true),
        [b's'] => (Strength::Soft, true),
        _ => return None,
    };
    let count = usize::from(u16::from_be_bytes(r.take()?));
    if count > MAX_TARGETS || r.0.len() != count * 16 {
        return None;
    }
    let mut targets = Vec::with_capacity(count.max(1));
    for _ in 0..count {
        let tag = TagHash(u128::from_be_bytes(r.take()?));
        targets.push(if widened { Target::Register(tag.register()) } else { Target::Tag(tag) });
    }
    if targets.is_empty() {
        targets.push(Target::Everything);
    }
    Some(Body::Removal {
        epoch,
        item: Item { seq, prev, removal: Removal { nonce, strength, targets } },
    })
}

fn key_body(r: &mut Reader<'_>) -> Option<Body> {
    let op = match r.take()? {
        [b'B'] => KeyOp::Before,
        [b'W'] => KeyOp::Written,
        [b'R'] => KeyOp::Removed,
        [b'E'] => KeyOp::Expired,
        _ => return None,
    };
    let version = Version(r.u64()?);
    let key = KeyHash(u128::from_be_bytes(r.take()?));
    Some(Body::Key { op, version, key })
}

fn header(kind: u8, from: PublisherId, seq: u64, body: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(28 + body);
    out.put_slice(MAGIC);
    out.put_u8(kind);
    out.put_u128(from.0);
    out.put_u64(seq);
    out
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take()?))
    }
}
