//! Plain reads: they run no factory and leave no load lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::Call;
use super::decode::{Foreign, ReadInto, decode};
use super::lookup::{Local, answer, lookup};
use super::many::PAGE;
use super::probe::{Asked, REREADS, synced};
use super::replica;
use super::verify::{Checked, check, is_caught_up, look, may_serve_unverified, unverified};
use crate::cache::{Inner, attend};
use crate::coherence::beside;
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::events::MissReason;
use crate::flight::Fence;
use crate::l2::access::Access;
use crate::l2::{Codec, Found};
use crate::protocol::validity::Verdict;
use crate::sweep::{self, drop_dead};

/// Answers from L1 or L2, or not at all. Stale values only if the call allows them.
pub(crate) async fn get<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    call: &Call,
) -> Result<Option<Cached<T>>, Error> {
    attend(inner).await;
    sweep::ensure(inner);
    get_since(inner, call, Instant::now()).await
}

/// The same, if L2 has been asked since then: its limit counts from there.
pub(super) async fn get_since<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    call: &Call,
    asked: Instant,
) -> Result<Option<Cached<T>>, Error> {
    let begun = match begin(inner, call, asked)? {
        Start::Answer(cached) => return Ok(Some(cached)),
        Start::Ask(begun) => begun,
    };
    if let Some(erased) = begun.unverified(inner, call)
        && let Some(shown) = begun.shown(check(inner, call, erased, begun.left(call)).await)
    {
        return begun.end(inner, call, shown);
    }
    if begun.asks
        && let Some(entry) = replica::get(inner, call, begun.local.as_ref(), begun.left(call)).await
    {
        return begun.end(inner, call, Shown::Entry(entry, Verdict::Fresh, Source::L2));
    }
    let mut found = Shown::NoAnswer;
    for _ in 0..=REREADS {
        let Some(l2) = inner.records().filter(|_| begun.asks) else { break };
        found = ask(inner, l2, call, &begun).await?;
        // Doubted or overtaken on its way: L2 knows better now.
        if !matches!(found, Shown::Entry(_, Verdict::Unverified, _)) {
            break;
        }
    }
    begun.end(inner, call, found)
}

/// The same for many calls: one look at what is in resync, and at the same time one multi-read of a page
/// of what is not there. A page has as long as one call has.
pub(crate) async fn get_many<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    calls: &[Call],
) -> Result<Vec<Option<Cached<T>>>, Error> {
    attend(inner).await;
    sweep::ensure(inner);
    let came = Instant::now();
    let mut answers: Vec<Option<Cached<T>>> = Vec::with_capacity(calls.len());
    let mut asking = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        answers.push(match begin(inner, call, came)? {
            Start::Answer(cached) => Some(cached),
            Start::Ask(begun) if begun.asks && inner.records().is_some() => {
                asking.push((at, begun));
                None
            }
            Start::Ask(begun) => begun.end(inner, call, Shown::NoAnswer)?,
        });
    }
    let mut is_first = true;
    while !asking.is_empty() {
        let rest = asking.split_off(asking.len().min(PAGE));
        if !std::mem::take(&mut is_first) {
            asking.iter_mut().for_each(|(_, begun)| begun.asked = Instant::now());
        }
        let pages = alike(inner, calls, asking).map(|group| get_alike(inner, calls, group));
        let pages = try_join_all(pages).await?.into_iter().flatten();
        pages.for_each(|(at, answer)| answers[at] = answer);
        asking = rest;
    }
    Ok(answers)
}

