//! The root and the chunks of a ledger over compare-and-swap.

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use crinkle_core::l2::{L2, L2Error};
use crinkle_core::protocol::ledger::{Advance, Removal, Replica, Strength, Target};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use crinkle_l2_cas::{CasEntry, CasL2, CasStore, Stored};
use futures_util::FutureExt;

const LEDGER: &str = "v1:L";
const RETENTION_MS: u64 = 1_000_000;

/// A store that returns arbitrary bytes and accepts every write.
#[derive(Debug)]
struct Shelf {
    root: Bytes,
    chunk: Bytes,
}

#[async_trait]
impl CasStore for Shelf {
    type Token = ();

    fn now_us(&self) -> u64 {
        1_800_000_000_000_000
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<()>>, L2Error> {
        let bytes = if key == LEDGER { &self.root } else { &self.chunk };
        Ok(Some(CasEntry { bytes: bytes.clone(), token: () }))
    }

    async fn swap(&self, _: &str, _: Option<()>, _: Stored) -> Result<bool, L2Error> {
        Ok(true)
    }

    async fn delete(&self, _: &str) -> Result<(), L2Error> {
        Ok(())
    }
}

/// Reads a root and a chunk of a ledger, with valid magic numbers and checksums, and lets a node
/// apply the answers. The first two bytes are the length of the root.
///
/// # Panics
///
/// If a rule is broken.
#[must_use]
pub fn ledger(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let (root, chunk) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
    let shelf = Shelf { root: piece(b"CRR\x02", root), chunk: piece(b"CRC\x01", chunk) };
    let l2 = CasL2::new(shelf);
    let mut replica = Replica::default();
    let mut known = false;
    for _ in 0..3 {
        let ask = replica.ask(Epoch(1), 2, RETENTION_MS);
        let Some(Ok(reply)) = l2.sync(LEDGER, &ask).now_or_never() else { break };
        assert!(reply.levels.len() <= bytes.len(), "no barrier is invented");
        known |= reply.epoch != Epoch(1);
        if !replica.synced(&reply).again {
            break;
        }
    }
    let targets = vec![Target::Tag(TagHash(5)), Target::Everything];
    let removal = Removal { nonce: Nonce(3), strength: Strength::Hard, targets };
    let (epoch, frontier) = (replica.epoch(), replica.frontier());
    let ask = Advance { removal, new_epoch: Epoch(1), epoch, frontier, retention_ms: RETENTION_MS };
    let _ = l2.advance(LEDGER, &ask, None).now_or_never();
    known
}

fn piece(magic: &[u8; 4], body: &[u8]) -> Bytes {
    let mut piece = BytesMut::from(&magic[..]);
    piece.put_slice(body);
    let sum = crc32c::crc32c(&piece);
    piece.put_u32(sum);
    piece.freeze()
}
