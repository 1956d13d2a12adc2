//! The ledger: an [`Authority`] whose root changes by compare-and-swap.
//!
//! ```text
//!  root ── epoch, frontier, floors, newest ids, newest barriers, names of the chunks
//!            ├── chunk ── older barriers     written once, under a random name,
//!            └── chunk ── older still        before the root that names it
//! ```
//!
//! - **C1** The root alone decides: numbers rise and ids are found whatever the chunks contain.
//! - **C2** A stored root names only chunks that were written before it.
//! - **C3** A chunk that is lost or old folds into the floor of its kind. All entries stamped
//!   before its end are hidden, whatever their tags. This can hide more, never less.
//! - **C4** Barriers beyond the cap fold into registers. These are stored like other barriers, and
//!   are the oldest.
//! - **C5** The TTL of a chunk is twice the ledger's retention. Before a root with a longer
//!   retention is written, its chunks are written again, under new names.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::pieces::{Barrier, ChunkRef, Root, decode_chunk, encode_chunk};
use super::{CasL2, CasStore, Stored};
use crinkle_core::l2::L2Error;
use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::ledger::{
    Advance, Advanced, Authority, Levels, Snapshot, Standing, Strength, SyncAsk, SyncReply, Target,
};

/// How many barriers a root holds before they move into a chunk.
const IN_ROOT: usize = 1024;

/// How many barriers a chunk holds at most (50 KiB).
const IN_CHUNK: usize = 2048;

/// A root is written again after this fraction of its TTL, or after a day.
const RENEWALS: u64 = 4;
const DAY_MS: u64 = 86_400_000;

/// A ledger must not expire between two polls, however short the retention is.
const MIN_TTL_MS: u64 = 60_000;

/// For each chunk name, its copy with a longer TTL. A retry of the root reuses the copies.
type Copies = BTreeMap<u64, ChunkRef>;

/// A root and its token; no root if there is none or it cannot be decoded.
struct Seen<T> {
    root: Option<Root>,
    token: Option<T>,
}

impl<S: CasStore> CasL2<S> {
    pub(crate) async fn number(&self, ledger: &str, ask: &Advance) -> Result<Advanced, L2Error> {
        let _guard = self.changing.lock().await;
        let (mut tries, mut copies) = (0, Copies::new());
        loop {
            let Seen { root, token } = self.root(ledger).await?;
            let now = self.store.now_us();
            let mut chunks = root.as_ref().map_or_else(Vec::new, |root| root.chunks.clone());
            let mut snapshot = root.map(|root| root.snapshot);
            let old_ttl_ms = snapshot.as_ref().map(|snapshot| ledger_ttl_ms(snapshot.retention_ms));
            if let Some(snapshot) = &mut snapshot {
                snapshot.retention_ms = snapshot.retention_ms.max(ask.retention_ms);
                drop_old(snapshot, &mut chunks, now);
            }
            let epoch = snapshot.as_ref().map(|snapshot| snapshot.epoch);
            let mut authority = authority(snapshot);
            let advanced = authority.advance(now, ask);
            if epoch != Some(advanced.epoch) {
                chunks.clear();
            }
            let Some(snapshot) = authority.snapshot() else { return Ok(advanced) };
            let mut root = Root { snapshot, chunks, written_us: now };
            let ttl_ms = ledger_ttl_ms(root.snapshot.retention_ms);
            if old_ttl_ms.is_some_and(|old| ttl_ms > old) {
                self.extend_ttl(ledger, &mut root.chunks, ttl_ms, &mut copies).await?;
            }
            if root.snapshot.levels.len() > IN_ROOT {
                self.move_out(ledger, &mut root, ttl_ms).await?;
            }
            if self.write_root(ledger, token, &root, ttl_ms).await? {
                return Ok(advanced);
            }
            self.again(&mut tries).await?;
        }
    }

    pub(crate) async fn compare(&self, ledger: &str, ask: &SyncAsk) -> Result<SyncReply, L2Error> {
        let (mut tries, mut copies) = (0, Copies::new());
        loop {
            let Seen { root, token } = self.root(ledger).await?;
            let now = self.store.now_us();
            let part = match &root {
                Some(root) => Some(self.part(ledger, root, ask, now).await?),
                None => None,
            };
            let mut authority = authority(part);
            let reply = authority.sync(now, ask);
            let snapshot = authority.snapshot();
            let retention_ms =
                snapshot.as_ref().map_or(ask.retention_ms, |snapshot| snapshot.retention_ms);
            let ttl_ms = ledger_ttl_ms(retention_ms);
            let snapshot = match (&root, snapshot) {
                (Some(root), Some(snapshot))
                    if root.snapshot.epoch == snapshot.epoch
                        && root.snapshot.frontier == snapshot.frontier
                        && root.snapshot.retention_ms == retention_ms
                        && !is_due(root, now, ttl_ms) =>
                {
                    return Ok(reply);
                }
                (_, Some(snapshot)) => snapshot,
                (_, None) => return Ok(reply),
            };
            let root = match root {
                // The authority has a part of the barriers; the root names all.
                Some(mut root) if root.snapshot.epoch == snapshot.epoch => {
                    if ttl_ms > ledger_ttl_ms(root.snapshot.retention_ms) {
                        self.extend_ttl(ledger, &mut root.chunks, ttl_ms, &mut copies).await?;
                    }
                    root.snapshot.frontier = snapshot.frontier;
                    root.snapshot.retention_ms = retention_ms;
                    Root { written_us: now, ..root }
                }
                _ => Root { snapshot, chunks: Vec::new(), written_us: now },
            };
            if self.write_root(ledger, token, &root, ttl_ms).await? {
                return Ok(reply);
            }
            self.again(&mut tries).await?;
        }
    }

