//! Asks L2 about a miss: it finds a fresh record, gets the load lock, or learns of another load.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::judge::{Asked, may_ask};
use super::lookup::is_known;
use super::replica;
use super::verify::{check_one, may_serve_unverified, unverified};
use super::{Call, Local, lookup};
use crate::background::sweep::drop_dead;
use crate::entry::{Entry, ErasedEntry, Source, Value};
use crate::events::MissReason;
use crate::flight::checks::Checked;
use crate::flight::{Flight, StaleReason};
use crate::l2::Read;
use crate::l2::access::Access;
use crate::node::{Coded, Node};
use crate::options::EntryOptions;
use crate::protocol::Version;
use crate::protocol::record::LoadLockRequest;
use crate::protocol::validity::Verdict;
use crate::read::catch_up::{AskLedger, LedgerPosition};
use crate::read::stale::may_serve_stale;

/// How to handle a miss.
#[derive(Debug)]
pub(crate) enum Probe<T> {
    /// Answer with this fresh entry.
    Hit(Arc<Entry<T>>, Source),
    /// Answer with this stale value instead of loading.
    ServeStale(Arc<Entry<T>>, StaleReason),
    /// Run the factory; the entry is the one that the result replaces.
    Load(FillMode, Option<Arc<Entry<T>>>),
    /// Another node is loading, and this probe does not wait for it.
    Locked,
}

/// What a fill may replace in L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FillMode {
    /// Nothing: there is no L2, or the call does not write to it.
    LocalOnly,
    /// Nothing: L2 does not answer or cannot hold a load lock.
    ///
    /// The result stays in L1, for one coherence TTL at most.
    Degraded,
    /// Exactly the expected version; this node must release `load_lock`.
    ///
    /// `displaces` if this node cannot use the record that it replaces.
    Replace { expected: Version, load_lock: Option<Version>, displaces: bool },
    /// Nothing: L2 holds this version, which only other nodes may be able to use.
    ///
    /// The result stays in L1 for as long as L2 holds that version.
    Beside(Version),
}

impl FillMode {
    /// Whether the loaded value goes to L2.
    pub(crate) fn writes_l2(self) -> bool {
        matches!(self, Self::Replace { .. })
    }
}

/// How many times a read is repeated because a resync started during it.
pub(super) const REREADS: u32 = 3;

/// One probe: the call, its flight, and the L1 copy.
pub(super) struct Prober<'a, T> {
    pub(super) node: &'a Coded<T>,
    pub(super) l2: &'a Access,
    pub(super) call: &'a Call,
    pub(super) flight: &'a Flight,
    pub(super) local: Option<Arc<Entry<T>>>,
    pub(super) limit: Duration,
    /// The call ignores the value in L2.
    pub(super) ignore: bool,
}

/// The result of a miss's L1 lookup.
pub(super) enum Prepared<'a, T> {
    /// L2 need not be asked.
    Settled(Probe<T>),
    /// L2 must be asked.
    Ask(Prober<'a, T>),
}

/// A READ's reply, with the node's knowledge before it and the ledger's position at it.
pub(super) type Sent = (Asked, Read, LedgerPosition);

/// Checks L1 again (another flight may have completed), then asks L2 until it answers or a caller
/// gives up on it.
pub(crate) async fn probe<T: Value>(node: &Coded<T>, call: &Call, flight: &Flight) -> Probe<T> {
    let asking = pin!(async {
        let prober = match prepare(node, call, flight).await {
            Prepared::Settled(probe) => return probe,
            Prepared::Ask(prober) => prober,
        };
        if let Some(erased) = prober.unverified() {
            let checked = check_one(node, erased, prober.limit, call.options.strict).await;
            if let Some(probe) = prober.confirmed(checked) {
                return probe;
            }
        }
        prober.ask(None, None, None, true).await
    });
    until_given_up(node, call, flight, asking).await
}

/// Awaits a probe, unless a caller gives up on L2 first.
pub(super) async fn until_given_up<T: Value>(
    node: &Node,
    call: &Call,
    flight: &Flight,
    asking: Pin<&mut (impl Future<Output = Probe<T>> + Send)>,
) -> Probe<T> {
    tokio::select! {
        biased;
        probe = asking => probe,
        limit = flight.l2_given_up() => {
            note_given_up(node, [&*call.key], limit);
            given_up(node, call)
        }
    }
}

pub(super) async fn prepare<'a, T: Value>(
    node: &'a Coded<T>,
    call: &'a Call,
    flight: &'a Flight,
) -> Prepared<'a, T> {
    let options = &call.options;
    let settled = Prepared::Settled;
    let (local, verdict) = match lookup::<T>(node, call) {
        Local::Fresh(entry, _) if call.refresh != Some(entry.meta.version) => {
            return settled(Probe::Hit(entry, Source::L1));
        }
        Local::Fresh(entry, _) => (Some(entry), Verdict::Fresh),
        Local::Throttled(entry, _) => {
            return settled(Probe::ServeStale(entry, StaleReason::Throttled));
        }
        Local::Nothing(why) => {
            flight.because(why);
            drop_dead(node, call.hash);
            (None, Verdict::Fresh)
        }
        Local::Candidate(entry, verdict) => {
            flight.because(MissReason::of(verdict));
            (Some(entry), verdict)
        }
    };
    let Some(l2) = &node.l2 else { return settled(Probe::Load(FillMode::LocalOnly, local)) };
    let usable = |e: &Arc<Entry<T>>| may_serve_stale(&e.meta, verdict, options, node.now());
    let has_fallback = local.as_ref().is_some_and(usable);
    let limit = if has_fallback { options.l2_soft_timeout } else { options.l2_hard_timeout };
    flight.asks_l2(limit);
    if !may_ask(node, l2, &call.key, limit).await {
        return settled(without_l2(node, call, local));
    }
    let when_stale = options.skip_l2_read_when_stale && matches!(verdict, Verdict::Stale(_));
    let ignore = options.skip_l2_read || when_stale;
    if !l2.holds_records() || (ignore && options.skip_l2_write) {
        return settled(Probe::Load(
            FillMode::LocalOnly,
            local.filter(|entry| is_known(node, entry)),
        ));
    }
    Prepared::Ask(Prober { node, l2, call, flight, local, limit, ignore })
}

