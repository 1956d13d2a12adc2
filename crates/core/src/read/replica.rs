//! Reads from replicas: only keys without a change, known to this node, that a replica may lack.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::decode::{ReadInto, decode};
use super::judge::{Asked, can_judge};
use crate::clock::{Moment, nanos};
use crate::entry::{Entry, ErasedEntry, Value};
use crate::node::{Coded, Fence};
use crate::protocol::validity::Verdict;

/// The record of a replica, if it is fresh. The caller's fence or flight began before this read.
pub(super) async fn read<T: Value>(
    node: &Coded<T>,
    call: &Call,
    local: Option<&Arc<Entry<T>>>,
    limit: Duration,
) -> Option<(Arc<Entry<T>>, Asked)> {
    let l2 = node.records()?;
    let lag = l2.replica_lag()?;
    // A call that skips L1, a refresh, and a call with an L1 copy ask the primary.
    if local.is_some() || call.options.passes_l1() || call.refresh.is_some() {
        return None;
    }
    let subscription_lost = node.bus.is_some() && !node.coherence.is_coherent(node.now());
    if subscription_lost || !can_judge(node) || node.recovery.strength(&call.key).is_some() {
        return None;
    }
    let mut asked = Asked::now(node, &call.key);
    let found = l2.read_replica(&call.key, call.hash, asked.stamp.session, limit).await?;
    // A replica may lag, so its record is known to be right only as of that time.
    let known = asked.stamp.at.as_nanos().saturating_sub(nanos(lag));
    asked.stamp.at = Moment::from_nanos(known);
    asked.stamp.known = asked.stamp.known.min(asked.stamp.at);
    let ReadInto::Entry(entry) = decode(node, call, &found, asked.stamp, None) else {
        return None;
    };
    (asked.judge(node, &call.key, &entry.meta) == Verdict::Fresh).then_some((entry, asked))
}

/// Like [`read`] for a plain read: keeps the entry in L1 if no conflicting message was received.
pub(super) async fn get<T: Value>(
    node: &Coded<T>,
    call: &Call,
    local: Option<&Arc<Entry<T>>>,
    limit: Duration,
) -> Option<Arc<Entry<T>>> {
    let fence = Fence::begin(node, call.hash, None, || ());
    let (entry, asked) = read(node, call, local, limit).await?;
    let kept = fence.end(|received| {
        let fresh = asked.judge(node, &call.key, &entry.meta) == Verdict::Fresh;
        let keep = fresh && received.allows(entry.meta.version);
        if keep {
            node.l1.insert(call.hash, Arc::clone(&entry) as ErasedEntry);
        }
        keep
    });
    kept.then_some(entry)
}
