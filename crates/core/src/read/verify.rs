//! Verifies L1 copies against L2, by reading the heads of their records without the values.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::Call;
use super::judge::{Asked, judge_record, synced};
use crate::entry::{Entry, ErasedEntry, Value};
use crate::flight::checks::Checked;
use crate::node::{Fence, Node};
use crate::options::EntryOptions;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;
use crate::protocol::{KeyHash, Version};
use crate::read::catch_up::{AskLedger, LedgerPosition, beside, catch_up};

/// The unverified copy, if a check could make it the answer.
pub(super) fn unverified<T: Value>(
    node: &Node,
    call: &Call,
    local: Option<&Arc<Entry<T>>>,
) -> Option<ErasedEntry> {
    let entry = local.filter(|e| node.records().is_some() && !e.meta.local_only)?;
    let unverified = match node.coherence.judge(&entry.meta, node.now()) {
        Verdict::Unverified => true,
        Verdict::Fresh => call.options.strict,
        Verdict::Stale(_) | Verdict::Hidden(_) => false,
    };
    unverified.then(|| Arc::clone(entry) as ErasedEntry)
}

/// Whether the call may get an unverified copy, marked stale, while L2 does not answer.
///
/// The coherence TTL must still cover the copy, and the call must not require more.
pub(super) fn may_serve_unverified<T>(node: &Node, call: &Call, entry: &Entry<T>) -> bool {
    let unverified = node.records().is_some() && !entry.meta.local_only && call.refresh.is_none();
    unverified
        && takes_unverified(&call.options)
        && node.recovery.strength(&call.key).is_none()
        && node.coherence.is_covered(&entry.meta, node.now())
}

/// Whether the call's options accept a copy that L2 could not verify, marked stale.
pub(super) fn takes_unverified(options: &EntryOptions) -> bool {
    !options.strict && !options.require_l2 && !options.skip_l2_read
}

/// Checks a copy, once for all concurrent callers. A strict caller runs its own check.
pub(super) async fn check(
    node: &Arc<Node>,
    call: &Call,
    erased: ErasedEntry,
    limit: Duration,
) -> Checked {
    if call.options.strict {
        return check_one(node, erased, limit, true).await;
    }
    let id = (call.hash, erased.meta().version);
    let (shared, given) = {
        let (erased, mut running) = (Arc::clone(&erased), node.checks.0.entry(id).or_default());
        let joined = running.as_ref().and_then(|(weak, given)| Some((weak.upgrade()?, *given)));
        joined.unwrap_or_else(|| {
            let under_way = UnderWay { node: Arc::clone(node), id };
            // A later caller may have more time than the first; each waits within its own limit.
            let longest = limit.max(node.l2_limit());
            let check = async move {
                // Another caller may continue to poll it, from another runtime.
                let Ok(runtime) = under_way.node.runtime() else { return Checked::Failed };
                let checked = check_one(&under_way.node, erased, longest, false);
                runtime.keep(checked).await.unwrap_or(Checked::Failed)
            };
            let shared = check.boxed().shared();
            *running = shared.downgrade().map(|weak| (weak, longest));
            (shared, longest)
        })
    };
    let came = Instant::now();
    let mut checked = timeout(limit, shared).await.unwrap_or(Checked::Failed);
    let left = limit.saturating_sub(came.elapsed());
    if checked == Checked::Failed && given < limit && !left.is_zero() {
        // The check ended at the shorter limit of another caller.
        checked = check_one(node, Arc::clone(&erased), left, false).await;
    }
    // A caller that joins after the verdict may start in a later session than the verdict's (S4).
    let is_fresh = || judge_record(node, &erased.meta().key, erased.meta()) == Verdict::Fresh;
    if checked == Checked::Same && !is_fresh() { Checked::Other } else { checked }
}

/// Removes the check from the table when it ends, or when its last caller leaves.
struct UnderWay {
    node: Arc<Node>,
    id: (KeyHash, Version),
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.node.checks.0.remove(&self.id);
    }
}

/// Checks one copy.
pub(super) async fn check_one(
    node: &Node,
    erased: ErasedEntry,
    limit: Duration,
    strict: bool,
) -> Checked {
    check_many(node, &[erased], limit, strict).await.pop().unwrap_or(Checked::Failed)
}

/// Checks many copies in one round trip, within one limit; if `strict`, against the current ledger.
pub(super) async fn check_many(
    node: &Node,
    erased: &[ErasedEntry],
    limit: Duration,
    strict: bool,
) -> Vec<Checked> {
    if erased.is_empty() {
        return Vec::new();
    }
    let (came, failed) = (Instant::now(), || vec![Checked::Failed; erased.len()]);
    let left = || limit.saturating_sub(came.elapsed());
    let Some(l2) = node.records() else { return failed() };
    let circuit_open = |erased: &ErasedEntry| l2.is_open(&erased.meta().key);
    if erased.iter().all(circuit_open) || !synced(node, limit).await || left().is_zero() {
        return failed();
    }
    let keys = || erased.iter().map(|erased| &*erased.meta().key);
    let fences: Vec<_> =
        keys().map(|key| Fence::begin(node, KeyHash::of(key), None, || ())).collect();
    let asked: Vec<_> = keys().map(|key| Asked::now(node, key)).collect();
    let heads = l2.read_heads(keys(), left());
    let (heads, mark) = beside(node, l2, AskLedger::own_if(strict), left(), heads).await;
    if let Some(error) = heads.iter().find_map(|head| head.as_ref().err()) {
        tracing::debug!(%error, "L2 could not verify the copies in L1");
    }
    if heads.iter().all(Result::is_err) || !is_caught_up(node, mark, left()).await {
        return failed();
    }
    let each = erased.iter().zip(fences).zip(asked).zip(heads);
    let checked = each.map(|(((erased, fence), asked), head)| match head {
        Ok(head) => settle(node, erased, fence, asked, head),
        Err(_) => Checked::Failed,
    });
    checked.collect()
}

/// Whether this node has caught up with the ledger's position at the READ; it syncs if needed.
///
/// Without that, a strict read has no answer (S16).
pub(super) async fn is_caught_up(node: &Node, mark: LedgerPosition, limit: Duration) -> bool {
    sabotaged!(StrictIgnoresLedger) || catch_up(node, mark, limit).await
}

/// Marks a copy as verified if L2 still holds it and no conflicting message was received.
fn settle(
    node: &Node,
    erased: &ErasedEntry,
    fence: Fence<'_>,
    asked: Asked,
    head: Option<Head>,
) -> Checked {
    let meta = erased.meta();
    let same = |head| matches!(head, Head::Value { version, expired: false, .. } if version == meta.version);
    fence.end(|received| {
        if !head.is_some_and(same) || !received.allows(meta.version) {
            return Checked::Other;
        }
        meta.verify(asked.stamp);
        match asked.judge(node, &meta.key, meta) {
            Verdict::Fresh => {
                node.counters.l1_verified.add();
                Checked::Same
            }
            _ => Checked::Other,
        }
    })
}
