//! The L2 loop of a miss: READ until it finds a value, gets the load lock, or stops waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::decode::{ReadInto, decode};
use super::judge::{Asked, judge_record, synced};
use super::probe::{FillMode, Probe, Prober, REREADS, Sent};
use super::verify::is_caught_up;
use crate::entry::{Entry, ErasedEntry, Meta, Value};
use crate::events::MissReason;
use crate::flight::StaleReason;
use crate::l2::Read;
use crate::l2::record::head;
use crate::protocol::Version;
use crate::protocol::record::{Head, LoadLock, LoadLockRequest};
use crate::protocol::validity::Verdict;
use crate::read::catch_up::{LedgerPosition, beside, catch_up};
use crate::read::stale::may_serve_stale;

/// How many times a miss requests the load lock again because a different hidden record appeared.
const HIDDEN_ROUNDS: u32 = 3;

/// The longest wait for another node's load: a longer one could overflow `Instant`.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// The longest time between two checks of a load lock that another node holds.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// An entry with its verdict.
type Judged<T> = (Arc<Entry<T>>, Verdict);

/// The judged reply of a READ.
struct Seen<T> {
    judged: Option<Judged<T>>,
    /// The version that a fill would replace.
    version: Option<Version>,
    fit: Fit,
    load_lock: LoadLock,
    /// The ledger's position at the READ.
    mark: LedgerPosition,
}

/// Whether this node can use, or may replace, the record in L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// This node can use it, or no node can.
    Ours,
    /// Only other nodes can use it; this node may replace it.
    Foreign,
    /// Only other nodes can use it; this node must leave it in place.
    Left,
}

