//! Shadow verification: a few hits of L1 are compared with L2, to count what should never happen.
//!
//! A copy that differs from L2 is legal for as long as the news may be on its way. So each difference
//! is looked at again once that time is over: the same copy still fresh, on a node that thinks itself
//! coherent, and L2 still holding something else is a broken promise.

use parking_lot::Mutex;

use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{Held, Meta};
use crate::l2::access::Access;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// How many copies are looked at in one poll.
const MOST: usize = 64;

/// Copies to compare.
#[derive(Default)]
pub(crate) struct Shadow {
    sampled: Mutex<Vec<Held>>,
    /// Those that differed, and since when.
    suspects: Mutex<Vec<(Held, Moment)>>,
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
    pub(crate) fn draw(&self, held: Held) {
        let mut sampled = self.sampled.lock();
        let same = |other: &Held| other.meta().version == held.meta().version;
        if sampled.len() < MOST && !held.meta().own && !sampled.iter().any(same) {
            sampled.push(held);
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
    for (held, found) in compare(inner, l2, drawn).await {
        inner.counters.shadow_checked.add();
        if found != Found::Same {
            suspects.push((held, now));
        }
    }
    suspects.truncate(MOST);
    *inner.shadow.suspects.lock() = suspects;
    let due = due.into_iter().map(|(held, _)| held).collect();
    for (held, found) in compare(inner, l2, due).await {
        judge(inner, held.meta(), found);
    }
}

fn judge<C>(inner: &Inner<C>, meta: &Meta, found: Found) {
    let now = inner.now();
    let key = crate::protocol::KeyHash::of(&meta.key);
    let held = inner.l1.get(key, &meta.key);
    let same = held.is_some_and(|held| held.meta().version == meta.version);
    let coherent = now.as_nanos() <= inner.node.lease.until();
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

async fn compare<C: Sync>(inner: &Inner<C>, l2: &Access, held: Vec<Held>) -> Vec<(Held, Found)> {
    if held.is_empty() {
        return Vec::new();
    }
    let keys = held.iter().map(|held| &*held.meta().key);
    let heads = l2.read_heads(keys, inner.l2_limit()).await;
    let found = |held: &Held, head: Option<Head>| match head {
        Some(head) if head.version() == held.meta().version => Found::Same,
        Some(Head::Value { .. }) => Found::Other,
        Some(Head::Lease(_)) | None => Found::Nothing,
    };
    held.into_iter()
        .zip(heads)
        .filter_map(|(held, head)| {
            let found = found(&held, head.ok()?);
            Some((held, found))
        })
        .collect()
}
