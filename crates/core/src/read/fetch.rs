//! The loop of a miss: READ, and again until there is a value, a load lock, or nothing left to wait for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::decode::{ReadInto, decode};
use super::probe::{Asked, FillMode, Probe, Prober, REREADS, Sent, judge_record, synced};
use super::verify::is_caught_up;
use crate::coherence::{Mark, beside, catch_up};
use crate::entry::{Entry, ErasedEntry, Meta, Value};
use crate::events::MissReason;
use crate::fail_safe::may_serve_stale;
use crate::flight::Pause;
use crate::l2::access::Access;
use crate::l2::record::head;
use crate::l2::{Codec, Read};
use crate::protocol::Version;
use crate::protocol::record::{Head, LoadLock, LoadLockRequest};
use crate::protocol::validity::Verdict;

/// How often a record that is hidden, and another one each time, is asked for a load lock.
const HIDDEN_ROUNDS: u32 = 3;

/// The longest wait for another node's load: more would not fit into a moment.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// The longest time between two looks at a lock that another node holds.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// An entry with what the node thinks of it.
type Judged<T> = (Arc<Entry<T>>, Verdict);

/// What a READ showed.
struct Seen<T> {
    judged: Option<Judged<T>>,
    /// The version a fill would replace.
    version: Option<Version>,
    fit: Fit,
    load_lock: LoadLock,
    /// How far the ledger was then.
    mark: Mark,
}

/// Whether what L2 holds is of use to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It is, or it is of no use to anybody.
    Ours,
    /// To others. This node may replace it.
    Foreign,
    /// To others, and it stays.
    Left,
}

