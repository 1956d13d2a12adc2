//! The byte format of a ledger: a root, and older barriers in chunks that never change.
//!
//! | root: `CRR` 2, then | size |
//! |---|---|
//! | epoch, frontier, trim, folded, soft floor, hard floor, written at (us on the store's clock) | 8 each |
//! | ids: count, then number and id of each | 4, 16 each |
//! | barriers: count, then number, tag, strength (`S`, `H`; for a register `s`, `h`) of each | 4, 25 each |
//! | chunks: count, then name, soft end, hard end, barriers in it | 4, 28 each |
//! | crc32c of all before | 4 |
//!
//! A chunk is `CRC` 1, its barriers as above, and its crc32c. All numbers are big-endian. Chunks
//! and the barriers in the root are ascending; the ends are the newest number of each strength. A
//! register is written like a tag. An id with the number 0 is no id but the retention in
//! milliseconds, so that nodes of earlier versions can read the rest.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crinkle_core::protocol::ledger::{Levels, Snapshot, Strength, Target};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};

const ROOT: &[u8; 4] = b"CRR\x02";
const CHUNK: &[u8; 4] = b"CRC\x01";

/// One barrier: its number, its tag or register, its strength.
pub(crate) type Barrier = (u64, Target, Strength);

/// The value under the ledger's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Everything but the barriers in chunks.
    pub(crate) snapshot: Snapshot,
    pub(crate) chunks: Vec<ChunkRef>,
    /// When it was written, on the store's clock.
    pub(crate) written_us: u64,
}

/// A root's reference to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRef {
    /// The random part of its key.
    pub(crate) name: u64,
    /// The newest number of each strength in it.
    pub(crate) ends: Levels,
    /// How many barriers it holds.
    pub(crate) len: u32,
}

impl ChunkRef {
    pub(crate) fn of(name: u64, barriers: &[Barrier]) -> Self {
        let mut ends = Levels::default();
        for (seq, _, strength) in barriers {
            ends.raise(*strength, *seq);
        }
        Self { name, ends, len: u32::try_from(barriers.len()).unwrap_or(u32::MAX) }
    }

    /// The newest number in it.
    pub(crate) fn end(&self) -> u64 {
        self.ends.soft.max(self.ends.hard)
    }
}

impl Root {
    pub(crate) fn encode(&self) -> Bytes {
        let snapshot = &self.snapshot;
        let mut out = BytesMut::new();
        out.put_slice(ROOT);
        let Levels { soft, hard } = snapshot.floor;
        let marks = [snapshot.epoch.0, snapshot.frontier, snapshot.trim, snapshot.folded];
        for number in marks.into_iter().chain([soft, hard, self.written_us]) {
            out.put_u64(number);
        }
        let retention = (snapshot.retention_ms != 0).then_some((0, Nonce(snapshot.retention_ms)));
        put_count(&mut out, snapshot.ids.len() + retention.iter().len());
        for (seq, id) in retention.iter().chain(&snapshot.ids) {
            out.put_u64(*seq);
            out.put_u64(id.0);
        }
        put_barriers(&mut out, &snapshot.levels);
        put_count(&mut out, self.chunks.len());
        for chunk in &self.chunks {
            for number in [chunk.name, chunk.ends.soft, chunk.ends.hard] {
                out.put_u64(number);
            }
            out.put_u32(chunk.len);
        }
        summed(out)
    }

    /// `None` for anything that is not a complete root.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes, ROOT)?;
        let epoch = Epoch(r.u64()?);
        let (frontier, trim, folded) = (r.u64()?, r.u64()?, r.u64()?);
        let floor = Levels { soft: r.u64()?, hard: r.u64()? };
        let written_us = r.u64()?;
        let mut ids = r.list(16, |r| Some((r.u64()?, Nonce(r.u64()?))))?;
        let retention_ms = ids.iter().find(|(seq, _)| *seq == 0).map_or(0, |(_, ms)| ms.0);
        ids.retain(|(seq, _)| *seq != 0);
        let levels = r.list(25, Reader::barrier)?;
        let chunks = r.list(28, |r| {
            let name = r.u64()?;
            let ends = Levels { soft: r.u64()?, hard: r.u64()? };
            Some(ChunkRef { name, ends, len: u32::from_be_bytes(r.take()?) })
        })?;
        let snapshot = Snapshot { epoch, frontier, trim, folded, floor, retention_ms, ids, levels };
        // A root that names a chunk twice could make readers load far more than is stored.
        let names: BTreeSet<_> = chunks.iter().map(|chunk| chunk.name).collect();
        (r.0.is_empty() && names.len() == chunks.len()).then_some(Self {
            snapshot,
            chunks,
            written_us,
        })
    }
}

