//! Asking L2: a fresh record, a lease to load, or the news that somebody else is loading.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::decode::{ReadInto, decode};
use super::lookup::is_known;
use super::replica;
use super::verify::{Checked, doubted, look_at};
use super::{Call, Local, lookup};
use crate::cache::Inner;
use crate::entry::{Entry, Held, Meta, Source, Stamp, Value};
use crate::events::MissReason;
use crate::fail_safe::may_stand_in;
use crate::flight::Flight;
use crate::l2::access::Access;
use crate::l2::record::head;
use crate::l2::{Codec, Read};
use crate::protocol::Version;
use crate::protocol::ledger::Strength;
use crate::protocol::record::{Head, Lease, LeaseAsk};
use crate::protocol::validity::{Verdict, Why};

/// What is to be done about a miss.
#[derive(Debug)]
pub(crate) enum Probe<T> {
    /// Answer with this.
    Hit(Arc<Entry<T>>, Source),
    /// Answer with this stale value: another node is loading.
    Stand(Arc<Entry<T>>),
    /// Run the factory; this is what it replaces.
    Load(Base, Option<Arc<Entry<T>>>),
    /// Another node is loading, and this probe does not wait.
    Held,
}

/// What a fill may overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// There is no L2, or the call leaves it as it is: nothing to overwrite.
    Alone,
    /// L2 does not answer, or cannot hold a lease: the result stays here, for X at most.
    Dark,
    /// Exactly this version, and this lease is ours to give back.
    Over { expected: Version, lease: Option<Version> },
}

impl Base {
    /// Whether what is loaded goes to L2.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Over { .. })
    }
}

/// How often a read is repeated because something came into doubt while it was under way.
pub(super) const REREADS: u32 = 3;

/// The longest wait for another node's load: more would not fit into a moment.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// An entry with what the node thinks of it.
type Judged<T> = (Arc<Entry<T>>, Verdict);

/// What a READ showed.
struct Seen<T> {
    judged: Option<Judged<T>>,
    /// The version a fill would replace.
    version: Option<Version>,
    lease: Lease,
}

/// One probe: the call, its flight, and what L1 had.
pub(super) struct Prober<'a, T, C> {
    inner: &'a Inner<C>,
    call: &'a Call,
    flight: &'a Flight,
    local: Option<Arc<Entry<T>>>,
    limit: Duration,
    /// What L2 holds is of no use to the call.
    ignore: bool,
    /// The id of the lease it asks for.
    id: Version,
}

/// What L1 says of a miss.
pub(super) enum Prepared<'a, T, C> {
    /// There is nothing to ask L2.
    Settled(Probe<T>),
    /// L2 is to be asked.
    Ask(Prober<'a, T, C>),
}

/// A READ that was sent, with what the node knew before.
pub(super) type Sent = (Asked, Read);

/// What was known of a key when L2 was asked for its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) stamp: Stamp,
    /// What waited for L2 then. It counts for what comes back, though L2 may have heard of it since.
    waiting: Option<Strength>,
}

impl Asked {
    pub(super) fn now<C>(inner: &Inner<C>, key: &str) -> Self {
        Self { waiting: inner.recovery.strength(key), stamp: inner.node.stamp(inner.now()) }
    }

    /// Judges the record that came back.
    pub(super) fn judge<C>(self, inner: &Inner<C>, key: &str, meta: &Meta) -> Verdict {
        let waited = self.waiting.filter(|_| !sabotaged!(ReadForgetsWaiting));
        judge_waiting(inner, waited.max(inner.recovery.strength(key)), meta)
    }
}

