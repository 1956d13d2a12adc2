//! Asking L2: a fresh record, a load lock to load, or the news that somebody else is loading.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lookup::is_known;
use super::replica;
use super::verify::{Checked, look_at, may_serve_unverified, unverified};
use super::{Call, Local, lookup};
use crate::cache::Inner;
use crate::coherence::Mark;
use crate::entry::{Entry, ErasedEntry, Meta, Source, Stamp, Value};
use crate::events::MissReason;
use crate::fail_safe::may_serve_stale;
use crate::flight::{Flight, Pause};
use crate::l2::access::Access;
use crate::l2::{Codec, Read};
use crate::protocol::Version;
use crate::protocol::ledger::Strength;
use crate::protocol::record::LoadLockRequest;
use crate::protocol::validity::{Verdict, Why};
use crate::sweep::drop_dead;

/// What is to be done about a miss.
#[derive(Debug)]
pub(crate) enum Probe<T> {
    /// Answer with this.
    Hit(Arc<Entry<T>>, Source),
    /// Answer with this stale value, instead of a load.
    ServeStale(Arc<Entry<T>>, Pause),
    /// Answer with this, which is in resync: L2 does not answer.
    GoOn(Arc<Entry<T>>),
    /// Run the factory; this is what it replaces.
    Load(FillMode, Option<Arc<Entry<T>>>),
    /// Another node is loading, and this probe does not wait.
    ErasedEntry,
}

/// What a fill may overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FillMode {
    /// There is no L2, or the call leaves it as it is: nothing to overwrite.
    LocalOnly,
    /// L2 does not answer, or cannot hold a load_lock: the result stays here, for X at most.
    Degraded,
    /// Exactly this version, and this load lock is ours to give back. Or a record that `displaces`: this
    /// node could not use it.
    Replace { expected: Version, load_lock: Option<Version>, displaces: bool },
    /// L2 holds this version, which others may be able to use and this node is not: what is loaded
    /// stays here, for as long as L2 holds that.
    Beside(Version),
}

impl FillMode {
    /// Whether what is loaded goes to L2.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Replace { .. })
    }
}

/// How often a read is repeated because something came into resync while it was under way.
pub(super) const REREADS: u32 = 3;

/// One probe: the call, its flight, and what L1 had.
pub(super) struct Prober<'a, T, C> {
    pub(super) inner: &'a Inner<C>,
    pub(super) call: &'a Call,
    pub(super) flight: &'a Flight,
    pub(super) local: Option<Arc<Entry<T>>>,
    pub(super) limit: Duration,
    /// What L2 holds is of no use to the call.
    pub(super) ignore: bool,
}

/// What L1 says of a miss.
pub(super) enum Prepared<'a, T, C> {
    /// There is nothing to ask L2.
    Settled(Probe<T>),
    /// L2 is to be asked.
    Ask(Prober<'a, T, C>),
}

/// A READ that was answered, with what the node knew before and how far the ledger was.
pub(super) type Sent = (Asked, Read, Mark);

/// What was known of a key when L2 was asked for its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) stamp: Stamp,
    /// What waited for L2 then. It counts for what comes back, though L2 may have received of it since.
    waiting: Option<Strength>,
}

impl Asked {
    pub(super) fn now<C>(inner: &Inner<C>, key: &str) -> Self {
        let mut stamp = inner.node.stamp(inner.now());
        // Until L2 has answered as a primary, its answers verify nothing in the coherence session.
        stamp.session -= u64::from(!inner.node.is_confirmed());
        if !sabotaged!(LedgerNeverOld) {
            stamp.known = stamp.at.min(inner.node.coherence.synced_at());
        }
        Self { waiting: inner.recovery.strength(key), stamp }
    }

    /// Judges the record that came back.
    pub(super) fn judge<C>(self, inner: &Inner<C>, key: &str, meta: &Meta) -> Verdict {
        let waited = self.waiting.filter(|_| !sabotaged!(ReadForgetsWaiting));
        judge_waiting(inner, waited.max(inner.recovery.strength(key)), meta)
    }
}

/// Looks at L1 once more (another flight may have completed), then at L2, until that answers or a caller does
/// not wait for it any longer.
pub(crate) async fn probe<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    flight: &Flight,
) -> Probe<T> {
    tokio::select! {
        biased;
        probe = ask(inner, call, flight) => probe,
        limit = flight.l2_given_up() => {
            note_given_up(inner, [&*call.key], limit);
            given_up(inner, call)
        }
    }
}

async fn ask<T: Value, C: Codec<T>>(inner: &Inner<C>, call: &Call, flight: &Flight) -> Probe<T> {
    match prepare(inner, call, flight).await {
        Prepared::Settled(probe) => probe,
        Prepared::Ask(prober) => match prober.unverified() {
            Some(erased) => {
                let checked = look_at(inner, erased, prober.limit, call.options.strict).await;
                match prober.confirmed(checked) {
                    Some(probe) => probe,
                    None => prober.ask(None, None, None, true).await,
                }
            }
            None => prober.ask(None, None, None, true).await,
        },
    }
}

