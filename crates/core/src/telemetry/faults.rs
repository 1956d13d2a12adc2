//! Lasting faults: one WARN when a fault begins, one INFO when it ends.
//!
//! ```text
//!   operation fails ──▶ WARN: cache, server, reason, what to do ──▶ INFO: how long, what was sent
//! ```
//!
//! Operations report failures and successes to [`Faults`]. Each poll checks and logs the ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::meters::Op;
use super::{Counter, TARGET, Telemetry};
use crate::clock::Moment;
use crate::error::{L2Error, L2ErrorKind};

/// How long L2 must refuse no write before memory counts as free again. At its limit a server
/// accepts one write and refuses the next.
const QUIET: Duration = Duration::from_secs(10);

/// How long the report of a fault's end waits for queued invalidations.
const DRAIN: Duration = Duration::from_secs(5);

/// A fault that can last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// L2, or one of its servers, does not answer: the circuit breaker is open.
    Unreachable,
    /// L2 refuses the login, or a command because a right is missing.
    Refused,
    /// L2 is out of memory.
    Full,
    /// L2 answers with an error of another kind.
    Failing,
    /// The backplane has no subscription.
    Unsubscribed,
    /// The backplane refuses what this node publishes.
    PublishRefused,
    /// The coherence TTL has run out.
    NotCoherent,
}

/// How many kinds of fault there are.
const FAULTS: usize = Fault::NotCoherent as usize + 1;

impl Fault {
    fn of(kind: L2ErrorKind) -> Option<Self> {
        match kind {
            L2ErrorKind::Denied => Some(Self::Refused),
            L2ErrorKind::Full => Some(Self::Full),
            L2ErrorKind::Other => Some(Self::Failing),
            // The circuit breaker counts outages; the other kinds concern one key.
            _ => None,
        }
    }

    /// The message of the WARN. `in_part`: the fault concerns one server of several.
    fn begins(self, met: bool, in_part: bool) -> &'static str {
        match self {
            Self::Unreachable if in_part => {
                "a server of L2 does not answer: keys on it run on L1 alone, and their invalidations are queued; keys \
                 on other servers are not affected. Look at the server that the reason names and at the network; the \
                 cache tries again with every poll"
            }
            Self::Unreachable if !met => {
                "L2 has not answered since the start: the cache runs on L1 alone. Check that the server is up and \
                 the address is right; the cache tries again with every poll"
            }
            Self::Unreachable => {
                "L2 does not answer: the cache runs on L1 alone, and invalidations are queued. Look at the server \
                 and the network; the cache tries again with every poll"
            }
            Self::Refused => {
                "L2 refuses this client: what it refuses is loaded from the source, and invalidations are queued. \
                 Correct the login or grant the rights that the reason names; the cache tries again with every poll"
            }
            Self::Full => {
                "L2 is out of memory and refuses writes: each node loads for itself. Raise `maxmemory`, or choose \
                 the eviction policy `volatile-ttl`"
            }
            Self::Failing => {
                "L2 answers with errors: what fails is loaded from the source, and invalidations are queued. Look \
                 at the log of the server; `crinkle doctor` examines it"
            }
            Self::Unsubscribed => {
                "no subscription to the backplane: what other nodes write is known only from L2, and entries are \
                 verified there. The cache subscribes again by itself; if the reason names a right, grant it"
            }
            Self::PublishRefused => {
                "the backplane refuses what this node publishes: other nodes learn of its writes from L2 alone. \
                 Grant the right that the reason names"
            }
            Self::NotCoherent => {
                "this node no longer knows that its L1 agrees with L2: entries are verified with L2 as they are \
                 read, and loaded again while L2 does not answer. Look for an earlier warning of this cache"
            }
        }
    }

    fn ends(self) -> &'static str {
        match self {
            Self::Unreachable | Self::Failing => "L2 answers again",
            Self::Refused => "L2 accepts this client again",
            Self::Full => "L2 takes writes again",
            Self::Unsubscribed => "subscribed to the backplane again",
            Self::PublishRefused => "the backplane takes what this node publishes again",
            Self::NotCoherent => "this node's L1 agrees with L2 again",
        }
    }

    /// Whether it is a fault of the backplane.
    fn is_of_the_bus(self) -> bool {
        matches!(self, Self::Unsubscribed | Self::PublishRefused)
    }
}

/// A fault that lasts.
#[derive(Debug)]
struct Lasting {
    since: Moment,
    reason: Arc<str>,
    /// The unreachable servers of L2 that were reported, if L2 has several.
    servers: BTreeSet<Arc<str>>,
    /// The operations that failed and have not succeeded since, one bit each.
    ops: u16,
    last: Moment,
    ended: Option<Moment>,
    /// Whether the WARN was written.
    reported: bool,
    /// When the report of the same server's refused login last covered this fault.
    covered: Option<Moment>,
    /// The counts of sent invalidations when it began.
    sent: [u64; 2],
}

