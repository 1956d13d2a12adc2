//! Plain reads: they run no factory and take no load lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::Call;
use super::decode::{Foreign, ReadInto, decode};
use super::judge::{Asked, may_ask, synced};
use super::lookup::{Local, answer, lookup};
use super::probe::REREADS;
use super::replica;
use super::verify::{check, check_many, is_caught_up, may_serve_unverified, unverified};
use crate::background::ensure_runtime_runs;
use crate::background::sweep::{self, drop_dead};
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::events::MissReason;
use crate::flight::checks::Checked;
use crate::l2::Found;
use crate::l2::access::Access;
use crate::node::{Coded, Fence, Node};
use crate::protocol::validity::Verdict;
use crate::read::catch_up::{AskLedger, beside};

/// How many records one multi-read asks for.
pub(super) const PAGE: usize = 1000;

/// Reads a key from L1 or L2. Returns a stale value only if the call allows it.
pub(crate) async fn get<T: Value>(
    node: &Coded<T>,
    call: &Call,
) -> Result<Option<Cached<T>>, Error> {
    ensure_runtime_runs(node).await;
    sweep::ensure(node);
    get_since(node, call, Instant::now()).await
}

/// Like [`get`], but the limit for L2 counts from `asked`.
pub(super) async fn get_since<T: Value>(
    node: &Coded<T>,
    call: &Call,
    asked: Instant,
) -> Result<Option<Cached<T>>, Error> {
    let begun = match begin(node, call, asked)? {
        Start::Answer(cached) => return Ok(Some(cached)),
        Start::Ask(begun) => begun,
    };
    if let Some(erased) = begun.unverified(node, call)
        && let Some(shown) = begun.shown(check(node, call, erased, begun.left(call)).await)
    {
        return begun.end(node, call, shown);
    }
    if begun.asks
        && let Some(entry) = replica::get(node, call, begun.local.as_ref(), begun.left(call)).await
    {
        return begun.end(node, call, Shown::Entry(entry, Verdict::Fresh, Source::L2));
    }
    let mut found = Shown::NoAnswer;
    for _ in 0..=REREADS {
        let Some(l2) = node.records().filter(|_| begun.asks) else { break };
        found = ask(node, l2, call, &begun).await?;
        // A resync or an invalidation overtook the read: ask L2 again.
        if !matches!(found, Shown::Entry(_, Verdict::Unverified, _)) {
            break;
        }
    }
    begun.end(node, call, found)
}

/// Like [`get`] for many keys.
///
/// It verifies all unverified copies in one request and reads the missing keys in pages, both at
/// the same time. A page has the same limit as one call.
pub(crate) async fn get_many<T: Value>(
    node: &Coded<T>,
    calls: &[Call],
) -> Result<Vec<Option<Cached<T>>>, Error> {
    ensure_runtime_runs(node).await;
    sweep::ensure(node);
    let came = Instant::now();
    let mut answers: Vec<Option<Cached<T>>> = Vec::with_capacity(calls.len());
    let mut asking = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        answers.push(match begin(node, call, came)? {
            Start::Answer(cached) => Some(cached),
            Start::Ask(begun) if begun.asks && node.records().is_some() => {
                asking.push((at, begun));
                None
            }
            Start::Ask(begun) => begun.end(node, call, Shown::NoAnswer)?,
        });
    }
    let mut is_first = true;
    while !asking.is_empty() {
        let rest = asking.split_off(asking.len().min(PAGE));
        if !std::mem::take(&mut is_first) {
            asking.iter_mut().for_each(|(_, begun)| begun.asked = Instant::now());
        }
        let kind = |(at, begun): &(usize, Begun<T>)| {
            let call: &Call = &calls[*at];
            (begun.unverified(node, call).is_some(), call.options.strict, begun.limit(call))
        };
        let pages = alike(asking, kind).map(|group| get_alike(node, calls, group));
        let pages = try_join_all(pages).await?.into_iter().flatten();
        pages.for_each(|(at, answer)| answers[at] = answer);
        asking = rest;
    }
    Ok(answers)
}