impl<T: Value, C: Codec<T>> Prober<'_, T, C> {
    /// `None` if L2 failed.
    pub(super) async fn ask_on(
        &self,
        l2: &Access,
        id: Version,
        (mut sent, left): (Option<Sent>, Duration),
        patient: bool,
    ) -> Option<Probe<T>> {
        let leasing = self.first_ask(id).is_some();
        let ttl_ms = crate::clock::millis(self.inner.settings.load_lock_ttl);
        let mut ask = LoadLockRequest { id, ttl_ms, replace: None, hidden: self.hidden() };
        let patience = self.call.came + self.call.load_lock_wait().min(LONGEST_WAIT);
        let (mut pause, mut hidden, mut rest) = (Duration::from_millis(40), 0, Some(left));
        loop {
            let asked = leasing.then_some(ask);
            let seen = self.read(l2, asked, sent.take(), rest.take()).await?;
            let Seen { judged, version, fit, load_lock, mark } = seen;
            let known = match self.found(l2, id, judged, version, load_lock).await {
                Ok(known) => known,
                Err(hit) => return Some(hit),
            };
            if !leasing {
                return Some(self.load(mark, FillMode::LocalOnly, known).await);
            }
            let displaces = fit != Fit::Ours;
            match (load_lock, version) {
                (LoadLock::Granted, _) => {
                    let (expected, load_lock) = (version.unwrap_or(id), Some(id));
                    let base = FillMode::Replace { expected, load_lock, displaces };
                    return Some(self.load(mark, base, known).await);
                }
                (LoadLock::None, Some(version)) if fit == Fit::Left => {
                    return Some(self.load(mark, FillMode::Beside(version), known).await);
                }
                // Of a record that is replaced each time, and hidden each time, nothing is waited for.
                (LoadLock::None, Some(_)) if ask.hidden != version && hidden < HIDDEN_ROUNDS => {
                    hidden += 1;
                    ask.hidden = version;
                }
                (LoadLock::None, _) => {
                    return Some(self.load(mark, over(version, displaces), known).await);
                }
                (LoadLock::HeldBy(by), _) if self.loads_too(ask.replace) => {
                    let base = over(version.or(Some(by)), displaces);
                    return Some(self.load(mark, base, known).await);
                }
                (LoadLock::HeldBy(_), _) if !patient => return Some(Probe::ErasedEntry),
                (LoadLock::HeldBy(by), _) if Instant::now() >= patience => match self.usable(known)
                {
                    Some(entry) => return Some(Probe::ServeStale(entry, Pause::Busy)),
                    None => ask.replace = Some(by),
                },
                (LoadLock::HeldBy(_), _) => self.wait_for_fill(known, patience, &mut pause).await,
            }
        }
    }

    /// What a load may fall back on; or the answer, if there is nothing to load.
    async fn found(
        &self,
        l2: &Access,
        id: Version,
        judged: Option<Judged<T>>,
        version: Option<Version>,
        load_lock: LoadLock,
    ) -> Result<Option<Arc<Entry<T>>>, Probe<T>> {
        match judged {
            Some((entry, Verdict::Fresh | Verdict::Unverified)) => {
                if self.call.refresh != Some(entry.meta.version) {
                    self.give_back(l2, id, load_lock).await;
                    return Err(self.hit(entry));
                }
                if let LoadLock::HeldBy(_) = load_lock {
                    // Another node refreshes it, and will say so.
                    entry.meta.rearm(self.inner.now() + self.inner.settings.load_lock_ttl);
                    return Err(self.hit(entry));
                }
                Ok(Some(entry))
            }
            Some((_, Verdict::Hidden(_))) if !sabotaged!(FailSafeIgnoresHard) => Ok(None),
            Some((entry, Verdict::Hidden(_) | Verdict::Stale(_))) => Ok(Some(entry)),
            None => Ok(self.unopposed(version)),
        }
    }

    /// Whether it loads though another node does: the call does not wait for that, a caller that has
    /// joined has waited long enough, or it was in vain to take the load lock over.
    fn loads_too(&self, replaced: Option<Version>) -> bool {
        !self.call.options.load_lock || replaced.is_some() || self.flight.is_hurried()
    }

    /// The lock, if there turns out to be nothing to load: what hid the value has been settled meanwhile, or
    /// the clocks differ. Best effort: it ends by itself.
    async fn give_back(&self, l2: &Access, id: Version, load_lock: LoadLock) {
        if load_lock == LoadLock::Granted && !sabotaged!(LoadLockKeptByHit) {
            let limit = self.limit;
            let _ = l2.on(&self.call.key, limit, |store, key| store.release(key, id)).await;
        }
    }

    /// What L1 has, if L2 says nothing against it: it was never there, or the record that the call makes
    /// no use of is the same. (An `expire` leaves the copy and gives the record another version.)
    fn unopposed(&self, version: Option<Version>) -> Option<Arc<Entry<T>>> {
        let session = self.inner.node.session();
        let same = |meta: &Meta| {
            let marked = meta.is_expired() && meta.state().session == session;
            version.is_some_and(|version| version == meta.version || marked)
        };
        let local = self.local.clone()?;
        let beside = local.meta.beside && version == Some(local.meta.version);
        let unopposed = local.meta.own || beside || (self.ignore && same(&local.meta));
        unopposed.then_some(local)
    }

    /// A load begins where the ledger was when L2 was asked: it must not be hidden by a removal that had
    /// returned by then. If the ledger does not answer, its stamp is older than it could be.
    async fn load(&self, mark: Mark, base: FillMode, known: Option<Arc<Entry<T>>>) -> Probe<T> {
        let inner = self.inner;
        if !sabotaged!(LoadStaysBehind) {
            self.flight.asks_l2(self.limit);
            catch_up(inner, mark, self.limit).await;
        }
        let hidden = |e: &Arc<Entry<T>>| {
            matches!(inner.node.judge(&e.meta, inner.now()), Verdict::Hidden(_))
        };
        Probe::Load(base, known.filter(|e| !hidden(e) || sabotaged!(FailSafeIgnoresHard)))
    }

    /// Reads, and again if what was found came into resync on its way; `None` if L2 failed.
    async fn read(
        &self,
        l2: &Access,
        ask: Option<LoadLockRequest>,
        mut sent: Option<Sent>,
        mut rest: Option<Duration>,
    ) -> Option<Seen<T>> {
        let inner = self.inner;
        for attempt in 0.. {
            let (asked, read, mark) = match sent.take() {
                Some(sent) => sent,
                None => self.read_once(l2, ask, rest).await?,
            };
            rest = None;
            if self.call.options.strict && !is_caught_up(inner, mark, self.limit).await {
                return None;
            }
            let (judged, version, fit) = self.see(&read, asked);
            let unverified = matches!(judged, Some((_, Verdict::Unverified)));
            if !unverified || attempt == REREADS || !synced(inner, self.limit).await {
                return Some(Seen { judged, version, fit, load_lock: read.load_lock, mark });
            }
        }
        None
    }

    /// `rest` is what is left of a limit that counts already; without, L2 is asked anew.
    async fn read_once(
        &self,
        l2: &Access,
        ask: Option<LoadLockRequest>,
        rest: Option<Duration>,
    ) -> Option<Sent> {
        let left = rest.unwrap_or_else(|| self.asks_anew());
        if left.is_zero() {
            return None;
        }
        let (inner, key) = (self.inner, &self.call.key);
        let asked = Asked::now(inner, key);
        let read = l2.on(key, left, |store, key| store.read(key, ask));
        let (read, mark) = beside(inner, l2, self.asks_ledger(l2), left, read).await;
        match read {
            Ok(read) => Some((asked, read, mark)),
            Err(error) => {
                tracing::debug!(%error, "L2 read failed; loading without it");
                None
            }
        }
    }

    /// Decodes and judges what a READ found, and says which version a fill would replace.
    fn see(&self, read: &Read, asked: Asked) -> (Option<Judged<T>>, Option<Version>, Fit) {
        let Some(found) = &read.found else { return (None, None, Fit::Ours) };
        let (inner, key) = (self.inner, &*self.call.key);
        if self.ignore {
            return (None, head(&found.bytes).map(Head::version), Fit::Ours);
        }
        match decode(inner, self.call, found, asked.stamp, self.local.as_ref()) {
            ReadInto::Unusable(version) => {
                self.flight.because(MissReason::Unusable);
                (None, version, Fit::Ours)
            }
            ReadInto::Foreign(foreign) => {
                self.flight.because(MissReason::Unusable);
                let fit = if foreign.leave { Fit::Left } else { Fit::Foreign };
                (None, Some(foreign.version), fit)
            }
            ReadInto::Entry(entry) => {
                let verdict = asked.judge(inner, key, &entry.meta);
                self.flight.because(MissReason::of(verdict));
                inner.found(verdict);
                let version = entry.meta.version;
                let fit = if entry.meta.beside { Fit::Left } else { Fit::Ours };
                (Some((entry, verdict)), Some(version), fit)
            }
        }
    }

    /// What may be answered in place of another node's load.
    fn usable(&self, known: Option<Arc<Entry<T>>>) -> Option<Arc<Entry<T>>> {
        let (inner, options) = (self.inner, &self.call.options);
        known.filter(|entry| {
            let verdict = judge_record(inner, &self.call.key, &entry.meta);
            may_serve_stale(&entry.meta, verdict, options, inner.now())
        })
    }

    /// Waits for the news that the key was filled, or a while with jitter, whichever is first.
    async fn wait_for_fill(
        &self,
        stale: Option<Arc<Entry<T>>>,
        patience: Instant,
        pause: &mut Duration,
    ) {
        self.inner.counters.load_lock_waits.add();
        self.flight.skips_l2();
        self.flight.waits(stale.map(|entry| entry as ErasedEntry));
        // A lock that is given back is not announced: whoever waits looks again this soon.
        let jitter = self.inner.entropy.below(crate::clock::nanos(*pause / 2));
        let nap = (*pause / 2 + Duration::from_nanos(jitter))
            .min(patience.saturating_duration_since(Instant::now()));
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            biased;
            () = self.flight.news.notified() => {}
            () = sleep(nap) => {}
        }
    }
}

/// A fill without a load_lock: over what was seen, or nowhere.
fn over(version: Option<Version>, displaces: bool) -> FillMode {
    version.map_or(FillMode::Degraded, |expected| FillMode::Replace {
        expected,
        load_lock: None,
        displaces,
    })
}
