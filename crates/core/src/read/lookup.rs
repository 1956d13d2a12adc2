//! L1 lookups: the hit path, and the candidates that a miss finds.

use std::sync::Arc;

use super::Call;
use crate::clock::Moment;
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::events::MissReason;
use crate::node::Node;
use crate::protocol::KeyHash;
use crate::protocol::validity::Verdict;
use crate::read::stale::may_serve_stale;

/// Returns a fresh value of L1. The whole hit path: hash, look up, one compare, two time checks.
pub(crate) fn hit<T: Value>(node: &Node, hash: KeyHash, key: &str) -> Option<Cached<T>> {
    hit_at(node, hash, key, || node.recent())
}

/// Like [`hit`], but calls `now` only if there is an entry.
#[inline]
pub(crate) fn hit_at<T: Value>(
    node: &Node,
    hash: KeyHash,
    key: &str,
    now: impl FnOnce() -> Moment,
) -> Option<Cached<T>> {
    let entry: Arc<Entry<T>> = typed(node.l1.find(hash)?)?;
    let now = now();
    if &*entry.meta.key != key || node.coherence.judge(&entry.meta, now) != Verdict::Fresh {
        return None;
    }
    Some(answer(node, entry, now))
}

/// Answers from L1 with a fresh entry and counts the hit.
pub(super) fn answer<T: Value>(node: &Node, entry: Arc<Entry<T>>, now: Moment) -> Cached<T> {
    entry.meta.slide(now);
    let nth = node.l1_hit(&entry.meta, now);
    let shadow = node.settings.shadow_verify;
    if shadow != 0 && nth.is_one_in(shadow) {
        node.shadow.draw(Arc::clone(&entry) as ErasedEntry);
    }
    Cached::new(entry, now, Source::L1, false)
}

/// The result of looking a call up in L1.
#[derive(Debug)]
pub(crate) enum Local<T> {
    /// No entry, a hidden entry, or an entry of another type.
    Nothing(MissReason),
    /// A fresh value.
    Fresh(Arc<Entry<T>>, Moment),
    /// A stale value whose throttle still holds: its load failed a moment ago.
    Throttled(Arc<Entry<T>>, Moment),
    /// A value that needs a version check, or is at most a fallback.
    Candidate(Arc<Entry<T>>, Verdict),
}

impl<T: Value> Local<T> {
    /// Converts a fresh or throttled value into an answer.
    pub(crate) fn answer(self, node: &Node) -> Option<Cached<T>> {
        match self {
            Self::Fresh(entry, now) => Some(answer(node, entry, now)),
            Self::Throttled(entry, now) => {
                node.stale_hit(&entry.meta.key, Source::FailSafe);
                Some(Cached::new(entry, now, Source::FailSafe, true))
            }
            Self::Nothing(_) | Self::Candidate(..) => None,
        }
    }
}

/// Looks a call up in L1.
pub(crate) fn lookup<T: Value>(node: &Node, call: &Call) -> Local<T> {
    if call.options.skip_l1_read {
        return Local::Nothing(MissReason::Absent);
    }
    let Some(erased) = node.l1.get(call.hash, &call.key) else {
        return Local::Nothing(MissReason::Absent);
    };
    let now = node.now();
    let verdict = node.coherence.judge(erased.meta(), now);
    let Some(entry) = typed::<T>(erased) else { return Local::Nothing(MissReason::Unusable) };
    match verdict {
        Verdict::Fresh if call.options.strict && node.l2.is_some() => {
            Local::Candidate(entry, Verdict::Unverified)
        }
        Verdict::Fresh => Local::Fresh(entry, now),
        Verdict::Hidden(_) if !sabotaged!(FailSafeIgnoresHard) => {
            node.found(verdict);
            Local::Nothing(MissReason::of(verdict))
        }
        Verdict::Hidden(_) | Verdict::Stale(_) | Verdict::Unverified => {
            let throttled = entry.meta.is_throttled(now)
                && may_serve_stale(&entry.meta, verdict, &call.options, now)
                && is_known(node, &entry);
            if throttled { Local::Throttled(entry, now) } else { Local::Candidate(entry, verdict) }
        }
    }
}

/// The stale value in L1 that the call may get if its load takes too long.
pub(crate) fn serve_stale<T: Value>(node: &Node, call: &Call) -> Option<ErasedEntry> {
    match lookup::<T>(node, call) {
        Local::Throttled(entry, _) => Some(entry),
        Local::Candidate(entry, verdict) => {
            let may = may_serve_stale(&entry.meta, verdict, &call.options, node.now());
            (may && is_known(node, &entry)).then_some(entry as ErasedEntry)
        }
        Local::Fresh(..) | Local::Nothing(_) => None,
    }
}

/// Whether an entry may be a fallback without asking L2.
///
/// It was verified in the current session, it was never in L2, or L2 does not answer. Fail-safe
/// must not bring back a value whose `remove` this node missed.
pub(super) fn is_known<T>(node: &Node, entry: &Entry<T>) -> bool {
    let current = entry.meta.state().session == node.coherence.session();
    current || entry.meta.local_only || node.records().is_none_or(|l2| l2.is_open(&entry.meta.key))
}