/// What the keys of one request have in common: verification state, strictness and limit.
///
/// So no key gets less time than its own call allows, or waits for a ledger that only others need.
pub(super) type Kind = (bool, bool, Duration);

/// Groups the keys that one request may serve.
pub(super) fn alike<K>(asking: Vec<K>, kind: impl Fn(&K) -> Kind) -> impl Iterator<Item = Vec<K>> {
    let mut alike = BTreeMap::<_, Vec<_>>::new();
    for key in asking {
        alike.entry(kind(&key)).or_default().push(key);
    }
    alike.into_values()
}

/// Verifies the unverified copies of a group in one request, then reads the other keys in another.
async fn get_alike<T: Value>(
    node: &Coded<T>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    let (mut page, mut other) = (Vec::new(), Vec::new());
    let of = |(at, begun): &(usize, Begun<T>)| begun.unverified(node, &calls[*at]);
    let erased: Vec<_> = asking.iter().map(of).collect();
    let to_verify: Vec<_> = erased.iter().flatten().cloned().collect();
    let (left, strict) = shared(calls, &asking);
    let mut checked = check_many(node, &to_verify, left, strict).await.into_iter();
    for ((at, begun), erased) in asking.into_iter().zip(erased) {
        // A copy that another call verified meanwhile is read once more.
        let checked = erased.and_then(|_| checked.next()).unwrap_or(Checked::Other);
        match begun.shown(checked) {
            Some(shown) => page.push((at, begun.end(node, &calls[at], shown)?)),
            None => other.push((at, begun)),
        }
    }
    page.extend(get_page(node, calls, other).await?);
    Ok(page)
}

/// The remaining time of a group, and whether it is strict.
fn shared<T: Value>(calls: &[Call], alike: &[(usize, Begun<T>)]) -> (Duration, bool) {
    alike.first().map_or_else(Default::default, |(at, begun)| {
        (begun.left(&calls[*at]), calls[*at].options.strict)
    })
}

/// The answers of a page, each with its index.
type Page<T> = Vec<(usize, Option<Cached<T>>)>;

async fn get_page<T: Value>(
    node: &Coded<T>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    if asking.is_empty() {
        return Ok(Vec::new());
    }
    let (left, strict) = shared(calls, &asking);
    let mut reads = None;
    let fences = asking.iter().map(|(at, _)| Fence::begin(node, calls[*at].hash, None, || ()));
    let fences: Vec<_> = fences.collect();
    let asked: Vec<_> = asking.iter().map(|(at, _)| Asked::now(node, &calls[*at].key)).collect();
    if let Some(l2) =
        node.records().filter(|l2| asking.iter().any(|(at, _)| !l2.is_open(&calls[*at].key)))
        && synced(node, left).await
        && let left = shared(calls, &asking).0
        && !left.is_zero()
    {
        let asks = asking.iter().map(|(at, _)| (&*calls[*at].key, None));
        let read = l2.read_many(asks, left);
        let (read, mark) = beside(node, l2, AskLedger::own_if(strict), left, read).await;
        let answered = read.iter().any(Result::is_ok);
        let left = shared(calls, &asking).0;
        reads = (answered && is_caught_up(node, mark, left).await).then_some(read);
    }
    let Some(reads) = reads else {
        drop(fences);
        // One key alone may have caused the failure: read each key on its own.
        return get_each(node, calls, asking).await;
    };
    let (mut page, mut again) = (Vec::with_capacity(asking.len()), Vec::new());
    for ((((at, begun), fence), asked), read) in
        asking.into_iter().zip(fences).zip(asked).zip(reads)
    {
        let (call, local) = (&calls[at], begun.local.as_ref());
        let Ok(read) = read else {
            // Its server did not answer, or only this key fails: read it on its own.
            drop(fence);
            again.push((at, begun));
            continue;
        };
        let found = match read.found {
            Some(found) => settle(node, call, fence, &found, asked, local)?,
            None => Shown::Nothing(None),
        };
        match found {
            Shown::Entry(_, Verdict::Unverified, _) => again.push((at, begun)),
            found => page.push((at, begun.end(node, call, found)?)),
        }
    }
    page.extend(get_each(node, calls, again).await?);
    Ok(page)
}

