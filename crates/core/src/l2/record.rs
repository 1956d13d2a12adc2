//! The byte format of a record.
//!
//! | offset | size | field | written by |
//! |---|---|---|---|
//! | 0 | 3 | `CRK` | writer |
//! | 3 | 1 | wire version, `1` | writer |
//! | 4 | 1 | kind: `V` value, `L` load lock | writer |
//! | 5 | 1 | state: `F` as written, `E` expired | store |
//! | 6 | 2 | zero | writer |
//! | 8 | 8 | version | store |
//! | 16 | 8 | id of the refresh lock, 0 for none | store |
//! | 24 | 8 | its expiry, ms on the store's clock | store |
//! | 32 | 8 | epoch of the stamp, 0 for none | writer |
//! | 40 | 8 | stamp | writer |
//! | 48 | 8 | logical TTL, ms | writer |
//! | 56 | 8 | physical TTL, ms | writer |
//! | 64 | 4 | schema of the value | writer |
//! | 68 | 1 | codec | writer |
//! | 69 | 1 | compression: 0 none, 1 LZ4, 2 Zstandard | writer |
//! | 70 | 2 | key length | writer |
//! | 72 | 4 | metadata length | writer |
//! | 76 | 4 | payload length | writer |
//! | 80 | 4 | crc32c of 32..80 and of 84.. | writer |
//! | 84 | | key, metadata, payload | writer |
//!
//! All numbers are big-endian. A load lock is the first 16 bytes. The fields that the store writes
//! are outside the checksum. A flipped bit there makes another version (a miss), an unknown state
//! (a miss) or a load lock without a holder.
//!
//! Age is the physical TTL minus the remaining TTL that the store reports, never a writer's clock.
//! A record with more remaining TTL than it was stored with was changed by another client, and
//! counts as expired.
//!
//! Metadata is a list of `type u8, length u32, bytes`. Unknown types are skipped, so that a newer
//! writer can add some: 1 tag, 2 weight, 3 etag, 4 last-modified, 5 time of the factory. 6, empty,
//! marks a fill that has replaced a record which its node could not use. A compressed payload
//! begins with its uncompressed length, a `u32`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::record::Head;
use crate::protocol::{Epoch, Version};

const MAGIC: &[u8; 4] = b"CRK\x01";
const LOAD_LOCK_LEN: usize = 16;
/// The length of the header of a value, in bytes: all that [`head`] reads.
pub const HEADER_LEN: usize = 84;
const SUMMED_FROM: usize = 32;
const SUM_AT: usize = 80;
const META_TAG: u8 = 1;
const META_WEIGHT: u8 = 2;
const META_ETAG: u8 = 3;
const META_LAST_MODIFIED: u8 = 4;
const META_TOOK: u8 = 5;
const META_DISPLACED: u8 = 6;

/// By how much the remaining TTL of a record may exceed the original. Some stores count
/// in whole seconds, and the clocks of replicas may be behind.
const SLACK_MS: u64 = 5000;

/// The longest etag or time of last modification that is stored.
const MAX_VALIDATOR: usize = 8 * 1024;

/// How many tags a decoder accepts, whatever the settings of this cache.
const MAX_TAGS: usize = 1024;

/// Reads the head of a record; `None` if these bytes are not one.
#[must_use]
pub fn head(bytes: &[u8]) -> Option<Head> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let version = Version(u64_at(bytes, 8)?);
    let expired = match bytes.get(5)? {
        b'F' => false,
        b'E' => true,
        _ => return None,
    };
    match bytes.get(4)? {
        b'L' => Some(Head::LoadLock(version)),
        b'V' if bytes.len() >= HEADER_LEN => {
            let refresh = match u64_at(bytes, 16)? {
                0 => None,
                id => Some((Version(id), u64_at(bytes, 24)?)),
            };
            Some(Head::Value { version, expired, refresh })
        }
        _ => None,
    }
}

/// The tags of a value record; the bytes may be cut off after the metadata. `None` for anything
/// else. Checks only lengths: use it to decide what to forget, not what to answer.
#[must_use]
pub fn tags(bytes: &[u8]) -> Option<Vec<&str>> {
    let Head::Value { .. } = head(bytes)? else { return None };
    let (_, mut meta, _) = split(bytes)?;
    let mut tags = Vec::new();
    while !meta.is_empty() {
        let (kind, body, after) = item(meta)?;
        if kind == META_TAG {
            tags.push(str::from_utf8(body).ok()?);
        }
        meta = after;
    }
    Some(tags)
}