impl<T: Value> Prober<'_, T> {
    /// Asks L2 until the miss is decided; `None` if L2 failed.
    pub(super) async fn ask_l2(
        &self,
        id: Version,
        (mut sent, left): (Option<Sent>, Duration),
        patient: bool,
    ) -> Option<Probe<T>> {
        let wants_lock = self.first_ask(id).is_some();
        let mut ask = self.node.load_lock_request(id, self.hidden());
        let patience = self.call.came + self.call.load_lock_wait().min(LONGEST_WAIT);
        let (mut pause, mut hidden, mut rest) = (Duration::from_millis(40), 0, Some(left));
        loop {
            let asked = wants_lock.then_some(ask);
            let seen = self.read(asked, sent.take(), rest.take()).await?;
            let Seen { judged, version, fit, load_lock, mark } = seen;
            let known = match self.found(id, judged, version, load_lock).await {
                Ok(known) => known,
                Err(hit) => return Some(hit),
            };
            if !wants_lock {
                return Some(self.load(mark, FillMode::LocalOnly, known).await);
            }
            let displaces = fit != Fit::Ours;
            match (load_lock, version) {
                (LoadLock::Granted, _) => {
                    let (expected, load_lock) = (version.unwrap_or(id), Some(id));
                    let mode = FillMode::Replace { expected, load_lock, displaces };
                    return Some(self.load(mark, mode, known).await);
                }
                (LoadLock::None, Some(version)) if fit == Fit::Left => {
                    return Some(self.load(mark, FillMode::Beside(version), known).await);
                }
                // The bound: a record that is replaced and hidden every time must not loop forever.
                (LoadLock::None, Some(_)) if ask.hidden != version && hidden < HIDDEN_ROUNDS => {
                    hidden += 1;
                    ask.hidden = version;
                }
                (LoadLock::None, _) => {
                    return Some(self.load(mark, fill_mode(version, displaces), known).await);
                }
                (LoadLock::HeldBy(by), _) if self.loads_too(ask.replace) => {
                    let mode = fill_mode(version.or(Some(by)), displaces);
                    return Some(self.load(mark, mode, known).await);
                }
                (LoadLock::HeldBy(_), _) if !patient => return Some(Probe::Locked),
                (LoadLock::HeldBy(by), _) if Instant::now() >= patience => match self.usable(known)
                {
                    Some(entry) => return Some(Probe::ServeStale(entry, StaleReason::Busy)),
                    None => ask.replace = Some(by),
                },
                (LoadLock::HeldBy(_), _) => self.wait_for_fill(known, patience, &mut pause).await,
            }
        }
    }

    /// The fallback for a load; or the final answer, if no load is needed.
    async fn found(
        &self,
        id: Version,
        judged: Option<Judged<T>>,
        version: Option<Version>,
        load_lock: LoadLock,
    ) -> Result<Option<Arc<Entry<T>>>, Probe<T>> {
        match judged {
            Some((entry, Verdict::Fresh | Verdict::Unverified)) => {
                if self.call.refresh != Some(entry.meta.version) {
                    self.release_lock(id, load_lock).await;
                    return Err(self.hit(entry));
                }
                if let LoadLock::HeldBy(_) = load_lock {
                    // Another node refreshes it and announces the new version.
                    entry.meta.rearm(self.node.now() + self.node.settings.load_lock_ttl);
                    return Err(self.hit(entry));
                }
                Ok(Some(entry))
            }
            Some((_, Verdict::Hidden(_))) if !sabotaged!(FailSafeIgnoresHard) => Ok(None),
            Some((entry, Verdict::Hidden(_) | Verdict::Stale(_))) => Ok(Some(entry)),
            None => Ok(self.local_fallback(version)),
        }
    }

    /// Whether this node loads although another node holds the load lock.
    ///
    /// It does if the call uses no load lock, if a joined caller has waited long enough, or if
    /// taking over the lock failed.
    fn loads_too(&self, replaced: Option<Version>) -> bool {
        !self.call.options.load_lock || replaced.is_some() || self.flight.is_hurried()
    }

    /// Releases the load lock if no load is needed after all.
    ///
    /// That happens if the value became visible meanwhile, or if the clocks differ. Best effort:
    /// the lock expires on its own.
    async fn release_lock(&self, id: Version, load_lock: LoadLock) {
        if load_lock == LoadLock::Granted && !sabotaged!(LoadLockKeptByHit) {
            let _ = self.l2.release(&self.call.key, id, self.limit).await;
        }
    }

    /// The L1 copy as a fallback, if L2 does not contradict it.
    ///
    /// Either the entry was never in L2, or it matches the record that the call ignores. (An
    /// `expire` keeps the copy and gives the record another version.)
    fn local_fallback(&self, version: Option<Version>) -> Option<Arc<Entry<T>>> {
        let session = self.node.coherence.session();
        let same = |meta: &Meta| {
            let marked = meta.is_expired() && meta.state().session == session;
            version.is_some_and(|version| version == meta.version || marked)
        };
        let local = self.local.clone()?;
        let beside = local.meta.beside && version == Some(local.meta.version);
        let agrees = local.meta.local_only || beside || (self.ignore && same(&local.meta));
        agrees.then_some(local)
    }

    /// Decides on a load, after catching up with the ledger's position at the READ.
    ///
    /// A removal that returned before the READ must not hide the loaded value. If the ledger does
    /// not answer, the load gets an older stamp.
    async fn load(
        &self,
        mark: LedgerPosition,
        mode: FillMode,
        known: Option<Arc<Entry<T>>>,
    ) -> Probe<T> {
        let node = self.node;
        if !sabotaged!(LoadStaysBehind) {
            self.flight.asks_l2(self.limit);
            catch_up(node, mark, self.limit).await;
        }
        let hidden = |e: &Arc<Entry<T>>| {
            matches!(node.coherence.judge(&e.meta, node.now()), Verdict::Hidden(_))
        };
        Probe::Load(mode, known.filter(|e| !hidden(e) || sabotaged!(FailSafeIgnoresHard)))
    }

    /// Reads, and repeats the READ if a resync started meanwhile; `None` if L2 failed.
    async fn read(
        &self,
        ask: Option<LoadLockRequest>,
        mut sent: Option<Sent>,
        mut rest: Option<Duration>,
    ) -> Option<Seen<T>> {
        let node = self.node;
        for attempt in 0.. {
            let (asked, read, mark) = match sent.take() {
                Some(sent) => sent,
                None => self.read_once(ask, rest).await?,
            };
            rest = None;
            if self.call.options.strict && !is_caught_up(node, mark, self.limit).await {
                return None;
            }
            let (judged, version, fit) = self.interpret(&read, asked);
            let unverified = matches!(judged, Some((_, Verdict::Unverified)));
            if !unverified || attempt == REREADS || !synced(node, self.limit).await {
                return Some(Seen { judged, version, fit, load_lock: read.load_lock, mark });
            }
        }
        None
    }

    /// Reads once. `rest` is what remains of a running limit; without it, a new limit starts.
    async fn read_once(
        &self,
        ask: Option<LoadLockRequest>,
        rest: Option<Duration>,
    ) -> Option<Sent> {
        let left = rest.unwrap_or_else(|| self.asks_again_for());
        if left.is_zero() {
            return None;
        }
        let (node, l2, key) = (self.node, self.l2, &self.call.key);
        let asked = Asked::now(node, key);
        let read = l2.read(key, ask, left);
        let (read, mark) = beside(node, l2, self.asks_ledger(), left, read).await;
        match read {
            Ok(read) => Some((asked, read, mark)),
            Err(error) => {
                tracing::debug!(%error, "L2 read failed; loading without it");
                None
            }
        }
    }

    /// Decodes and judges what a READ found; also returns the version that a fill would replace.
    fn interpret(&self, read: &Read, asked: Asked) -> (Option<Judged<T>>, Option<Version>, Fit) {
        let Some(found) = &read.found else { return (None, None, Fit::Ours) };
        let (node, key) = (self.node, &*self.call.key);
        if self.ignore {
            return (None, head(&found.bytes).map(Head::version), Fit::Ours);
        }
        match decode(node, self.call, found, asked.stamp, self.local.as_ref()) {
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
                let verdict = asked.judge(node, key, &entry.meta);
                self.flight.because(MissReason::of(verdict));
                node.found(verdict);
                let version = entry.meta.version;
                let fit = if entry.meta.beside { Fit::Left } else { Fit::Ours };
                (Some((entry, verdict)), Some(version), fit)
            }
        }
    }

    /// The stale value that this caller may get instead of waiting for another node's load.
    fn usable(&self, known: Option<Arc<Entry<T>>>) -> Option<Arc<Entry<T>>> {
        let (node, options) = (self.node, &self.call.options);
        known.filter(|entry| {
            let verdict = judge_record(node, &self.call.key, &entry.meta);
            may_serve_stale(&entry.meta, verdict, options, node.now())
        })
    }

    /// Waits until a message announces the fill, or for a jittered pause, whichever is first.
    async fn wait_for_fill(
        &self,
        stale: Option<Arc<Entry<T>>>,
        patience: Instant,
        pause: &mut Duration,
    ) {
        self.node.counters.load_lock_waits.add();
        self.flight.skips_l2();
        self.flight.waits(stale.map(|entry| entry as ErasedEntry));
        // The release of a load lock is not announced, so a waiting node checks again after this.
        let jitter = self.node.entropy.below(crate::clock::nanos(*pause / 2));
        let wait = (*pause / 2 + Duration::from_nanos(jitter))
            .min(patience.saturating_duration_since(Instant::now()));
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            biased;
            () = self.flight.news.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// The mode of a fill without a load lock: replace the seen version, or keep the value local.
fn fill_mode(version: Option<Version>, displaces: bool) -> FillMode {
    version.map_or(FillMode::Degraded, |expected| FillMode::Replace {
        expected,
        load_lock: None,
        displaces,
    })
}
