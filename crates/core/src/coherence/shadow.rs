//! Shadow verification: a few hits of L1 are compared with L2, to count what should never happen.
//!
//! A copy that differs from L2 is legal for as long as the news may be on its way. So each difference
//! is looked at again once that time is over: the same copy still fresh, on a node that thinks itself
//! coherent, and L2 still holding something else is a broken promise.

use parking_lot::Mutex;

use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{ErasedEntry, Meta};
use crate::l2::access::Access;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// How many copies are looked at in one poll.
const MOST: usize = 64;

/// Copies to compare.
#[derive(Default)]
pub(crate) struct Shadow {
    sampled: Mutex<Vec<ErasedEntry>>,
    /// Those that differed, and since when.
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
    /// A hit was drawn. Dropped if there are enough.
    #[cold]
    pub(crate) fn draw(&self, erased: ErasedEntry) {
        let mut sampled = self.sampled.lock();
        let same = |other: &ErasedEntry| other.meta().version == erased.meta().version;
        if sampled.len() < MOST && !erased.meta().own && !sampled.iter().any(same) {
            sampled.push(erased);
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

/// One look at what was drawn, and a second at what has differed for too long. Called by the poll.
pub(super) async fn look<C: Sync>(inner: &Inner<C>, l2: &Access) {
    if inner.settings.shadow_verify == 0 || !l2.holds_records() {
        return;
    }
    let now = inner.now();
    // What may be on its way: two polls, and the answers to them.
    let legal = inner.settings.poll * 2 + inner.l2_limit() * 2;
    let drawn = std::mem::take(&mut *inner.shadow.sampled.lock());
    let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut *inner.shadow.suspects.lock())
        .into_iter()
        .partition(|(_, since)| now.since(*since) >= legal);
    let mut suspects = waiting;
    for (erased, found) in compare(inner, l2, drawn).await {
        inner.counters.shadow_checked.add();
        if found != Found::Same {
            suspects.push((erased, now));
        }
    }
    suspects.truncate(MOST);
    *inner.shadow.suspects.lock() = suspects;
    let due = due.into_iter().map(|(erased, _)| erased).collect();
    for (erased, found) in compare(inner, l2, due).await {
        judge(inner, erased.meta(), found);
    }
}

fn judge<C>(inner: &Inner<C>, meta: &Meta, found: Found) {
    let now = inner.now();
    let key = crate::protocol::KeyHash::of(&meta.key);
    let erased = inner.l1.get(key, &meta.key);
    let same = erased.is_some_and(|erased| erased.meta().version == meta.version);
    let coherent = now.as_nanos() <= inner.node.coherence.until();
    let waits = inner.recovery.strength(&meta.key).is_some();
    if !same || waits || !coherent || inner.node.judge(meta, now) != Verdict::Fresh {
        return;
    }
    match found {
        Found::Same => {}
        // A server that evicts, or forgets for want of memory, tells nobody.
        Found::Nothing => inner.counters.shadow_absent.add(),
        Found::Other => {
            inner.counters.shadow_illegal.add();
            let place = inner.place(Some(&meta.key));
            tracing::error!(%place, "L1 holds what L2 has replaced, for longer than it may");
        }
    }
}

async fn compare<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    erased: Vec<ErasedEntry>,
) -> Vec<(ErasedEntry, Found)> {
    if erased.is_empty() {
        return Vec::new();
    }
    let keys = erased.iter().map(|erased| &*erased.meta().key);
    let heads = l2.read_heads(keys, inner.l2_limit()).await;
    let found = |erased: &ErasedEntry, head: Option<Head>| match head {
        Some(head) if head.version() == erased.meta().version => Found::Same,
        Some(Head::Value { .. }) => Found::Other,
        Some(Head::LoadLock(_)) | None => Found::Nothing,
    };
    erased
        .into_iter()
        .zip(heads)
        .filter_map(|(erased, head)| {
            let found = found(&erased, head.ok()?);
            Some((erased, found))
        })
        .collect()
}