/// What is asked for together: in resync or not, strictly or not, with the same limit. So no key waits for
/// less long than its own call says, or for a ledger that only others need.
fn alike<T: Value, C>(
    inner: &Inner<C>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> impl Iterator<Item = Vec<(usize, Begun<T>)>> {
    let mut alike = BTreeMap::<_, Vec<_>>::new();
    for (at, begun) in asking {
        let call = &calls[at];
        let unverified = begun.unverified(inner, call).is_some();
        let kind = (unverified, call.options.strict, begun.limit(call));
        alike.entry(kind).or_default().push((at, begun));
    }
    alike.into_values()
}

/// One look at copies that are in resync, and one multi-read of what needs a reading.
async fn get_alike<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    let (mut page, mut other) = (Vec::new(), Vec::new());
    let of = |(at, begun): &(usize, Begun<T>)| begun.unverified(inner, &calls[*at]);
    let erased: Vec<_> = asking.iter().map(of).collect();
    let looked: Vec<_> = erased.iter().flatten().cloned().collect();
    let (left, strict) = shared(calls, &asking);
    let mut checked = look(inner, &looked, left, strict).await.into_iter();
    for ((at, begun), erased) in asking.into_iter().zip(erased) {
        // What has been verified meanwhile is read once more.
        let checked = erased.and_then(|_| checked.next()).unwrap_or(Checked::Other);
        match begun.shown(checked) {
            Some(shown) => page.push((at, begun.end(inner, &calls[at], shown)?)),
            None => other.push((at, begun)),
        }
    }
    page.extend(get_page(inner, calls, other).await?);
    Ok(page)
}

/// How long L2 has left for what is alike, and whether it is asked strictly.
fn shared<T: Value>(calls: &[Call], alike: &[(usize, Begun<T>)]) -> (Duration, bool) {
    alike.first().map_or_else(Default::default, |(at, begun)| {
        (begun.left(&calls[*at]), calls[*at].options.strict)
    })
}

/// A page of answers, by their places.
type Page<T> = Vec<(usize, Option<Cached<T>>)>;

async fn get_page<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    if asking.is_empty() {
        return Ok(Vec::new());
    }
    let (left, strict) = shared(calls, &asking);
    let mut reads = None;
    let fences = asking.iter().map(|(at, _)| Fence::begin(inner, calls[*at].hash, None, || ()));
    let fences: Vec<_> = fences.collect();
    let asked: Vec<_> = asking.iter().map(|(at, _)| Asked::now(inner, &calls[*at].key)).collect();
    if let Some(l2) =
        inner.records().filter(|l2| asking.iter().any(|(at, _)| !l2.is_open(&calls[*at].key)))
        && synced(inner, left).await
        && let left = shared(calls, &asking).0
        && !left.is_zero()
    {
        let asks = asking.iter().map(|(at, _)| (&*calls[*at].key, None));
        let read = l2.read_many(asks, left);
        let (read, mark) = beside(inner, l2, strict, left, read).await;
        let answered = read.iter().any(Result::is_ok);
        let left = shared(calls, &asking).0;
        reads = (answered && is_caught_up(inner, mark, left).await).then_some(read);
    }
    let Some(reads) = reads else {
        drop(fences);
        // Perhaps because of one key alone: each finds out for itself.
        return get_each(inner, calls, asking).await;
    };
    let (mut page, mut again) = (Vec::with_capacity(asking.len()), Vec::new());
    for ((((at, begun), fence), asked), read) in
        asking.into_iter().zip(fences).zip(asked).zip(reads)
    {
        let (call, local) = (&calls[at], begun.local.as_ref());
        let Ok(read) = read else {
            // Its server has not answered, or it alone cannot be read: it finds out for itself.
            drop(fence);
            again.push((at, begun));
            continue;
        };
        let found = match read.found {
            Some(found) => settle(inner, call, fence, &found, asked, local)?,
            None => Shown::Nothing(None),
        };
        match found {
            Shown::Entry(_, Verdict::Unverified, _) => again.push((at, begun)),
            found => page.push((at, begun.end(inner, call, found)?)),
        }
    }
    page.extend(get_each(inner, calls, again).await?);
    Ok(page)
}

/// Some of the calls, each on its own, side by side, with what is left of its own limit.
async fn get_each<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    let each = asking.into_iter().map(|(at, begun)| async move {
        Ok((at, get_since(inner, &calls[at], begun.asked).await?))
    });
    join_all(each).await.into_iter().collect()
}