    /// The last number issued in this epoch.
    pub(crate) async fn issued(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        let snapshot = self.root(ledger).await?.root.map(|root| root.snapshot);
        Ok(snapshot.filter(|snapshot| snapshot.epoch == epoch).map(|snapshot| snapshot.frontier))
    }

    async fn root(&self, ledger: &str) -> Result<Seen<S::Token>, L2Error> {
        let held = self.store.get(ledger).await?;
        Ok(held.map_or(Seen { root: None, token: None }, |held| Seen {
            root: Root::decode(&held.bytes),
            token: Some(held.token),
        }))
    }

    async fn write_root(
        &self,
        ledger: &str,
        token: Option<S::Token>,
        root: &Root,
        ttl_ms: u64,
    ) -> Result<bool, L2Error> {
        let stored = Stored { bytes: root.encode(), ttl_ms, lasting: true };
        self.store.swap(ledger, token, stored).await
    }

    /// Moves the barriers of a root into chunks. If there are then too many, it first drops
    /// barriers that a newer removal of their tag has replaced; then the oldest fold (C4).
    async fn move_out(&self, ledger: &str, root: &mut Root, ttl_ms: u64) -> Result<(), L2Error> {
        let exact = root.chunks.iter().filter(|chunk| chunk.end() > root.snapshot.folded);
        let exact =
            exact.map(|chunk| chunk.len as usize).sum::<usize>() + root.snapshot.levels.len();
        if exact > self.barriers {
            let mut newest = BTreeMap::new();
            let chunks = std::mem::take(&mut root.chunks);
            for barriers in self.load(ledger, &chunks, &mut root.snapshot).await? {
                add(&mut newest, barriers, 0);
            }
            add(&mut newest, std::mem::take(&mut root.snapshot.levels), 0);
            root.snapshot.levels = ascending(newest);
            root.snapshot = root.snapshot.clone().folded_to(self.barriers / 4 * 3);
        }
        let moving = std::mem::take(&mut root.snapshot.levels);
        let registers = moving.partition_point(|(seq, _, _)| *seq <= root.snapshot.folded);
        let (registers, tags) = moving.split_at(registers);
        let mut writes = Vec::new();
        for mut rest in [registers, tags] {
            while !rest.is_empty() {
                let part;
                (part, rest) = rest.split_at(whole_numbers(rest, IN_CHUNK));
                let chunk = ChunkRef::of(self.entropy.version().0, part);
                // The root is durable, and a store that keeps the order of writes makes the chunk
                // durable with it. A chunk expires once its barriers hide nothing, whether a root
                // names it or not.
                let stored = Stored { bytes: encode_chunk(part), ttl_ms, lasting: false };
                writes.push((chunk_key(ledger, chunk), stored));
                root.chunks.push(chunk);
            }
        }
        let writes = writes
            .into_iter()
            .map(|(key, stored)| async move { self.store.swap(&key, None, stored).await });
        try_join_all(writes).await?;
        Ok(())
    }

    /// Copies chunks with this TTL (C5). If another node copies them at the same time with a
    /// shorter TTL, the root will not name those copies. A lost chunk stays lost (C3).
    async fn extend_ttl(
        &self,
        ledger: &str,
        chunks: &mut [ChunkRef],
        ttl_ms: u64,
        copies: &mut Copies,
    ) -> Result<(), L2Error> {
        let missing = chunks.iter().filter(|chunk| !copies.contains_key(&chunk.name)).copied();
        let missing: Vec<_> = missing.collect();
        let keys: Vec<_> = missing.iter().map(|chunk| chunk_key(ledger, *chunk)).collect();
        let held = if keys.is_empty() { Vec::new() } else { self.store.get_many(&keys).await? };
        let writes = missing.iter().zip(held).filter_map(|(chunk, held)| Some((chunk, held?)));
        let writes = writes.map(|(chunk, held)| async move {
            let copy = ChunkRef { name: self.entropy.version().0, ..*chunk };
            let stored = Stored { bytes: held.bytes, ttl_ms, lasting: false };
            let written = self.store.swap(&chunk_key(ledger, copy), None, stored).await?;
            Ok::<_, L2Error>((chunk.name, if written { copy } else { *chunk }))
        });
        copies.extend(try_join_all(writes).await?);
        for chunk in chunks {
            *chunk = copies.get(&chunk.name).copied().unwrap_or(*chunk);
        }
        Ok(())
    }