pub(super) async fn prepare<'a, T: Value, C: Codec<T>>(
    inner: &'a Inner<C>,
    call: &'a Call,
    flight: &'a Flight,
) -> Prepared<'a, T, C> {
    let options = &call.options;
    let settled = Prepared::Settled;
    let (local, verdict) = match lookup::<T, C>(inner, call) {
        Local::Fresh(entry, _) if call.refresh != Some(entry.meta.version) => {
            return settled(Probe::Hit(entry, Source::L1));
        }
        Local::Fresh(entry, _) => (Some(entry), Verdict::Fresh),
        Local::Throttled(entry, _) => return settled(Probe::ServeStale(entry, Pause::Throttled)),
        Local::Nothing(why) => {
            flight.because(why);
            drop_dead(inner, call.hash);
            (None, Verdict::Fresh)
        }
        Local::Candidate(entry, verdict) => {
            flight.because(MissReason::of(verdict));
            (Some(entry), verdict)
        }
    };
    let Some(l2) = &inner.l2 else { return settled(Probe::Load(FillMode::LocalOnly, local)) };
    let usable = |e: &Arc<Entry<T>>| may_serve_stale(&e.meta, verdict, options, inner.now());
    let has_fallback = local.as_ref().is_some_and(usable);
    let limit = if has_fallback { options.l2_soft_timeout } else { options.l2_hard_timeout };
    flight.asks_l2(limit);
    if l2.is_open(&call.key) || !synced(inner, limit).await {
        return settled(without_l2(inner, call, local));
    }
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let ignore = options.skip_l2_read || when_stale;
    if !l2.holds_records() || (ignore && options.skip_l2_write) {
        return settled(Probe::Load(
            FillMode::LocalOnly,
            local.filter(|entry| is_known(inner, entry)),
        ));
    }
    Prepared::Ask(Prober { inner, call, flight, local, limit, ignore })
}

/// Waits until records can be read and judged.
pub(crate) async fn synced<C: Sync>(inner: &Inner<C>, limit: Duration) -> bool {
    settled(inner, limit, || can_judge(inner)).await
}

/// Whether records can be judged: the ledger is known, and not only of old, and L2 has answered since the subscription
/// was made.
pub(super) fn can_judge<C>(inner: &Inner<C>) -> bool {
    let node = &inner.node;
    node.is_synced() && node.is_confirmed() && node.is_current(inner.now())
}

/// Waits until the ledger is known: the first `SYNC`, or the end of a resync about it.
pub(crate) async fn ledger_known<C: Sync>(inner: &Inner<C>, limit: Duration) -> bool {
    settled(inner, limit, || inner.node.is_synced()).await
}

async fn settled<C: Sync>(
    inner: &Inner<C>,
    limit: Duration,
    is_settled: impl Fn() -> bool + Send + Sync,
) -> bool {
    if is_settled() {
        return true;
    }
    if inner.l2.as_ref().is_some_and(Access::is_ledger_open) {
        // The next poll finds out whether its server is back; nobody waits for that.
        return false;
    }
    let mut link = inner.link.reader();
    let failures = link.read().failures;
    inner.node.sync_wanted.notify_one();
    // A poll that fails is an answer too: nobody waits for the next.
    let answered = link.wait_for(|l| is_settled() || l.failures != failures);
    let _ = timeout(limit, answered).await;
    is_settled()
}

