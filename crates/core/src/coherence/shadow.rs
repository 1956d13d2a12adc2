//! Shadow verification: compares a few hits of L1 with L2, to count what should never happen.
//!
//! A copy may differ from L2 while a message may be in transit. So each difference is checked again
//! once that time is over. It is a violation if the same copy is still fresh, the node considers
//! itself coherent, and L2 still holds something else.

use parking_lot::Mutex;

use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{ErasedEntry, Meta};
use crate::l2::access::Access;
use crate::protocol::KeyHash;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// How many copies one poll compares.
const MOST: usize = 64;

/// Copies to compare.
#[derive(Default)]
pub(crate) struct Shadow {
    sampled: Mutex<Vec<ErasedEntry>>,
    /// Copies that differed, and since when.
    suspects: Mutex<Vec<(ErasedEntry, Moment)>>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow")
            .field("sampled", &self.sampled.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shadow {
    /// Samples a hit. Drops it if there are enough.
    #[cold]
    pub(crate) fn draw(&self, copy: ErasedEntry) {
        let mut sampled = self.sampled.lock();
        let same = |other: &ErasedEntry| other.meta().version == copy.meta().version;
        if sampled.len() < MOST && !copy.meta().own && !sampled.iter().any(same) {
            sampled.push(copy);
        }
    }
}

/// What L2 holds for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    Other,
    Nothing,
}

/// Compares what was sampled, and again what has differed for too long. Called after each poll.
pub(super) async fn verify_samples(inner: &Inner, l2: &Access) {
    if inner.settings.shadow_verify == 0 || !l2.holds_records() {
        return;
    }
    let now = inner.now();
    // A message may be in transit for two polls, and the answers to them.
    let legal = inner.settings.poll * 2 + inner.l2_limit() * 2;
    let drawn = std::mem::take(&mut *inner.shadow.sampled.lock());
    let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut *inner.shadow.suspects.lock())
        .into_iter()
        .partition(|(_, since)| now.since(*since) >= legal);
    let mut suspects = waiting;
    for (copy, found) in compare(inner, l2, drawn).await {
        inner.counters.shadow_checked.add();
        if found != Found::Same {
            suspects.push((copy, now));
        }
    }
    suspects.truncate(MOST);
    *inner.shadow.suspects.lock() = suspects;
    let due = due.into_iter().map(|(copy, _)| copy).collect();
    for (copy, found) in compare(inner, l2, due).await {
        judge(inner, copy.meta(), found);
    }
}

fn judge(inner: &Inner, meta: &Meta, found: Found) {
    let now = inner.now();
    let key = KeyHash::of(&meta.key);
    let copy = inner.l1.get(key, &meta.key);
    let same = copy.is_some_and(|copy| copy.meta().version == meta.version);
    let coherent = now.as_nanos() <= inner.node.coherence.until();
    let waits = inner.recovery.strength(&meta.key).is_some();
    if !same || waits || !coherent || inner.node.judge(meta, now) != Verdict::Fresh {
        return;
    }
    match found {
        Found::Same => {}
        // A server that evicts a key, or lacks memory, notifies no node.
        Found::Nothing => inner.counters.shadow_absent.add(),
        Found::Other => {
            inner.counters.shadow_illegal.add();
            let place = inner.place(Some(&meta.key));
            tracing::error!(%place, "L1 holds what L2 has replaced, for longer than it may");
        }
    }
}

async fn compare(
    inner: &Inner,
    l2: &Access,
    copies: Vec<ErasedEntry>,
) -> Vec<(ErasedEntry, Found)> {
    if copies.is_empty() {
        return Vec::new();
    }
    let keys = copies.iter().map(|copy| &*copy.meta().key);
    let heads = l2.read_heads(keys, inner.l2_limit()).await;
    let found = |copy: &ErasedEntry, head: Option<Head>| match head {
        Some(head) if head.version() == copy.meta().version => Found::Same,
        Some(Head::Value { .. }) => Found::Other,
        Some(Head::LoadLock(_)) | None => Found::Nothing,
    };
    copies
        .into_iter()
        .zip(heads)
        .filter_map(|(copy, head)| {
            let found = found(&copy, head.ok()?);
            Some((copy, found))
        })
        .collect()
}
