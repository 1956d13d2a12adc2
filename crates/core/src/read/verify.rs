//! Whether copies are still what L2 holds: a look at the heads of their records, without their values.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use tokio::time::{Instant, timeout};

use super::Call;
use super::probe::{Asked, judge_record, synced};
use crate::cache::Inner;
use crate::coherence::{Mark, beside, catch_up};
use crate::entry::{Entry, ErasedEntry, Value};
use crate::flight::Fence;
use crate::options::EntryOptions;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;
use crate::protocol::{KeyHash, Version};

/// What L2 says of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It holds this version, and nothing was received against it: the copy is fresh.
    Same,
    /// It holds something else, or the copy has been overtaken: read the record.
    Other,
    /// It does not answer.
    Failed,
}

/// A check that all wait for who ask meanwhile, and the limit that it has.
type Running = (WeakShared<BoxFuture<'static, Checked>>, Duration);

/// The checks under way. A copy is known by its key and version.
#[derive(Debug, Default)]
pub(crate) struct Checks(DashMap<(KeyHash, Version), Option<Running>, RandomState>);

/// What is in resync, if a check would make it an answer.
pub(super) fn unverified<T: Value, C>(
    inner: &Inner<C>,
    call: &Call,
    local: Option<&Arc<Entry<T>>>,
) -> Option<ErasedEntry> {
    let entry = local.filter(|e| inner.records().is_some() && !e.meta.own)?;
    let unverified = match inner.node.judge(&entry.meta, inner.now()) {
        Verdict::Unverified => true,
        Verdict::Fresh => call.options.strict,
        Verdict::Stale(_) | Verdict::Hidden(_) => false,
    };
    unverified.then(|| Arc::clone(entry) as ErasedEntry)
}

/// Whether a copy in resync is answered, marked stale, though L2 has not said that it is right: it does
/// not answer, the coherence TTL would still cover the copy, and the call asks for no more.
pub(super) fn may_serve_unverified<T, C>(inner: &Inner<C>, call: &Call, entry: &Entry<T>) -> bool {
    let unverified = inner.records().is_some() && !entry.meta.own && call.refresh.is_none();
    unverified
        && takes_unverified(&call.options)
        && inner.recovery.strength(&call.key).is_none()
        && inner.node.is_covered(&entry.meta, inner.now())
}

/// Whether a call may be answered with what L2 could not verify, marked stale.
pub(super) fn takes_unverified(options: &EntryOptions) -> bool {
    !options.strict && !options.require_l2 && !options.skip_l2_read
}

/// Checks a copy, once for all who ask meanwhile. A strict caller takes only what began after it came.
pub(super) async fn check<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    call: &Call,
    erased: ErasedEntry,
    limit: Duration,
) -> Checked {
    if call.options.strict {
        return look_at(inner, erased, limit, true).await;
    }
    let id = (call.hash, erased.meta().version);
    let (shared, given) = {
        let (erased, mut running) = (Arc::clone(&erased), inner.checks.0.entry(id).or_default());
        let joined = running.as_ref().and_then(|(weak, given)| Some((weak.upgrade()?, *given)));
        joined.unwrap_or_else(|| {
            let under_way = UnderWay { inner: Arc::clone(inner), id };
            // Who comes later may have more time than who began; each waits no longer than it has.
            let longest = limit.max(inner.l2_limit());
            let look = async move {
                // Another caller may go on with it, from another runtime.
                let Ok(runtime) = under_way.inner.runtime() else { return Checked::Failed };
                let look = look_at(&under_way.inner, erased, longest, false);
                runtime.keep(look).await.unwrap_or(Checked::Failed)
            };
            let shared = look.boxed().shared();
            *running = shared.downgrade().map(|weak| (weak, longest));
            (shared, longest)
        })
    };
    let came = Instant::now();
    let mut checked = timeout(limit, shared).await.unwrap_or(Checked::Failed);
    let left = limit.saturating_sub(came.elapsed());
    if checked == Checked::Failed && given < limit && !left.is_zero() {
        // That was the limit of another caller.
        checked = look_at(inner, Arc::clone(&erased), left, false).await;
    }
    // Who joined between the verdict and its end may come after the session it was given in (S4).
    let is_fresh = || judge_record(inner, &erased.meta().key, erased.meta()) == Verdict::Fresh;
    if checked == Checked::Same && !is_fresh() { Checked::Other } else { checked }
}

/// Ends with the check, or with the last who waits for it.
struct UnderWay<C> {
    inner: Arc<Inner<C>>,
    id: (KeyHash, Version),
}

impl<C> Drop for UnderWay<C> {
    fn drop(&mut self) {
        self.inner.checks.0.remove(&self.id);
    }
}

/// Checks one copy.
pub(super) async fn look_at<C: Sync>(
    inner: &Inner<C>,
    erased: ErasedEntry,
    limit: Duration,
    strict: bool,
) -> Checked {
    look(inner, &[erased], limit, strict).await.pop().unwrap_or(Checked::Failed)
}

/// Checks many copies in one round trip, within one limit; strictly, by the ledger as it is now.
pub(super) async fn look<C: Sync>(
    inner: &Inner<C>,
    erased: &[ErasedEntry],
    limit: Duration,
    strict: bool,
) -> Vec<Checked> {
    if erased.is_empty() {
        return Vec::new();
    }
    let (came, failed) = (Instant::now(), || vec![Checked::Failed; erased.len()]);
    let left = || limit.saturating_sub(came.elapsed());
    let Some(l2) = inner.records() else { return failed() };
    let circuit_open = |erased: &ErasedEntry| l2.is_open(&erased.meta().key);
    if erased.iter().all(circuit_open) || !synced(inner, limit).await || left().is_zero() {
        return failed();
    }
    let keys = || erased.iter().map(|erased| &*erased.meta().key);
    let fences: Vec<_> =
        keys().map(|key| Fence::begin(inner, KeyHash::of(key), None, || ())).collect();
    let asked: Vec<_> = keys().map(|key| Asked::now(inner, key)).collect();
    let heads = l2.read_heads(keys(), left());
    let (heads, mark) = beside(inner, l2, strict, left(), heads).await;
    if let Some(error) = heads.iter().find_map(|head| head.as_ref().err()) {
        tracing::debug!(%error, "L2 could not be asked whether copies are still right");
    }
    if heads.iter().all(Result::is_err) || !is_caught_up(inner, mark, left()).await {
        return failed();
    }
    let each = erased.iter().zip(fences).zip(asked).zip(heads);
    let checked = each.map(|(((erased, fence), asked), head)| match head {
        Ok(head) => settle(inner, erased, fence, asked, head),
        Err(_) => Checked::Failed,
    });
    checked.collect()
}

/// Whether this node knows what the ledger held when L2 was asked, or has learnt it now. A strict read
/// without that is one without an answer (S16).
pub(super) async fn is_caught_up<C: Sync>(inner: &Inner<C>, mark: Mark, limit: Duration) -> bool {
    sabotaged!(StrictIgnoresLedger) || catch_up(inner, mark, limit).await
}

/// Verifies a copy that L2 still has, if nothing was received against it meanwhile.
fn settle<C>(
    inner: &Inner<C>,
    erased: &ErasedEntry,
    fence: Fence<'_, C>,
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
        match asked.judge(inner, &meta.key, meta) {
            Verdict::Fresh => {
                inner.counters.l1_verified.add();
                Checked::Same
            }
            _ => Checked::Other,
        }
    })
}