/// What L1 says of a read.
enum Start<T> {
    /// The answer.
    Answer(Cached<T>),
    /// L2 has to say.
    Ask(Begun<T>),
}

/// A read that L1 could not answer.
struct Begun<T> {
    /// Since when L2 has been asked for it: its limit counts from here, whatever L2 is asked.
    asked: Instant,
    local: Option<Arc<Entry<T>>>,
    verdict: Verdict,
    asks: bool,
    /// Why L1 could not answer.
    reason: MissReason,
}

fn begin<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    asked: Instant,
) -> Result<Start<T>, Error> {
    inner.check_open(Some(&call.key))?;
    let options = &call.options;
    options.validate(&inner.place(Some(&call.key)))?;
    let mut reason = MissReason::Absent;
    let (local, verdict) = match lookup::<T, C>(inner, call) {
        Local::Fresh(entry, now) => return Ok(Start::Answer(answer(inner, entry, now))),
        Local::Throttled(entry, _) => (Some(entry), Verdict::Unverified),
        Local::Candidate(entry, verdict) => {
            reason = MissReason::of(verdict);
            (Some(entry), verdict)
        }
        Local::Nothing(_) if holds_other_type::<T, C>(inner, call) => {
            return Err(inner.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        Local::Nothing(why) => {
            reason = why;
            drop_dead(inner, call.hash);
            (None, Verdict::Fresh)
        }
    };
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let asks = inner.enabled && !options.skip_l2_read && !when_stale;
    Ok(Start::Ask(Begun { asked, local, verdict, asks, reason }))
}

impl<T: Value> Begun<T> {
    /// How long L2 may take, in all: less, if there is something else to answer.
    fn limit(&self, call: &Call) -> Duration {
        let fallback = call.options.allow_stale && self.local.is_some();
        if fallback { call.options.l2_soft_timeout } else { call.options.l2_hard_timeout }
    }

    /// What is left of that.
    fn left(&self, call: &Call) -> Duration {
        self.limit(call).saturating_sub(self.asked.elapsed())
    }

    /// Its copy, if a look at the head of its record is enough to make it the answer.
    fn unverified<C>(&self, inner: &Inner<C>, call: &Call) -> Option<ErasedEntry> {
        unverified(inner, call, self.local.as_ref().filter(|_| self.asks))
    }

    /// What the look showed; `None` if the record is to be read.
    fn shown(&self, checked: Checked) -> Option<Shown<T>> {
        match checked {
            Checked::Same => {
                let entry = Arc::clone(self.local.as_ref()?);
                Some(Shown::Entry(entry, Verdict::Fresh, Source::L1))
            }
            Checked::Other => None,
            Checked::Failed => Some(Shown::NoAnswer),
        }
    }

    /// The answer, now that L2 has said what it has to say.
    fn end<C>(
        self,
        inner: &Inner<C>,
        call: &Call,
        found: Shown<T>,
    ) -> Result<Option<Cached<T>>, Error> {
        let unreachable = self.asks && inner.records().is_some();
        let mut reason = self.reason;
        let cached = match found {
            Shown::Entry(entry, Verdict::Fresh, source) => {
                let now = inner.now();
                inner.fresh_hit(&entry.meta, source, now);
                return Ok(Some(Cached::new(entry, now, source, false)));
            }
            Shown::Entry(entry, verdict, source) => {
                reason = MissReason::of(verdict);
                stale(inner, call, entry, verdict, source)
            }
            Shown::Nothing(why) => {
                reason = why.unwrap_or(reason);
                None
            }
            Shown::NoAnswer if unreachable && call.options.require_l2 => {
                return Err(inner.l2_required(&call.key));
            }
            Shown::NoAnswer => {
                reason = if unreachable { MissReason::Unreachable } else { reason };
                let on = |e: &Arc<Entry<T>>| self.asks && may_serve_unverified(inner, call, e);
                match self.local {
                    Some(entry) if on(&entry) => Some(going_on(inner, call, entry)),
                    local => local.and_then(|e| stale(inner, call, e, self.verdict, Source::L1)),
                }
            }
        };
        if cached.is_none() {
            inner.miss(&call.key, reason);
        }
        Ok(cached)
    }
}

/// What L2 said.
enum Shown<T> {
    /// A value, judged.
    Entry(Arc<Entry<T>>, Verdict, Source),
    /// There is none, or none that is of use.
    Nothing(Option<MissReason>),
    /// L2 did not answer, or there is no L2.
    NoAnswer,
}

async fn ask<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    l2: &Access,
    call: &Call,
    begun: &Begun<T>,
) -> Result<Shown<T>, Error> {
    let in_time = !l2.is_open(&call.key) && synced(inner, begun.left(call)).await;
    let limit = begun.left(call);
    if !in_time || limit.is_zero() {
        return Ok(Shown::NoAnswer);
    }
    let fence = Fence::begin(inner, call.hash, None, || ());
    let asked = Asked::now(inner, &call.key);
    let read = l2.on(&call.key, limit, |store, key| store.read(key, None));
    let (read, mark) = beside(inner, l2, call.options.strict, limit, read).await;
    let found = match read {
        Ok(read) if read.found.is_some() && !is_caught_up(inner, mark, begun.left(call)).await => {
            return Ok(Shown::NoAnswer);
        }
        Ok(read) => read.found,
        Err(error) => {
            tracing::debug!(%error, "L2 read failed; answering from L1");
            return Ok(Shown::NoAnswer);
        }
    };
    let Some(found) = found else { return Ok(Shown::Nothing(None)) };
    settle(inner, call, fence, &found, asked, begun.local.as_ref())
}

/// Decodes, judges and, if nothing was received meanwhile, keeps.
fn settle<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    fence: Fence<'_, C>,
    found: &Found,
    asked: Asked,
    local: Option<&Arc<Entry<T>>>,
) -> Result<Shown<T>, Error> {
    let entry = match decode(inner, call, found, asked.stamp, local) {
        ReadInto::Entry(entry) => entry,
        ReadInto::Foreign(Foreign { other_type: true, .. }) => {
            return Err(inner.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        ReadInto::Foreign(_) | ReadInto::Unusable(_) => {
            return Ok(Shown::Nothing(Some(MissReason::Unusable)));
        }
    };
    let same = local.is_some_and(|local| Arc::ptr_eq(local, &entry));
    let verdict = fence.end(|received| {
        let verdict = asked.judge(inner, &call.key, &entry.meta);
        let allowed = received.allows(entry.meta.version);
        if allowed && !same && !matches!(verdict, Verdict::Hidden(_)) {
            inner.l1.insert(call.hash, Arc::clone(&entry) as ErasedEntry);
        }
        if allowed || verdict != Verdict::Fresh { verdict } else { Verdict::Unverified }
    });
    Ok(Shown::Entry(entry, verdict, if same { Source::L1 } else { Source::L2 }))
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
        inner.stale_hit(&call.key, source);
        Cached::new(entry, inner.now(), source, true)
    })
}

/// What L2 does not answer about, for as long as it was to be trusted anyway.
fn going_on<T, C>(inner: &Inner<C>, call: &Call, entry: Arc<Entry<T>>) -> Cached<T> {
    inner.stale_hit(&call.key, Source::L1);
    Cached::new(entry, inner.now(), Source::L1, !sabotaged!(UnverifiedIsFresh))
}

fn holds_other_type<T: Value, C>(inner: &Inner<C>, call: &Call) -> bool {
    inner.l1.get(call.hash, &call.key).is_some_and(|erased| {
        let visible = !matches!(inner.node.judge(erased.meta(), inner.now()), Verdict::Hidden(_));
        visible && typed::<T>(erased).is_none()
    })
}
