//! Whether this node can judge records of L2, and how it does.

use std::time::Duration;

use tokio::time::timeout;

use crate::entry::{Meta, Stamp};
use crate::l2::access::Access;
use crate::node::Node;
use crate::protocol::ledger::Strength;
use crate::protocol::validity::{Verdict, Why};

/// What this node knew of a key when it asked L2 for the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) stamp: Stamp,
    /// The invalidation pending for L2 then. It still applies to the reply, even if L2 received it
    /// since.
    waiting: Option<Strength>,
}

impl Asked {
    pub(super) fn now(node: &Node, key: &str) -> Self {
        let mut stamp = node.coherence.stamp(node.now());
        // Until L2 has answered as a primary, its replies verify nothing in the current session.
        stamp.session -= u64::from(!node.coherence.is_confirmed());
        if !sabotaged!(LedgerNeverOld) {
            stamp.known = stamp.at.min(node.coherence.ttl.synced_at());
        }
        Self { waiting: node.recovery.strength(key), stamp }
    }

    /// Judges the record that L2 returned.
    pub(super) fn judge(self, node: &Node, key: &str, meta: &Meta) -> Verdict {
        let waited = self.waiting.filter(|_| !sabotaged!(ReadForgetsWaiting));
        judge_waiting(node, waited.max(node.recovery.strength(key)), meta)
    }
}

/// Waits until this node can read and judge records.
pub(crate) async fn synced(node: &Node, limit: Duration) -> bool {
    settled(node, limit, || can_judge(node)).await
}

/// Whether to ask L2 about a key: its circuit breaker is closed, and this node can judge the answer,
/// now or after waiting for a sync.
pub(super) async fn may_ask(node: &Node, l2: &Access, key: &str, limit: Duration) -> bool {
    !l2.is_open(key) && synced(node, limit).await
}

/// Whether this node can judge records: its ledger state is synced and current, and L2 has answered
/// since the node subscribed.
pub(super) fn can_judge(node: &Node) -> bool {
    let known = &node.coherence;
    known.is_synced() && known.is_confirmed() && known.is_current(node.now())
}

/// Waits until the ledger is synced: by the first `SYNC`, or at the end of a resync.
pub(crate) async fn ledger_known(node: &Node, limit: Duration) -> bool {
    settled(node, limit, || node.coherence.is_synced()).await
}

async fn settled(
    node: &Node,
    limit: Duration,
    is_settled: impl Fn() -> bool + Send + Sync,
) -> bool {
    if is_settled() {
        return true;
    }
    if node.l2.as_ref().is_some_and(Access::is_ledger_open) {
        // The next poll finds out whether the server is back; a read does not wait for it.
        return false;
    }
    let mut link = node.link.reader();
    let failures = link.read().failures;
    node.coherence.sync_wanted.notify_one();
    // A failed poll is an answer too: a read does not wait for the next one.
    let answered = link.wait_for(|l| is_settled() || l.failures != failures);
    let _ = timeout(limit, answered).await;
    is_settled()
}

/// Judges a record of L2; invalidations that are pending or in flight apply as well.
pub(crate) fn judge_record(node: &Node, key: &str, meta: &Meta) -> Verdict {
    judge_waiting(node, node.recovery.strength(key), meta)
}

fn judge_waiting(node: &Node, waiting: Option<Strength>, meta: &Meta) -> Verdict {
    match waiting.max(node.recovery.local_only.strength(meta)) {
        Some(Strength::Hard) => return Verdict::Hidden(Why::Expired),
        Some(Strength::Soft) => meta.expire(),
        None => {}
    }
    node.coherence.judge(meta, node.now())
}