impl<T: Value, C: Codec<T>> Prober<'_, T, C> {
    /// What to ask for; `None` for a call that is not to leave anything in L2.
    pub(super) fn first_ask(&self, id: Version) -> Option<LoadLockRequest> {
        let ttl_ms = crate::clock::millis(self.inner.settings.load_lock_ttl);
        let ask = LoadLockRequest { id, ttl_ms, replace: None, hidden: self.hidden() };
        (!self.call.options.skip_l2_write).then_some(ask)
    }

    /// The fresh record to be loaded anew; none if the copy stands beside a record of others.
    pub(super) fn hidden(&self) -> Option<Version> {
        let beside = self.local.as_ref().is_some_and(|local| local.meta.beside);
        self.call.refresh.filter(|_| !beside)
    }

    /// The copy, if a look at the head of its record is enough to make it the answer.
    pub(super) fn unverified(&self) -> Option<ErasedEntry> {
        let asks = !self.ignore && self.call.refresh.is_none();
        unverified(self.inner, self.call, self.local.as_ref().filter(|_| asks))
    }

    /// What the look comes to; `None` if the record is to be read.
    pub(super) fn confirmed(&self, checked: Checked) -> Option<Probe<T>> {
        match (checked, &self.local) {
            (Checked::Same, Some(entry)) => Some(Probe::Hit(Arc::clone(entry), Source::L1)),
            (Checked::Failed, local) => Some(without_l2(self.inner, self.call, local.clone())),
            (Checked::Same | Checked::Other, _) => None,
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.call.key
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn is_strict(&self) -> bool {
        self.call.options.strict
    }

    /// Whether the ledger is asked how far it is: a strict read needs that, and a load may follow.
    pub(super) fn asks_ledger(&self, l2: &Access) -> bool {
        self.call.options.strict || l2.is_ledger_near(&self.call.key)
    }

    /// Reads until there is a value, a load lock, or a reason to do without. `asked` is the id of the load lock that
    /// a first READ has asked for, `sent` what was answered, `rest` what that READ has left of the limit. All are
    /// `None` if L2 has not been asked along with others. Without patience, nobody else's load is waited for.
    pub(super) async fn ask(
        &self,
        asked: Option<Version>,
        sent: Option<Sent>,
        rest: Option<Duration>,
        patient: bool,
    ) -> Probe<T> {
        let (left, came) = (rest.unwrap_or_else(|| self.asks_anew()), Instant::now());
        if sent.is_none()
            && !self.ignore
            && let Some((entry, _)) =
                replica::read(self.inner, self.call, self.local.as_ref(), left).await
        {
            return self.hit(entry);
        }
        let left = left.saturating_sub(came.elapsed());
        // A READ that had no answer may run late: it must not bring back a load lock that was voided.
        let answered = sent.is_some() || sabotaged!(LoadLockRequestedTwice);
        let id = asked.filter(|_| answered).unwrap_or_else(|| self.inner.entropy.version());
        match &self.inner.l2 {
            Some(l2) => self.ask_on(l2, id, (sent, left), patient).await,
            None => None,
        }
        .unwrap_or_else(|| Probe::Load(FillMode::Degraded, self.local.clone()))
    }

    /// What L2 says, unless a caller gives up on it first.
    pub(super) async fn until_given_up(
        &self,
        asking: impl Future<Output = Probe<T>> + Send,
    ) -> Probe<T> {
        tokio::select! {
            biased;
            probe = asking => probe,
            limit = self.flight.l2_given_up() => {
                note_given_up(self.inner, [self.key()], limit);
                self.given_up()
            }
        }
    }

    pub(super) fn given_up(&self) -> Probe<T> {
        given_up(self.inner, self.call)
    }

    /// L2 is asked for it, alone or along with others, and has this long. The patience of who waits counts
    /// from here.
    pub(super) fn asks_anew(&self) -> Duration {
        self.flight.asks_l2(self.limit);
        self.limit
    }

    pub(super) fn hit(&self, entry: Arc<Entry<T>>) -> Probe<T> {
        let same = self.local.as_ref().is_some_and(|local| Arc::ptr_eq(local, &entry));
        Probe::Hit(entry, if same { Source::L1 } else { Source::L2 })
    }
}

/// An operation of L2 on these keys was given up after so long.
pub(super) fn note_given_up<'k, C>(
    inner: &Inner<C>,
    keys: impl IntoIterator<Item = &'k str>,
    limit: Duration,
) {
    if let Some(l2) = &inner.l2 {
        l2.given_up(keys, limit);
    }
}

/// A caller does not wait for L2 any longer: what is not fresh by now is loaded. The caller that leads may
/// have more time, so it is not answered with anything stale.
pub(super) fn given_up<T: Value, C>(inner: &Inner<C>, call: &Call) -> Probe<T> {
    match lookup::<T, C>(inner, call) {
        Local::Fresh(entry, _) if call.refresh != Some(entry.meta.version) => {
            Probe::Hit(entry, Source::L1)
        }
        Local::Fresh(entry, _) | Local::Throttled(entry, _) | Local::Candidate(entry, _) => {
            Probe::Load(FillMode::Degraded, Some(entry))
        }
        Local::Nothing(_) => Probe::Load(FillMode::Degraded, None),
    }
}

/// L2 does not answer: what L1 has goes on for as long as it may, else it is loaded.
fn without_l2<T, C>(inner: &Inner<C>, call: &Call, local: Option<Arc<Entry<T>>>) -> Probe<T> {
    match local {
        Some(entry) if may_serve_unverified(inner, call, &entry) => Probe::GoOn(entry),
        local => Probe::Load(FillMode::Degraded, local),
    }
}

/// Judges a record of L2: what waits in the recovery queue, or is on its way, counts as well.
pub(crate) fn judge_record<C>(inner: &Inner<C>, key: &str, meta: &Meta) -> Verdict {
    judge_waiting(inner, inner.recovery.strength(key), meta)
}

fn judge_waiting<C>(inner: &Inner<C>, waiting: Option<Strength>, meta: &Meta) -> Verdict {
    match waiting.max(inner.recovery.own.strength(meta)) {
        Some(Strength::Hard) => return Verdict::Hidden(Why::Expired),
        Some(Strength::Soft) => meta.expire(),
        None => {}
    }
    inner.node.judge(meta, inner.now())
}