/// Whether a value record has logically expired, given its remaining physical TTL.
#[must_use]
pub fn is_stale(bytes: &[u8], ttl_ms: u64) -> bool {
    let ttls = u64_at(bytes, 48).zip(u64_at(bytes, 56));
    ttls.is_none_or(|(logical, physical)| age_ms(physical, ttl_ms).is_none_or(|age| age >= logical))
}

/// Whether a value record has more remaining TTL than it was stored with, so that its age is
/// unknown. Another client changed its expiry, or it was replaced between two commands.
#[must_use]
pub fn is_ageless(bytes: &[u8], ttl_ms: u64) -> bool {
    u64_at(bytes, 56).is_some_and(|physical| age_ms(physical, ttl_ms).is_none())
}

/// The age of a record with this remaining physical TTL; `None` if it is unknown.
pub(crate) fn age_ms(physical_ms: u64, ttl_ms: u64) -> Option<u64> {
    (ttl_ms <= physical_ms.saturating_add(SLACK_MS)).then(|| physical_ms.saturating_sub(ttl_ms))
}

/// Encodes the load lock that a key holds while one node loads its value.
#[must_use]
pub fn load_lock(id: Version) -> Bytes {
    let mut out = BytesMut::with_capacity(LOAD_LOCK_LEN);
    out.put_slice(MAGIC);
    out.put_slice(b"LF\0\0");
    out.put_u64(id.0);
    out.freeze()
}

/// Replaces the version, expiry mark and refresh lock in the bytes of a record.
#[must_use]
pub fn with_head(bytes: &Bytes, head: Head) -> Bytes {
    let Head::Value { version, expired, refresh } = head else { return load_lock(head.version()) };
    let mut out = BytesMut::from(&bytes[..]);
    if out.len() < HEADER_LEN {
        return bytes.clone();
    }
    let (id, until) = refresh.map_or((0, 0), |(id, until)| (id.0, until));
    out[5] = if expired { b'E' } else { b'F' };
    out[8..16].copy_from_slice(&version.0.to_be_bytes());
    out[16..24].copy_from_slice(&id.to_be_bytes());
    out[24..32].copy_from_slice(&until.to_be_bytes());
    out.freeze()
}