    /// The barriers of these chunks; the lost ones fold into the floor (C3).
    async fn load(
        &self,
        ledger: &str,
        chunks: &[ChunkRef],
        snapshot: &mut Snapshot,
    ) -> Result<Vec<Vec<Barrier>>, L2Error> {
        let keys: Vec<_> = chunks.iter().map(|chunk| chunk_key(ledger, *chunk)).collect();
        let mut loaded = Vec::with_capacity(chunks.len());
        for (chunk, held) in chunks.iter().zip(self.store.get_many(&keys).await?) {
            match held.and_then(|held| decode_chunk(&held.bytes)) {
                Some(barriers) if barriers.len() == chunk.len as usize => loaded.push(barriers),
                _ => fold(snapshot, chunk.ends),
            }
        }
        Ok(loaded)
    }

    /// The part of the ledger that the reply to `ask` needs: one barrier more than its page, or
    /// all.
    async fn part(
        &self,
        ledger: &str,
        root: &Root,
        ask: &SyncAsk,
        now_us: u64,
    ) -> Result<Snapshot, L2Error> {
        let in_root = root.snapshot.levels.clone();
        let mut snapshot = Snapshot { levels: Vec::new(), ..root.snapshot.clone() };
        let standing = authority(Some(snapshot.clone())).sync(now_us, ask).standing;
        let from = if standing == Standing::Current { ask.from } else { 0 };
        let chunks: Vec<_> = root.chunks.iter().filter(|c| c.end() > from).copied().collect();
        let mut left = chunks.as_slice();
        let mut newest = BTreeMap::new();
        while !left.is_empty() && newest.len() <= ask.page {
            let missing = ask.page + 1 - newest.len();
            let wanted;
            (wanted, left) = left.split_at(enough(left, missing));
            for barriers in self.load(ledger, wanted, &mut snapshot).await? {
                add(&mut newest, barriers, from);
            }
        }
        if left.is_empty() {
            add(&mut newest, in_root, from);
        }
        snapshot.levels = ascending(newest);
        Ok(snapshot)
    }
}

/// An authority for a part of the ledger, without a cap: the ledger as a whole has one (C4).
fn authority(snapshot: Option<Snapshot>) -> Authority {
    match snapshot {
        Some(snapshot) => Authority::restore(snapshot, usize::MAX),
        None => Authority::with_capacity(usize::MAX),
    }
}

/// The newest number for each target and strength.
type Newest = BTreeMap<(Target, Strength), u64>;

/// Adds the barriers above `from`. Call it in the order of the numbers.
fn add(newest: &mut Newest, barriers: Vec<Barrier>, from: u64) {
    let above = barriers.into_iter().filter(|(seq, _, _)| *seq > from);
    newest.extend(above.map(|(seq, target, strength)| ((target, strength), seq)));
}

fn ascending(newest: Newest) -> Vec<Barrier> {
    let mut barriers: Vec<_> =
        newest.into_iter().map(|((target, strength), seq)| (seq, target, strength)).collect();
    barriers.sort_unstable();
    barriers
}

/// How many of these chunks are needed for this many barriers.
fn enough(chunks: &[ChunkRef], barriers: usize) -> usize {
    let mut held = 0;
    let more = chunks.iter().take_while(|chunk| {
        let more = held < barriers;
        held += chunk.len as usize;
        more
    });
    more.count()
}

/// The length of a prefix of about `most` barriers that does not split a number.
fn whole_numbers(barriers: &[Barrier], most: usize) -> usize {
    let mut end = most.min(barriers.len());
    while end < barriers.len() && barriers[end].0 == barriers[end - 1].0 {
        end += 1;
    }
    end
}

/// Drops chunks whose barriers hide nothing any more.
fn drop_old(snapshot: &mut Snapshot, chunks: &mut Vec<ChunkRef>, now_us: u64) {
    if snapshot.retention_ms == 0 {
        return;
    }
    let oldest_kept = now_us.saturating_sub(snapshot.retention_ms.saturating_mul(1000));
    chunks.retain(|chunk| {
        let keep = chunk.end() >= oldest_kept;
        if !keep {
            fold(snapshot, chunk.ends);
        }
        keep
    });
}

/// Raises the floor to hide all that barriers up to these numbers hide (C3).
fn fold(snapshot: &mut Snapshot, ends: Levels) {
    snapshot.floor.raise(Strength::Soft, ends.soft);
    snapshot.floor.raise(Strength::Hard, ends.hard);
    snapshot.trim = snapshot.trim.max(ends.soft).max(ends.hard);
}

fn is_due(root: &Root, now_us: u64, ttl_ms: u64) -> bool {
    let after_ms = (ttl_ms / RENEWALS).min(DAY_MS);
    now_us.saturating_sub(root.written_us) / 1000 >= after_ms
}

/// The TTL of a ledger: longer than the TTL of anything it can hide, with a margin.
fn ledger_ttl_ms(retention_ms: u64) -> u64 {
    retention_ms.saturating_mul(2).max(MIN_TTL_MS)
}

fn chunk_key(ledger: &str, chunk: ChunkRef) -> String {
    format!("{ledger}:{:016x}", chunk.name)
}