/// The faults of a cache.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lasting: Mutex<[Option<Lasting>; FAULTS]>,
    /// Whether there is a fault. Usually there is none, and this skips the lock.
    any: AtomicBool,
    /// Queued invalidations of keys that L2 has accepted, and removals that it has numbered late.
    pub(crate) sent_keys: Counter,
    pub(crate) sent_removals: Counter,
}

impl Faults {
    fn sent(&self) -> [u64; 2] {
        [self.sent_keys.get(), self.sent_removals.get()]
    }

    /// Whether this fault has not ended.
    fn lasts(&self, fault: Fault) -> bool {
        let lasting = self.lasting.lock();
        lasting[fault as usize].as_ref().is_some_and(|lasting| lasting.ended.is_none())
    }

    /// Whether to report a fault of the backplane now. `covered`: the refused login of the same
    /// server is already reported. Once L2 accepts the login, the backplane gets a while to follow.
    fn is_due(&self, fault: Fault, covered: bool, now: Moment) -> bool {
        let mut all = self.lasting.lock();
        let Some(lasting) = &mut all[fault as usize] else { return false };
        if covered {
            lasting.covered = Some(now);
        }
        let follows = lasting.covered.is_some_and(|at| now.since(at) < DRAIN);
        !lasting.reported && lasting.ended.is_none() && !follows
    }

    /// Records a failure. True if it must be reported: the fault begins, or its reason changed.
    fn failed(&self, fault: Fault, op: Option<Op>, reason: &str, now: Moment) -> bool {
        let mut all = self.lasting.lock();
        self.any.store(true, Ordering::Release);
        let ops = op.map_or(0, |op| 1 << op as u16);
        let Some(lasting) = &mut all[fault as usize] else {
            all[fault as usize] = Some(Lasting {
                since: now,
                reason: reason.into(),
                servers: BTreeSet::new(),
                ops,
                last: now,
                ended: None,
                reported: false,
                covered: None,
                sent: self.sent(),
            });
            return true;
        };
        (lasting.last, lasting.ended) = (now, None);
        lasting.ops |= ops;
        // A poll gives the whole reason; other calls name only the part that they met.
        let changed = op == Some(Op::Sync) && *lasting.reason != *reason;
        if changed {
            lasting.reason = reason.into();
        }
        changed
    }

    /// Records that a server of L2 does not answer. True if it must be reported: the fault begins,
    /// or another server joins it.
    fn unreachable(&self, server: Option<&Arc<str>>, reason: &str, now: Moment) -> bool {
        let begins = self.failed(Fault::Unreachable, None, reason, now);
        let Some(server) = server else { return begins };
        let mut all = self.lasting.lock();
        let Some(lasting) = &mut all[Fault::Unreachable as usize] else { return begins };
        let joins = lasting.servers.insert(Arc::clone(server));
        if joins {
            lasting.reason = reason.into();
        }
        joins
    }

    /// Records a successful operation; `stored`: it made L2 store something.
    fn succeeded(&self, op: Op, stored: bool, now: Moment) {
        let bit = 1_u16 << op as u16;
        let mut all = self.lasting.lock();
        for (at, lasting) in all.iter_mut().enumerate() {
            let Some(lasting) = lasting else { continue };
            let over = if at == Fault::Full as usize {
                stored
            } else if at == Fault::Refused as usize || at == Fault::Failing as usize {
                // A poll that succeeds after one that failed shows that L2 accepts the login.
                let all = op == Op::Sync && lasting.ops & bit != 0;
                lasting.ops &= if all { 0 } else { !bit };
                lasting.ops == 0
            } else {
                false
            };
            if over && lasting.ended.is_none() {
                lasting.ended = Some(now);
            }
        }
    }

    /// Records the end of a fault.
    fn over(&self, fault: Fault, now: Moment) {
        if let Some(lasting) = &mut self.lasting.lock()[fault as usize]
            && lasting.ended.is_none()
        {
            lasting.ended = Some(now);
        }
    }
}

impl Telemetry {
    /// Records an L2 operation that failed with an error.
    pub(crate) fn l2_refused(&self, op: Op, error: &L2Error) {
        if let Some(fault) = Fault::of(error.kind()) {
            self.fault_because(fault, Some(op), &error.to_string());
        }
    }

    /// Records a successful L2 operation; `stored`: it made L2 store something.
    #[inline]
    pub(crate) fn l2_succeeded(&self, op: Op, stored: bool) {
        if self.faults.any.load(Ordering::Acquire) {
            self.faults.succeeded(op, stored, self.clock.now());
        }
    }