/// Looks at L1 once more (another flight may have landed), then at L2.
pub(crate) async fn probe<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    flight: &Flight,
) -> Probe<T> {
    match prepare(inner, call, flight).await {
        Prepared::Settled(probe) => probe,
        Prepared::Ask(prober) => match prober.doubted() {
            Some(held) => {
                let checked = look_at(inner, held, prober.limit).await;
                match prober.confirmed(checked) {
                    Some(probe) => probe,
                    None => prober.ask(None, true).await,
                }
            }
            None => prober.ask(None, true).await,
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
        Local::Throttled(entry, _) => return settled(Probe::Stand(entry)),
        Local::Nothing(why) => {
            flight.because(why);
            (None, Verdict::Fresh)
        }
        Local::Candidate(entry, verdict) => {
            flight.because(MissReason::of(verdict));
            (Some(entry), verdict)
        }
    };
    let Some(l2) = &inner.l2 else { return settled(Probe::Load(Base::Alone, local)) };
    let usable = |e: &Arc<Entry<T>>| may_stand_in(&e.meta, verdict, options, inner.now());
    let has_fallback = local.as_ref().is_some_and(usable);
    let limit = if has_fallback { options.l2_soft_timeout } else { options.l2_hard_timeout };
    if l2.is_open() || !synced(inner, limit).await {
        return settled(Probe::Load(Base::Dark, local));
    }
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let ignore = options.skip_l2_read || when_stale;
    if !l2.holds_records() || (ignore && options.skip_l2_write) {
        return settled(Probe::Load(Base::Alone, local.filter(|entry| is_known(inner, entry))));
    }
    let id = inner.entropy.version();
    Prepared::Ask(Prober { inner, call, flight, local, limit, ignore, id })
}

/// Waits until records can be judged: the first `SYNC`, or the end of a doubt about the ledger.
pub(crate) async fn synced<C: Sync>(inner: &Inner<C>, limit: Duration) -> bool {
    if inner.node.is_synced() {
        return true;
    }
    let mut link = inner.link.reader();
    let failures = link.read().failures;
    inner.node.sync_wanted.notify_one();
    // A poll that fails is an answer too: nobody waits for the next.
    let settled = link.wait_for(|l| inner.node.is_synced() || l.failures != failures);
    let _ = timeout(limit, settled).await;
    inner.node.is_synced()
}

impl<T: Value, C: Codec<T>> Prober<'_, T, C> {
    /// What to ask for; `None` for a call that is not to leave anything in L2.
    pub(super) fn first_ask(&self) -> Option<LeaseAsk> {
        let ttl_ms = crate::clock::millis(self.inner.settings.lease);
        let ask = LeaseAsk { id: self.id, ttl_ms, replace: None, hidden: self.call.refresh };
        (!self.call.options.skip_l2_write).then_some(ask)
    }

    /// The copy, if a look at the head of its record is enough to make it the answer.
    pub(super) fn doubted(&self) -> Option<Held> {
        let asks = !self.ignore && self.call.refresh.is_none();
        doubted(self.inner, self.call, self.local.as_ref().filter(|_| asks))
    }

    /// What the look comes to; `None` if the record is to be read.
    pub(super) fn confirmed(&self, checked: Checked) -> Option<Probe<T>> {
        match (checked, &self.local) {
            (Checked::Same, Some(entry)) => Some(Probe::Hit(Arc::clone(entry), Source::L1)),
            (Checked::Failed, local) => Some(Probe::Load(Base::Dark, local.clone())),
            (Checked::Same | Checked::Other, _) => None,
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.call.key
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Reads until there is a value, a lease, or a reason to do without. `sent` is a first READ that
    /// was made already; without patience, nobody else's load is waited for.
    pub(super) async fn ask(&self, sent: Option<Sent>, patient: bool) -> Probe<T> {
        match &self.inner.l2 {
            Some(l2) => self.ask_on(l2, sent, patient).await,
            None => None,
        }
        .unwrap_or_else(|| Probe::Load(Base::Dark, self.local.clone()))
    }

    /// `None` if L2 failed.
    async fn ask_on(&self, l2: &Access, sent: Option<Sent>, patient: bool) -> Option<Probe<T>> {
        if sent.is_none()
            && !self.ignore
            && let Some((entry, _)) =
                replica::read(self.inner, self.call, self.local.as_ref(), self.limit).await
        {
            return Some(self.hit(entry));
        }
        let (id, first) = (self.id, self.first_ask());
        let (leasing, mut sent) = (first.is_some(), sent);
        let ttl_ms = crate::clock::millis(self.inner.settings.lease);
        let mut ask = LeaseAsk { id, ttl_ms, replace: None, hidden: self.call.refresh };
        let (mut patience, mut waited_for) = (Instant::now(), None);
        let mut pause = Duration::from_millis(20);
        loop {
            let asked = leasing.then_some(ask);
            let Seen { judged, version, lease } = self.read(l2, asked, sent.take()).await?;
            let known = match judged {
                Some((entry, Verdict::Fresh | Verdict::Unverified)) => {
                    if self.call.refresh != Some(entry.meta.version) {
                        return Some(self.hit(entry));
                    }
                    if let Lease::HeldBy(_) = lease {
                        // Another node refreshes it, and will say so.
                        entry.meta.rearm(self.inner.now() + self.inner.settings.lease);
                        return Some(self.hit(entry));
                    }
                    Some(entry)
                }
                Some((_, Verdict::Hidden(_))) if !sabotaged!(FailSafeIgnoresHard) => None,
                Some((entry, Verdict::Hidden(_) | Verdict::Stale(_))) => Some(entry),
                None => self.unopposed(version),
            };
            if !leasing {
                return Some(Probe::Load(Base::Alone, known));
            }
            if let Lease::HeldBy(by) = lease
                && waited_for.replace(by) != Some(by)
            {
                // Another holder gets the same time, or waiters would rob each other in turn.
                let wait = self.call.options.lease_wait.min(LONGEST_WAIT);
                patience = Instant::now() + wait;
            }
            match lease {
                Lease::Granted => {
                    let expected = version.unwrap_or(id);
                    return Some(Probe::Load(Base::Over { expected, lease: Some(id) }, known));
                }
                Lease::None if version.is_some() && ask.hidden != version => ask.hidden = version,
                Lease::None => return Some(Probe::Load(over(version), known)),
                Lease::HeldBy(by) if !self.call.options.lease || ask.replace == Some(by) => {
                    return Some(Probe::Load(over(version.or(Some(by))), known));
                }
                Lease::HeldBy(_) if !patient => return Some(Probe::Held),
                Lease::HeldBy(by) if Instant::now() >= patience => match self.usable(known) {
                    Some(entry) => return Some(Probe::Stand(entry)),
                    None => ask.replace = Some(by),
                },
                Lease::HeldBy(_) => self.wait_for_fill(patience, &mut pause).await,
            }
        }
    }

    /// What L1 has, if L2 says nothing against it: it was never there, or the record that the call makes
    /// no use of is the same. (An `expire` leaves the copy and gives the record another version.)
    fn unopposed(&self, version: Option<Version>) -> Option<Arc<Entry<T>>> {
        let session = self.inner.node.session();
        let same = |meta: &Meta| {
            let marked = meta.is_expired() && meta.facts().session == session;
            version.is_some_and(|version| version == meta.version || marked)
        };
        let local = self.local.clone()?;
        let unopposed = local.meta.own || (self.ignore && same(&local.meta));
        unopposed.then_some(local)
    }

    fn hit(&self, entry: Arc<Entry<T>>) -> Probe<T> {
        let same = self.local.as_ref().is_some_and(|local| Arc::ptr_eq(local, &entry));
        Probe::Hit(entry, if same { Source::L1 } else { Source::L2 })
    }

    /// Reads, and again if what was found came into doubt on its way; `None` if L2 failed.
    async fn read(
        &self,
        l2: &Access,
        ask: Option<LeaseAsk>,
        mut sent: Option<Sent>,
    ) -> Option<Seen<T>> {
        let inner = self.inner;
        for attempt in 0.. {
            let (asked, read) = match sent.take() {
                Some(sent) => sent,
                None => self.read_once(l2, ask).await?,
            };
            let (judged, version) = self.see(&read, asked);
            let doubted = matches!(judged, Some((_, Verdict::Unverified)));
            if !doubted || attempt == REREADS || !synced(inner, self.limit).await {
                return Some(Seen { judged, version, lease: read.lease });
            }
        }
        None
    }

    async fn read_once(&self, l2: &Access, ask: Option<LeaseAsk>) -> Option<Sent> {
        let (inner, key) = (self.inner, &self.call.key);
        let asked = Asked::now(inner, key);
        match l2.on(key, self.limit, |store, key| store.read(key, ask)).await {
            Ok(read) => Some((asked, read)),
            Err(error) => {
                inner.counters.l2_errors.add();
                tracing::debug!(%error, "L2 read failed; loading without it");
                None
            }
        }
    }

    /// Decodes and judges what a READ found, and says which version a fill would replace.
    fn see(&self, read: &Read, asked: Asked) -> (Option<Judged<T>>, Option<Version>) {
        let Some(found) = &read.found else { return (None, None) };
        let (inner, key) = (self.inner, &*self.call.key);
        if self.ignore {
            return (None, head(&found.bytes).map(Head::version));
        }
        match decode(inner, self.call, found, asked.stamp, self.local.as_ref()) {
            ReadInto::Unusable(version) => {
                self.flight.because(MissReason::Unusable);
                (None, version)
            }
            ReadInto::OtherType(version) => {
                self.flight.because(MissReason::Unusable);
                (None, Some(version))
            }
            ReadInto::Entry(entry) => {
                let verdict = asked.judge(inner, key, &entry.meta);
                self.flight.because(MissReason::of(verdict));
                inner.found(verdict);
                let version = entry.meta.version;
                (Some((entry, verdict)), Some(version))
            }
        }
    }

    /// What may be answered in place of another node's load.
    fn usable(&self, known: Option<Arc<Entry<T>>>) -> Option<Arc<Entry<T>>> {
        let (inner, options) = (self.inner, &self.call.options);
        known.filter(|entry| {
            let verdict = judge_record(inner, &self.call.key, &entry.meta);
            may_stand_in(&entry.meta, verdict, options, inner.now())
        })
    }

    /// Waits for the news that the key was filled, or a while with jitter, whichever is first.
    async fn wait_for_fill(&self, patience: Instant, pause: &mut Duration) {
        self.inner.counters.lease_waits.add();
        let jitter = self.inner.entropy.below(crate::clock::nanos(*pause));
        let nap = (*pause + Duration::from_nanos(jitter))
            .min(patience.saturating_duration_since(Instant::now()));
        *pause = (*pause * 2).min(Duration::from_millis(500));
        tokio::select! {
            biased;
            () = self.flight.news.notified() => {}
            () = sleep(nap) => {}
        }
    }
}

/// A fill without a lease: over what was seen, or nowhere.
fn over(version: Option<Version>) -> Base {
    version.map_or(Base::Dark, |expected| Base::Over { expected, lease: None })
}

/// Judges a record of L2: what waits in the recovery queue, or is on its way, counts as well.
pub(crate) fn judge_record<C>(inner: &Inner<C>, key: &str, meta: &Meta) -> Verdict {
    judge_waiting(inner, inner.recovery.strength(key), meta)
}

fn judge_waiting<C>(inner: &Inner<C>, waiting: Option<Strength>, meta: &Meta) -> Verdict {
    match waiting {
        Some(Strength::Hard) => return Verdict::Hidden(Why::Expired),
        Some(Strength::Soft) => meta.expire(),
        None => {}
    }
    inner.node.judge(meta, inner.now())
}