pub(crate) fn encode_chunk(barriers: &[Barrier]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(CHUNK);
    put_barriers(&mut out, barriers);
    summed(out)
}

/// `None` for anything that is not a complete chunk.
pub(crate) fn decode_chunk(bytes: &[u8]) -> Option<Vec<Barrier>> {
    let mut r = Reader::new(bytes, CHUNK)?;
    let barriers = r.list(25, Reader::barrier)?;
    r.0.is_empty().then_some(barriers)
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_barriers(out: &mut BytesMut, barriers: &[Barrier]) {
    put_count(out, barriers.len());
    for (seq, target, strength) in barriers {
        out.put_u64(*seq);
        let (hash, soft, hard) = match target {
            Target::Register(register) => (u128::from(*register), b's', b'h'),
            Target::Tag(tag) => (tag.0, b'S', b'H'),
            // A clear is in the floors.
            Target::Everything => (0, b'S', b'H'),
        };
        out.put_u128(hash);
        out.put_u8(if *strength == Strength::Hard { hard } else { soft });
    }
}

fn summed(mut out: BytesMut) -> Bytes {
    let sum = crc32c::crc32c(&out);
    out.put_u32(sum);
    out.freeze()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The bytes between the magic and a valid checksum.
    fn new(bytes: &'a [u8], magic: &[u8; 4]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let whole = crc32c::crc32c(body) == u32::from_be_bytes(*sum);
        body.strip_prefix(magic).filter(|_| whole).map(Self)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take()?))
    }

    /// A counted list of items with `size` bytes. Allocates no more than the bytes can hold.
    fn list<T>(
        &mut self,
        size: usize,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        if count > self.0.len() / size {
            return None;
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn barrier(&mut self) -> Option<Barrier> {
        let seq = self.u64()?;
        let tag = TagHash(u128::from_be_bytes(self.take()?));
        let (target, strength) = match self.take()? {
            [b'S'] => (Target::Tag(tag), Strength::Soft),
            [b'H'] => (Target::Tag(tag), Strength::Hard),
            [b's'] => (Target::Register(tag.register()), Strength::Soft),
            [b'h'] => (Target::Register(tag.register()), Strength::Hard),
            _ => return None,
        };
        Some((seq, target, strength))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        let barriers = vec![
            (3, Target::Register(9), Strength::Soft),
            (4, Target::Register(9), Strength::Hard),
            (5, Target::Tag(TagHash(7)), Strength::Soft),
            (6, Target::Tag(TagHash(8)), Strength::Hard),
        ];
        let floor = Levels { soft: 2, hard: 1 };
        let snapshot = Snapshot {
            epoch: Epoch(9),
            frontier: 6,
            trim: 1,
            folded: 4,
            floor,
            retention_ms: 7,
            ids: vec![(5, Nonce(50)), (6, Nonce(60))],
            levels: barriers.clone(),
        };
        Root { snapshot, chunks: vec![ChunkRef::of(77, &barriers)], written_us: 4 }
    }

    #[test]
    fn a_root_comes_back_as_it_went() {
        assert_eq!(Root::decode(&root().encode()), Some(root()));
    }

    #[test]
    fn a_chunk_comes_back_as_it_went() {
        let barriers = root().snapshot.levels;
        assert_eq!(decode_chunk(&encode_chunk(&barriers)), Some(barriers));
    }

    #[test]
    fn a_root_that_names_a_chunk_twice_is_no_root() {
        let mut root = root();
        root.chunks.push(root.chunks[0]);
        assert_eq!(Root::decode(&root.encode()), None);
        root.chunks[1].name += 1;
        assert_eq!(Root::decode(&root.encode()), Some(root));
    }

    #[test]
    fn a_piece_that_is_cut_or_changed_is_no_piece() {
        let whole = root().encode();
        for at in 0..whole.len() {
            assert_eq!(Root::decode(&whole[..at]), None);
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1;
            assert_eq!(Root::decode(&flipped), None);
        }
        assert_eq!(decode_chunk(&whole), None);
    }
}