    /// Records that a fault begins or continues.
    pub(crate) fn fault(&self, fault: Fault, reason: &str) {
        self.fault_because(fault, None, reason);
    }

    /// Records that the circuit breaker of L2, or of one of its servers, has opened. Reports each
    /// server once while the fault lasts.
    pub(crate) fn unreachable(&self, server: Option<&Arc<str>>, error: &L2Error) {
        let reason = match server {
            Some(server) => format!("{server}: {error}"),
            None => error.to_string(),
        };
        if self.faults.unreachable(server, &reason, self.clock.now()) {
            self.warn(Fault::Unreachable);
        }
    }

    fn fault_because(&self, fault: Fault, op: Option<Op>, reason: &str) {
        let is_due = self.faults.failed(fault, op, reason, self.clock.now());
        // Faults of the backplane wait for the poll: usually they follow from a fault of L2.
        if is_due && !fault.is_of_the_bus() {
            self.warn(fault);
        }
    }

    /// Records the end of a fault. The next poll reports it.
    pub(crate) fn fault_over(&self, fault: Fault) {
        if self.faults.any.load(Ordering::Acquire) {
            self.faults.over(fault, self.clock.now());
        }
    }

    /// Records that L2 has answered.
    pub(crate) fn l2_met(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    fn warn(&self, fault: Fault) {
        let (reason, in_part) = {
            let mut all = self.faults.lasting.lock();
            let Some(lasting) = &mut all[fault as usize] else { return };
            lasting.reported = true;
            (Arc::clone(&lasting.reason), !lasting.servers.is_empty())
        };
        let (cache, server) = (&*self.cache, self.server(fault));
        let what = fault.begins(self.met.load(Ordering::Relaxed), in_part);
        tracing::warn!(target: TARGET, cache, server, %reason, "{what}");
    }

    fn server(&self, fault: Fault) -> Option<&str> {
        if fault.is_of_the_bus() { self.bus_server.as_deref() } else { self.l2_server.as_deref() }
    }

    /// Reports, once a poll, new faults of the backplane and faults that have ended. `waiting`: how
    /// many invalidations wait for L2.
    pub(crate) fn report_lasting_faults(&self, waiting: usize) {
        if !self.faults.any.load(Ordering::Acquire) {
            return;
        }
        let now = self.clock.now();
        let one_server = self.bus_server.is_some() && self.bus_server == self.l2_server;
        // One report covers a refused login of the server that both use.
        let is_reported = one_server && self.faults.lasts(Fault::Refused);
        for fault in [Fault::Unsubscribed, Fault::PublishRefused] {
            if self.faults.is_due(fault, is_reported, now) {
                self.warn(fault);
            }
        }
        for (fault, lasting) in self.take_ended(waiting, now) {
            if !lasting.reported {
                continue;
            }
            let (cache, server, what) = (&*self.cache, self.server(fault), fault.ends());
            let lasted = Duration::from_secs(now.since(lasting.since).as_secs().max(1));
            let [keys, removals] = self.faults.sent();
            let (keys, removals) = (keys - lasting.sent[0], removals - lasting.sent[1]);
            if fault.is_of_the_bus() || fault == Fault::NotCoherent {
                tracing::info!(target: TARGET, cache, server, ?lasted, "{what}");
            } else {
                tracing::info!(
                    target: TARGET, cache, server, ?lasted,
                    keys_sent = keys, removals_sent = removals, waiting,
                    "{what}; what was queued meanwhile was sent"
                );
            }
        }
    }

    fn take_ended(&self, waiting: usize, now: Moment) -> Vec<(Fault, Lasting)> {
        use Fault::{
            Failing, Full, NotCoherent, PublishRefused, Refused, Unreachable, Unsubscribed,
        };
        let mut all = self.faults.lasting.lock();
        let mut over = Vec::new();
        for fault in
            [Unreachable, Refused, Full, Failing, Unsubscribed, PublishRefused, NotCoherent]
        {
            let is_over = |lasting: &mut Lasting| {
                let Some(ended) = lasting.ended else { return false };
                match fault {
                    Full => now.since(lasting.last) >= QUIET,
                    Unreachable | Refused | Failing => waiting == 0 || now.since(ended) >= DRAIN,
                    Unsubscribed | PublishRefused | NotCoherent => true,
                }
            };
            let over_now = all[fault as usize].take_if(is_over);
            over.extend(over_now.map(|lasting| (fault, lasting)));
        }
        self.faults.any.store(all.iter().any(Option::is_some), Ordering::Release);
        over
    }
}