impl<T: Value> Prober<'_, T> {
    /// The load lock to request; `None` for a call that does not write to L2.
    pub(super) fn first_ask(&self, id: Version) -> Option<LoadLockRequest> {
        let ask = self.node.load_lock_request(id, self.hidden());
        (!self.call.options.skip_l2_write).then_some(ask)
    }

    /// The fresh version to refresh; `None` if the copy stands beside a record that this node
    /// cannot use.
    pub(super) fn hidden(&self) -> Option<Version> {
        let beside = self.local.as_ref().is_some_and(|local| local.meta.beside);
        self.call.refresh.filter(|_| !beside)
    }

    /// The L1 copy, if a check of its record's head is enough to verify it.
    pub(super) fn unverified(&self) -> Option<ErasedEntry> {
        let asks = !self.ignore && self.call.refresh.is_none();
        unverified(self.node, self.call, self.local.as_ref().filter(|_| asks))
    }

    /// Converts the result of that check; `None` if the record must be read.
    pub(super) fn confirmed(&self, checked: Checked) -> Option<Probe<T>> {
        match (checked, &self.local) {
            (Checked::Same, Some(entry)) => Some(Probe::Hit(Arc::clone(entry), Source::L1)),
            (Checked::Failed, local) => Some(without_l2(self.node, self.call, local.clone())),
            (Checked::Same | Checked::Other, _) => None,
        }
    }

    /// Whether to ask the ledger for its position along with the READ.
    ///
    /// A strict read needs it. Otherwise it is worth it only if the ledger is near: a load may
    /// follow.
    pub(super) fn asks_ledger(&self) -> AskLedger {
        match self.call.options {
            EntryOptions { strict: true, .. } => AskLedger::Own,
            _ if !self.l2.is_ledger_near(&self.call.key) => AskLedger::No,
            // A read that requests no load lock is no write.
            EntryOptions { skip_l2_write: true, .. } => AskLedger::Own,
            _ => AskLedger::Shared,
        }
    }

    /// Reads until it finds a value, gets the load lock, or must continue without.
    ///
    /// After a multi-read, `asked` is the id of the load lock that it requested and `sent` its
    /// reply. `rest` is the rest of its limit. For a single read, all three are `None`. If not
    /// `patient`, the probe does not wait for another node's load.
    pub(super) async fn ask(
        &self,
        asked: Option<Version>,
        sent: Option<Sent>,
        rest: Option<Duration>,
        patient: bool,
    ) -> Probe<T> {
        let (left, came) = (rest.unwrap_or_else(|| self.asks_again_for()), Instant::now());
        if sent.is_none()
            && !self.ignore
            && let Some((entry, _)) =
                replica::read(self.node, self.call, self.local.as_ref(), left).await
        {
            return self.hit(entry);
        }
        let left = left.saturating_sub(came.elapsed());
        // An unanswered READ may run late: it must not restore a load lock that was voided.
        let answered = sent.is_some() || sabotaged!(LoadLockRequestedTwice);
        let id = asked.filter(|_| answered).unwrap_or_else(|| self.node.entropy.version());
        let probe = self.ask_l2(id, (sent, left), patient).await;
        probe.unwrap_or_else(|| Probe::Load(FillMode::Degraded, self.local.clone()))
    }

    /// Records a new request to L2 and returns its limit. Waiting callers count their own limits
    /// from here.
    pub(super) fn asks_again_for(&self) -> Duration {
        self.flight.asks_l2(self.limit);
        self.limit
    }

    pub(super) fn hit(&self, entry: Arc<Entry<T>>) -> Probe<T> {
        let same = self.local.as_ref().is_some_and(|local| Arc::ptr_eq(local, &entry));
        Probe::Hit(entry, if same { Source::L1 } else { Source::L2 })
    }
}

/// Reports that callers gave up an L2 operation on these keys after this limit.
pub(super) fn note_given_up<'k>(
    node: &Node,
    keys: impl IntoIterator<Item = &'k str>,
    limit: Duration,
) {
    if let Some(l2) = &node.l2 {
        l2.given_up(keys, limit);
    }
}

/// Decides without L2, because a caller gave up on it: what is not fresh is loaded.
///
/// The leader may allow L2 more time, so the probe serves nothing stale.
pub(super) fn given_up<T: Value>(node: &Node, call: &Call) -> Probe<T> {
    match lookup::<T>(node, call) {
        Local::Fresh(entry, _) if call.refresh != Some(entry.meta.version) => {
            Probe::Hit(entry, Source::L1)
        }
        Local::Fresh(entry, _) | Local::Throttled(entry, _) | Local::Candidate(entry, _) => {
            Probe::Load(FillMode::Degraded, Some(entry))
        }
        Local::Nothing(_) => Probe::Load(FillMode::Degraded, None),
    }
}

/// Decides without L2, because it does not answer: serves the unverified copy if allowed, else
/// loads.
fn without_l2<T>(node: &Node, call: &Call, local: Option<Arc<Entry<T>>>) -> Probe<T> {
    match local {
        Some(entry) if may_serve_unverified(node, call, &entry) => {
            Probe::ServeStale(entry, StaleReason::Unreachable)
        }
        local => Probe::Load(FillMode::Degraded, local),
    }
}