/// An entry in its L2 wire format: value, TTLs, tags, stamp and codec. Decoded without copying.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a record is exactly this")]
pub struct Envelope<'a> {
    /// Its version.
    pub version: Version,
    /// Whether `expire` has marked it.
    pub expired: bool,
    /// The epoch of its stamp; `None` if the writer had not met a ledger.
    pub epoch: Option<Epoch>,
    /// The writer's frontier before the factory started.
    pub stamp: u64,
    /// Logical TTL in milliseconds, from creation.
    pub logical_ms: u64,
    /// Physical TTL in milliseconds, from creation.
    pub physical_ms: u64,
    /// Identifies the type of the value.
    pub schema: u32,
    /// Identifies the codec.
    pub codec: u8,
    /// Identifies the compression of the payload, 0 for none.
    pub compression: u8,
    /// The full key.
    pub key: &'a str,
    /// The entry's weight in L1's capacity.
    pub weight: u32,
    /// The entity tag that came with the value.
    pub etag: Option<&'a str>,
    /// The time of last modification that came with it.
    pub last_modified: Option<&'a str>,
    /// How long its factory took, in microseconds; 0 for unknown.
    pub took_us: u64,
    /// The tags.
    pub tags: Vec<&'a str>,
    /// It has replaced a record that its writer could not use. A reader that cannot use this one
    /// does not replace it.
    pub displaced: bool,
    /// The encoded value, compressed if `compression` says so.
    pub payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Encodes the record. Keys are at most 65,535 bytes, payloads at most 4 GiB; the cache checks
    /// its own, lower limits before.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut meta = BytesMut::new();
        for tag in &self.tags {
            put_meta(&mut meta, META_TAG, tag.as_bytes());
        }
        if self.weight != 1 {
            put_meta(&mut meta, META_WEIGHT, &self.weight.to_be_bytes());
        }
        for (kind, text) in [(META_ETAG, self.etag), (META_LAST_MODIFIED, self.last_modified)] {
            if let Some(text) = text.filter(|text| text.len() <= MAX_VALIDATOR) {
                put_meta(&mut meta, kind, text.as_bytes());
            }
        }
        if self.took_us != 0 {
            put_meta(&mut meta, META_TOOK, &self.took_us.to_be_bytes());
        }
        if self.displaced {
            put_meta(&mut meta, META_DISPLACED, &[]);
        }
        let meta_len = meta.len();
        let len = HEADER_LEN + self.key.len() + meta_len + self.payload.len();
        let mut out = BytesMut::with_capacity(len);
        out.put_slice(MAGIC);
        out.put_slice(if self.expired { b"VE\0\0" } else { b"VF\0\0" });
        out.put_u64(self.version.0);
        out.put_bytes(0, 16);
        out.put_u64(self.epoch.map_or(0, |epoch| epoch.0));
        out.put_u64(self.stamp);
        out.put_u64(self.logical_ms);
        out.put_u64(self.physical_ms);
        out.put_u32(self.schema);
        out.put_u8(self.codec);
        out.put_u8(self.compression);
        out.put_u16(u16::try_from(self.key.len()).unwrap_or(u16::MAX));
        out.put_u32(u32::try_from(meta_len).unwrap_or(u32::MAX));
        out.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_u32(0);
        out.put_slice(self.key.as_bytes());
        out.put_slice(&meta);
        out.put_slice(self.payload);
        let sum = checksum(&out);
        out[SUM_AT..HEADER_LEN].copy_from_slice(&sum.to_be_bytes());
        out.freeze()
    }

    /// Decodes a value record; `None` for anything else. Allocates only the list of tags.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let Head::Value { version, expired, .. } = head(bytes)? else { return None };
        if u32_at(bytes, SUM_AT)? != checksum(bytes) {
            return None;
        }
        let payload_len = usize::try_from(u32_at(bytes, 76)?).ok()?;
        let (key, meta, payload) = split(bytes)?;
        if payload.len() != payload_len {
            return None;
        }
        let epoch = u64_at(bytes, 32)?;
        let mut envelope = Self {
            version,
            expired,
            epoch: (epoch != 0).then_some(Epoch(epoch)),
            stamp: u64_at(bytes, 40)?,
            logical_ms: u64_at(bytes, 48)?,
            physical_ms: u64_at(bytes, 56)?,
            schema: u32_at(bytes, 64)?,
            codec: *bytes.get(68)?,
            compression: *bytes.get(69)?,
            key: str::from_utf8(key).ok()?,
            weight: 1,
            etag: None,
            last_modified: None,
            took_us: 0,
            tags: Vec::new(),
            displaced: false,
            payload,
        };
        envelope.read_meta(meta)?;
        Some(envelope)
    }

    fn read_meta(&mut self, mut meta: &'a [u8]) -> Option<()> {
        while !meta.is_empty() {
            let (kind, body, after) = item(meta)?;
            match kind {
                META_TAG if self.tags.len() == MAX_TAGS => return None,
                META_TAG => self.tags.push(str::from_utf8(body).ok()?),
                META_WEIGHT => self.weight = u32_at(body, 0)?.max(1),
                META_ETAG => self.etag = Some(str::from_utf8(body).ok()?),
                META_LAST_MODIFIED => self.last_modified = Some(str::from_utf8(body).ok()?),
                META_TOOK => self.took_us = u64_at(body, 0)?,
                META_DISPLACED => self.displaced = true,
                _ => {}
            }
            meta = after;
        }
        Some(())
    }
}

/// Key, metadata, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let key_len = usize::from(u16::from_be_bytes(bytes.get(70..72)?.try_into().ok()?));
    let meta_len = usize::try_from(u32_at(bytes, 72)?).ok()?;
    let (key, rest) = bytes.get(HEADER_LEN..)?.split_at_checked(key_len)?;
    let (meta, payload) = rest.split_at_checked(meta_len)?;
    Some((key, meta, payload))
}

/// The first piece of metadata: its type, its bytes, and the rest.
fn item(meta: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = meta.split_first()?;
    let len = usize::try_from(u32_at(rest, 0)?).ok()?;
    let (body, after) = rest.get(4..)?.split_at_checked(len)?;
    Some((*kind, body, after))
}

fn put_meta(out: &mut BytesMut, kind: u8, body: &[u8]) {
    out.put_u8(kind);
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_slice(body);
}

fn checksum(bytes: &[u8]) -> u32 {
    let header = crc32c::crc32c(bytes.get(SUMMED_FROM..SUM_AT).unwrap_or_default());
    crc32c::crc32c_append(header, bytes.get(HEADER_LEN..).unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
