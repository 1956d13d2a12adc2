//! Shadow verification: compares a few hits of L1 with L2, to count what should never happen.
//!
//! A copy may differ from L2 while a message may be in transit. So each difference is checked again
//! once that time is over. It is a violation if the same copy is still fresh, the node considers
//! itself coherent, and L2 still holds something else.

use crate::entry::{ErasedEntry, Meta};
use crate::l2::access::Access;
use crate::node::Node;
use crate::protocol::KeyHash;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// What L2 holds for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    Other,
    Nothing,
}

/// Compares what was sampled, and again what has differed for too long. Called after each poll.
pub(super) async fn verify_samples(node: &Node, l2: &Access) {
    if node.settings.shadow_verify == 0 || !l2.holds_records() {
        return;
    }
    let now = node.now();
    // A message may be in transit for two polls, and the answers to them.
    let legal = node.settings.poll * 2 + node.l2_limit() * 2;
    let due = node.shadow.due(legal, now);
    for (copy, found) in compare(node, l2, node.shadow.drawn()).await {
        node.counters.shadow_checked.add();
        if found != Found::Same {
            node.shadow.suspect(copy, now);
        }
    }
    for (copy, found) in compare(node, l2, due).await {
        judge(node, copy.meta(), found);
    }
}

fn judge(node: &Node, meta: &Meta, found: Found) {
    let now = node.now();
    let key = KeyHash::of(&meta.key);
    let copy = node.l1.get(key, &meta.key);
    let same = copy.is_some_and(|copy| copy.meta().version == meta.version);
    let coherent = now.as_nanos() <= node.coherence.ttl.until();
    let waits = node.recovery.strength(&meta.key).is_some();
    if !same || waits || !coherent || node.coherence.judge(meta, now) != Verdict::Fresh {
        return;
    }
    match found {
        Found::Same => {}
        // A server that evicts a key, or lacks memory, notifies no node.
        Found::Nothing => node.counters.shadow_absent.add(),
        Found::Other => {
            node.counters.shadow_illegal.add();
            let place = node.place(Some(&meta.key));
            tracing::error!(%place, "L1 holds what L2 has replaced, for longer than it may");
        }
    }
}

async fn compare(node: &Node, l2: &Access, copies: Vec<ErasedEntry>) -> Vec<(ErasedEntry, Found)> {
    if copies.is_empty() {
        return Vec::new();
    }
    let keys = copies.iter().map(|copy| &*copy.meta().key);
    let heads = l2.read_heads(keys, node.l2_limit()).await;
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
