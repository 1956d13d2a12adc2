//! L1: the hit path, and what a miss finds there.

use std::sync::Arc;

use super::Call;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::events::MissReason;
use crate::fail_safe::may_serve_stale;
use crate::protocol::KeyHash;
use crate::protocol::validity::Verdict;

/// A fresh value of L1. This is the whole hit path: hash, look up, one compare, two time checks.
pub(crate) fn hit<T: Value, C>(inner: &Inner<C>, hash: KeyHash, key: &str) -> Option<Cached<T>> {
    hit_at(inner, hash, key, || inner.recent())
}

/// The same, at a moment that is asked for once there is something.
#[inline]
pub(crate) fn hit_at<T: Value, C>(
    inner: &Inner<C>,
    hash: KeyHash,
    key: &str,
    now: impl FnOnce() -> Moment,
) -> Option<Cached<T>> {
    let entry: Arc<Entry<T>> = typed(inner.l1.find(hash)?)?;
    let now = now();
    if &*entry.meta.key != key || inner.node.judge(&entry.meta, now) != Verdict::Fresh {
        return None;
    }
    Some(answer(inner, entry, now))
}

/// The answer of L1 with a fresh entry.
pub(super) fn answer<T: Value, C>(
    inner: &Inner<C>,
    entry: Arc<Entry<T>>,
    now: Moment,
) -> Cached<T> {
    entry.meta.slide(now);
    let nth = inner.l1_hit(&entry.meta, now);
    let shadow = inner.settings.shadow_verify;
    if shadow != 0 && nth.is_one_in(shadow) {
        inner.shadow.draw(Arc::clone(&entry) as ErasedEntry);
    }
    Cached::new(entry, now, Source::L1, false)
}

/// What L1 has for a call.
#[derive(Debug)]
pub(crate) enum Local<T> {
    /// Nothing, or nothing that may ever be answered, or another type.
    Nothing(MissReason),
    /// A value to answer with.
    Fresh(Arc<Entry<T>>, Moment),
    /// A stale value whose refresh failed so recently that it is not tried again.
    Throttled(Arc<Entry<T>>, Moment),
    /// A value that needs a version check, or can at most stand in.
    Candidate(Arc<Entry<T>>, Verdict),
}

impl<T: Value> Local<T> {
    /// The answer, if this is one.
    pub(crate) fn answer<C>(self, inner: &Inner<C>) -> Option<Cached<T>> {
        match self {
            Self::Fresh(entry, now) => Some(answer(inner, entry, now)),
            Self::Throttled(entry, now) => {
                inner.stale_hit(&entry.meta.key, Source::FailSafe);
                Some(Cached::new(entry, now, Source::FailSafe, true))
            }
            Self::Nothing(_) | Self::Candidate(..) => None,
        }
    }
}

/// Looks a call up in L1.
pub(crate) fn lookup<T: Value, C>(inner: &Inner<C>, call: &Call) -> Local<T> {
    if call.options.skip_l1_read {
        return Local::Nothing(MissReason::Absent);
    }
    let Some(erased) = inner.l1.get(call.hash, &call.key) else {
        return Local::Nothing(MissReason::Absent);
    };
    let now = inner.now();
    let verdict = inner.node.judge(erased.meta(), now);
    let Some(entry) = typed::<T>(erased) else { return Local::Nothing(MissReason::Unusable) };
    match verdict {
        Verdict::Fresh if call.options.strict && inner.l2.is_some() => {
            Local::Candidate(entry, Verdict::Unverified)
        }
        Verdict::Fresh => Local::Fresh(entry, now),
        Verdict::Hidden(_) if !sabotaged!(FailSafeIgnoresHard) => {
            inner.found(verdict);
            Local::Nothing(MissReason::of(verdict))
        }
        Verdict::Hidden(_) | Verdict::Stale(_) | Verdict::Unverified => {
            let throttled = entry.meta.is_throttled(now)
                && may_serve_stale(&entry.meta, verdict, &call.options, now)
                && is_known(inner, &entry);
            if throttled { Local::Throttled(entry, now) } else { Local::Candidate(entry, verdict) }
        }
    }
}

/// What L1 has to stand in for a load that takes too long, if the call allows it.
pub(crate) fn serve_stale<T: Value, C>(inner: &Inner<C>, call: &Call) -> Option<ErasedEntry> {
    match lookup::<T, C>(inner, call) {
        Local::Throttled(entry, _) => Some(entry),
        Local::Candidate(entry, verdict) => {
            let may = may_serve_stale(&entry.meta, verdict, &call.options, inner.now());
            (may && is_known(inner, &entry)).then_some(entry as ErasedEntry)
        }
        Local::Fresh(..) | Local::Nothing(_) => None,
    }
}

/// Whether an entry may stand in without a look at L2: it was verified in the current session, it was
/// never there, or L2 does not answer. A lost `remove` must not come back through fail-safe.
pub(super) fn is_known<T, C>(inner: &Inner<C>, entry: &Entry<T>) -> bool {
    let current = entry.meta.state().session == inner.node.session();
    current || entry.meta.own || inner.records().is_none_or(|l2| l2.is_open(&entry.meta.key))
}