/// Reads each key on its own, all concurrently, with the rest of each call's limit.
async fn get_each<T: Value>(
    node: &Coded<T>,
    calls: &[Call],
    asking: Vec<(usize, Begun<T>)>,
) -> Result<Page<T>, Error> {
    let each = asking.into_iter().map(|(at, begun)| async move {
        Ok((at, get_since(node, &calls[at], begun.asked).await?))
    });
    join_all(each).await.into_iter().collect()
}

/// The result of a read's L1 lookup.
enum Start<T> {
    /// L1 answers the read.
    Answer(Cached<T>),
    /// The read has to ask L2.
    Ask(Begun<T>),
}

/// A read that L1 could not answer.
struct Begun<T> {
    /// When the read first asked L2: one limit from here covers all its requests.
    asked: Instant,
    local: Option<Arc<Entry<T>>>,
    verdict: Verdict,
    asks: bool,
    /// Why L1 could not answer.
    reason: MissReason,
}

fn begin<T: Value>(node: &Coded<T>, call: &Call, asked: Instant) -> Result<Start<T>, Error> {
    node.check_open(Some(&call.key))?;
    let options = &call.options;
    options.validate(&node.place(Some(&call.key)))?;
    let mut reason = MissReason::Absent;
    let (local, verdict) = match lookup::<T>(node, call) {
        Local::Fresh(entry, now) => return Ok(Start::Answer(answer(node, entry, now))),
        Local::Throttled(entry, _) => (Some(entry), Verdict::Unverified),
        Local::Candidate(entry, verdict) => {
            reason = MissReason::of(verdict);
            (Some(entry), verdict)
        }
        Local::Nothing(_) if holds_other_type::<T>(node, call) => {
            return Err(node.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        Local::Nothing(why) => {
            reason = why;
            drop_dead(node, call.hash);
            (None, Verdict::Fresh)
        }
    };
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let asks = node.enabled && !options.skip_l2_read && !when_stale;
    Ok(Start::Ask(Begun { asked, local, verdict, asks, reason }))
}

impl<T: Value> Begun<T> {
    /// The limit for all requests to L2 together; it is shorter if there is a fallback.
    fn limit(&self, call: &Call) -> Duration {
        let fallback = call.options.allow_stale && self.local.is_some();
        if fallback { call.options.l2_soft_timeout } else { call.options.l2_hard_timeout }
    }

    /// The rest of that limit.
    fn left(&self, call: &Call) -> Duration {
        self.limit(call).saturating_sub(self.asked.elapsed())
    }

    /// The L1 copy, if a check of its record's head is enough to verify it.
    fn unverified(&self, node: &Node, call: &Call) -> Option<ErasedEntry> {
        unverified(node, call, self.local.as_ref().filter(|_| self.asks))
    }

    /// Converts the result of that check; `None` if the record must be read.
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

    /// Builds the answer from what L2 returned.
    fn end(self, node: &Node, call: &Call, found: Shown<T>) -> Result<Option<Cached<T>>, Error> {
        let unreachable = self.asks && node.records().is_some();
        let mut reason = self.reason;
        let cached = match found {
            Shown::Entry(entry, Verdict::Fresh, source) => {
                let now = node.now();
                node.fresh_hit(&entry.meta, source, now);
                return Ok(Some(Cached::new(entry, now, source, false)));
            }
            Shown::Entry(entry, verdict, source) => {
                reason = MissReason::of(verdict);
                stale(node, call, entry, verdict, source)
            }
            Shown::Nothing(why) => {
                reason = why.unwrap_or(reason);
                None
            }
            Shown::NoAnswer if unreachable && call.options.require_l2 => {
                return Err(node.l2_required(&call.key));
            }
            Shown::NoAnswer => {
                reason = if unreachable { MissReason::Unreachable } else { reason };
                let on = |e: &Arc<Entry<T>>| self.asks && may_serve_unverified(node, call, e);
                match self.local {
                    Some(entry) if on(&entry) => Some(serve_unverified(node, call, entry)),
                    local => local.and_then(|e| stale(node, call, e, self.verdict, Source::L1)),
                }
            }
        };
        if cached.is_none() {
            node.miss(&call.key, reason);
        }
        Ok(cached)
    }
}

/// What L2 returned for a plain read.
enum Shown<T> {
    /// A value with its verdict.
    Entry(Arc<Entry<T>>, Verdict, Source),
    /// L2 has no value, or none that this node can use.
    Nothing(Option<MissReason>),
    /// L2 did not answer, or there is no L2.
    NoAnswer,
}

async fn ask<T: Value>(
    node: &Coded<T>,
    l2: &Access,
    call: &Call,
    begun: &Begun<T>,
) -> Result<Shown<T>, Error> {
    let may_ask = may_ask(node, l2, &call.key, begun.left(call)).await;
    let limit = begun.left(call);
    if !may_ask || limit.is_zero() {
        return Ok(Shown::NoAnswer);
    }
    let fence = Fence::begin(node, call.hash, None, || ());
    let asked = Asked::now(node, &call.key);
    let read = l2.read(&call.key, None, limit);
    let (read, mark) = beside(node, l2, AskLedger::own_if(call.options.strict), limit, read).await;
    let found = match read {
        Ok(read) if read.found.is_some() && !is_caught_up(node, mark, begun.left(call)).await => {
            return Ok(Shown::NoAnswer);
        }
        Ok(read) => read.found,
        Err(error) => {
            tracing::debug!(%error, "L2 read failed; answering from L1");
            return Ok(Shown::NoAnswer);
        }
    };
    let Some(found) = found else { return Ok(Shown::Nothing(None)) };
    settle(node, call, fence, &found, asked, begun.local.as_ref())
}

/// Decodes and judges a record, and keeps it in L1 if no conflicting message was received.
fn settle<T: Value>(
    node: &Coded<T>,
    call: &Call,
    fence: Fence<'_>,
    found: &Found,
    asked: Asked,
    local: Option<&Arc<Entry<T>>>,
) -> Result<Shown<T>, Error> {
    let entry = match decode(node, call, found, asked.stamp, local) {
        ReadInto::Entry(entry) => entry,
        ReadInto::Foreign(Foreign { other_type: true, .. }) => {
            return Err(node.error(ErrorKind::TypeMismatch, &call.key, ""));
        }
        ReadInto::Foreign(_) | ReadInto::Unusable(_) => {
            return Ok(Shown::Nothing(Some(MissReason::Unusable)));
        }
    };
    let same = local.is_some_and(|local| Arc::ptr_eq(local, &entry));
    let verdict = fence.end(|received| {
        let verdict = asked.judge(node, &call.key, &entry.meta);
        let allowed = received.allows(entry.meta.version);
        if allowed && !same && !matches!(verdict, Verdict::Hidden(_)) {
            node.l1.insert(call.hash, Arc::clone(&entry) as ErasedEntry);
        }
        if allowed || verdict != Verdict::Fresh { verdict } else { Verdict::Unverified }
    });
    Ok(Shown::Entry(entry, verdict, if same { Source::L1 } else { Source::L2 }))
}

/// A value that is not fresh, if the call may get it.
///
/// A fresh value that an invalidation overtook is allowed: the call began before the invalidation.
fn stale<T>(
    node: &Node,
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
        node.stale_hit(&call.key, source);
        Cached::new(entry, node.now(), source, true)
    })
}

/// An unverified copy, because L2 does not answer and the coherence TTL still covers the copy.
fn serve_unverified<T>(node: &Node, call: &Call, entry: Arc<Entry<T>>) -> Cached<T> {
    node.stale_hit(&call.key, Source::L1);
    Cached::new(entry, node.now(), Source::L1, !sabotaged!(UnverifiedIsFresh))
}

fn holds_other_type<T: Value>(node: &Node, call: &Call) -> bool {
    node.l1.get(call.hash, &call.key).is_some_and(|erased| {
        let visible =
            !matches!(node.coherence.judge(erased.meta(), node.now()), Verdict::Hidden(_));
        visible && typed::<T>(erased).is_none()
    })
}
