//! Plain reads: they run no factory and leave no lease.

use std::sync::Arc;

use super::Call;
use super::decode::{ReadInto, decode};
use super::lookup::{Local, lookup};
use super::probe::{REREADS, judge_record, synced};
use crate::cache::Inner;
use crate::entry::{Cached, Entry, Held, Source, Stamp, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::flight::Fence;
use crate::l2::access::Access;
use crate::l2::{Codec, Found};
use crate::protocol::validity::Verdict;

/// Answers from L1 or L2, or not at all. Stale values only if the call allows them.
pub(crate) async fn get<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: Call,
) -> Result<Option<Cached<T>>, Error> {
    call.options.validate(&inner.place(Some(&call.key)))?;
    let (local, verdict) = match lookup::<T, C>(inner, &call) {
        Local::Fresh(entry, now) => {
            inner.counters.l1_hits.add();
            return Ok(Some(Cached::new(entry, now, Source::L1, false)));
        }
        Local::Throttled(entry, _) => (Some(entry), Verdict::Unverified),
        Local::Candidate(entry, verdict) => (Some(entry), verdict),
        Local::Nothing if holds_other_type::<T, C>(inner, &call) => {
            return Err(inner.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        Local::Nothing => (None, Verdict::Fresh),
    };
    let options = &call.options;
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let asks = inner.enabled && !options.skip_l2_read && !when_stale;
    let mut found = Asked::NoAnswer;
    for _ in 0..=REREADS {
        let Some(l2) = inner.records().filter(|_| asks) else { break };
        found = ask(inner, l2, &call, local.as_ref()).await?;
        // Doubted or overtaken on its way: L2 knows better now.
        if !matches!(found, Asked::Entry(_, Verdict::Unverified, _)) {
            break;
        }
    }
    let cached = match found {
        Asked::Entry(entry, Verdict::Fresh, source) => {
            let counter = if source == Source::L1 {
                &inner.counters.l1_hits
            } else {
                &inner.counters.l2_hits
            };
            counter.add();
            return Ok(Some(Cached::new(entry, inner.now(), source, false)));
        }
        Asked::Entry(entry, verdict, source) => stale(inner, &call, entry, verdict, source),
        Asked::Nothing => None,
        Asked::NoAnswer => local.and_then(|entry| stale(inner, &call, entry, verdict, Source::L1)),
    };
    if cached.is_none() {
        inner.counters.misses.add();
    }
    Ok(cached)
}

/// What L2 said.
enum Asked<T> {
    /// A value, judged.
    Entry(Arc<Entry<T>>, Verdict, Source),
    /// There is none.
    Nothing,
    /// L2 did not answer, or there is no L2.
    NoAnswer,
}

async fn ask<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    l2: &Access,
    call: &Call,
    local: Option<&Arc<Entry<T>>>,
) -> Result<Asked<T>, Error> {
    let options = &call.options;
    let fallback = options.allow_stale && local.is_some();
    let limit = if fallback { options.l2_soft_timeout } else { options.l2_hard_timeout };
    if l2.is_open() || !synced(inner, limit).await {
        return Ok(Asked::NoAnswer);
    }
    let fence = Fence::begin(inner, call.hash, None, || ());
    let stamp = inner.node.stamp(inner.now());
    let found = match l2.on(&call.key, limit, |store, key| store.read(key, None)).await {
        Ok(read) => read.found,
        Err(error) => {
            inner.counters.l2_errors.add();
            tracing::debug!(%error, "L2 read failed; answering from L1");
            return Ok(Asked::NoAnswer);
        }
    };
    let Some(found) = found else { return Ok(Asked::Nothing) };
    settle(inner, call, fence, &found, stamp, local)
}

/// Decodes, judges and, if nothing was heard meanwhile, keeps.
fn settle<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    fence: Fence<'_, C>,
    found: &Found,
    stamp: Stamp,
    local: Option<&Arc<Entry<T>>>,
) -> Result<Asked<T>, Error> {
    let entry = match decode(inner, call, found, stamp, local) {
        ReadInto::Entry(entry) => entry,
        ReadInto::OtherType(_) => {
            return Err(inner.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        ReadInto::Unusable(_) => return Ok(Asked::Nothing),
    };
    let same = local.is_some_and(|local| Arc::ptr_eq(local, &entry));
    let verdict = fence.end(|heard| {
        let verdict = judge_record(inner, &call.key, &entry);
        let allowed = heard.allows(entry.meta.version);
        if allowed && !same && !matches!(verdict, Verdict::Hidden(_)) {
            inner.l1.insert(call.hash, Arc::clone(&entry) as Held);
        }
        if allowed || verdict != Verdict::Fresh { verdict } else { Verdict::Unverified }
    });
    Ok(Asked::Entry(entry, verdict, if same { Source::L1 } else { Source::L2 }))
}

/// A value that is not fresh, if it may be answered. What was overtaken while it was read may: the
/// caller came before.
fn stale<T, C>(
    inner: &Inner<C>,
    call: &Call,
    entry: Arc<Entry<T>>,
    verdict: Verdict,
    source: Source,
) -> Option<Cached<T>> {
    let allowed = match verdict {
        Verdict::Hidden(_) => false,
        Verdict::Stale(_) | Verdict::Unverified => call.options.allow_stale,
        Verdict::Fresh => true,
    };
    allowed.then(|| {
        inner.counters.stale.add();
        Cached::new(entry, inner.now(), source, true)
    })
}

fn holds_other_type<T: Value, C>(inner: &Inner<C>, call: &Call) -> bool {
    inner.l1.get(call.hash, &call.key).is_some_and(|held| {
        let visible = !matches!(inner.node.judge(held.meta(), inner.now()), Verdict::Hidden(_));
        visible && typed::<T>(held).is_none()
    })
}
