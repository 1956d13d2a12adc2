//! The judge of a history: compares what readers got with what was invalidated.
//!
//! It shares no code with the cache and knows nothing of how it works. Every rule states only what
//! must not happen; where two operations overlapped, either outcome passes.
//!
//! Terms: a value is *stamped* no later than its factory began, or, for a `set`, than L2 took it. A
//! change of a key's record *supersedes* a value that was stamped before it and not stored after
//! it. A change that a failover took back supersedes nothing from then on.

mod changes;
mod excuse;
mod liveness;
mod numbers;
mod operations;
mod staleness;
mod strict;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::history::{Answer, Applied, At, Call, Log, Operation, Outcome, Pace, Scope, What};
pub(crate) use excuse::Excuse;
use excuse::Excuses;

pub(crate) use liveness::{is_level, is_overtaken, is_unverified};
pub(crate) use staleness::staleness;

/// The properties of the cluster that the judge needs; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The time between two polls.
    pub(crate) poll_ms: u64,
    /// The coherence TTL on the slowest clock, plus the largest error of a clock of the history.
    pub(crate) coherence_ms: u64,
    /// The limit of an L2 call.
    pub(crate) hard_ms: u64,
    /// The longest delay of a message, or the longest stop of a process.
    pub(crate) late_ms: u64,
    /// How long nodes need to use a store again after it answers again.
    pub(crate) heals_ms: u64,
    /// How long a `set` in progress may run after its limit: its slack, and the error of a node's
    /// estimate of the store's clock after a slow `SYNC`.
    pub(crate) late_set_ms: u64,
    /// Whether the store announces its changes itself.
    pub(crate) fused: bool,
    /// Whether the store fails over; if not, it may be wiped.
    pub(crate) fails_over: bool,
    /// The longest round trip of a healthy L2, if it is known. Then the judge also checks how long
    /// calls take, and the history ends after all faults have ended.
    pub(crate) trip_ms: Option<u64>,
    /// Whether the judge checks S16, S17 and S18.
    pub(crate) strict: bool,
    pub(crate) written: bool,
    pub(crate) options: bool,
    /// Whether nodes use different wire versions.
    pub(crate) mixed: bool,
}

/// A violation of a guarantee.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    pub(crate) key: Option<u8>,
    pub(crate) at: At,
}

/// One value that a reader got.
struct Reading<'a> {
    call: &'a Call,
    answer: &'a Answer,
    end: u32,
}

pub(crate) struct Judge<'a> {
    log: &'a Log,
    terms: &'a Terms,
    /// By node: the calls that forbid older values.
    words: Vec<Vec<usize>>,
    /// By key: indexes into the list of changes.
    of_key: HashMap<u8, Vec<usize>>,
    /// Indexes of the changes that numbered a removal or lost the ledger.
    barriers: Vec<usize>,
    /// By barrier and node: when the node received it, and when a `SYNC` of the node covered it.
    known: Vec<Vec<(u32, u32)>>,
    found: Vec<Violation>,
    excuses: Excuses,
}

/// The judge's verdict on a history.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The violations, in the order of the history.
    pub(crate) violations: Vec<Violation>,
    /// How often each excuse was used.
    pub(crate) excuses: BTreeMap<&'static str, u64>,
}

/// Judges a history.
pub(crate) fn check(log: &Log, terms: &Terms) -> Verdict {
    let barriers: Vec<_> = (0..log.applied.len())
        .filter(|at| match log.applied[*at].operation {
            Operation::Advance { .. } => log.applied[*at].sure,
            Operation::Wipe | Operation::LedgerLost => !terms.fails_over,
            _ => false,
        })
        .collect();
    let known = barriers.iter().map(|at| knowledge(log, *at)).collect();
    let excuses = Excuses::default();
    let excused = |rule: &str| {
        let owing = rule == "L8" && died_owing(log) && excuses.holds(Excuse::DiedOwing);
        let mixed = terms.mixed && matches!(rule, "L4" | "L8");
        let impatient = rule == "L4" && is_cut_short(log, terms);
        owing
            || mixed && excuses.holds(Excuse::OtherVersion)
            || impatient && excuses.holds(Excuse::Impatient)
    };
    let seen = log.seen.iter().filter(|(rule, ..)| !excused(rule));
    let seen = seen.map(|(rule, what, key, at)| Violation {
        rule,
        what: what.clone(),
        key: *key,
        at: *at,
    });
    let (words, of_key) = (words(log), of_key(log));
    let found = seen.collect();
    let mut judge = Judge { log, terms, words, of_key, barriers, known, found, excuses };
    for call in &log.calls {
        for answer in &call.answers {
            if let Some(end) = call.end {
                judge.reading(&Reading { call, answer, end: end.order });
            }
        }
        judge.call(call);
    }
    judge.store();
    judge.written();
    judge.factories();
    judge.recovery();
    judge.latency();
    judge.found.sort_by_key(|violation| violation.at);
    Verdict { violations: judge.found, excuses: judge.excuses.into_counts() }
}

/// Returns whether a node gives L2 less time than a read of a replica takes that the primary must
/// complete. Its circuit breaker may be open.
fn is_cut_short(log: &Log, terms: &Terms) -> bool {
    let least = 3 * terms.trip_ms.unwrap_or(0);
    log.node_runs.iter().filter_map(|run| run.pace.as_ref()).any(|pace| pace.hard_ms <= least)
}

/// Returns whether a dead node owed announcements, or cleared its mark only in a lost ledger.
fn died_owing(log: &Log) -> bool {
    let lost = |a: &Applied| {
        matches!(a.operation, Operation::Wipe | Operation::LedgerLost | Operation::Failover(_))
    };
    log.owing.iter().any(|(node, paid)| {
        let owes = paid.is_none_or(|paid| log.applied[paid..].iter().any(lost));
        owes && log.node_runs[*node].died.is_some()
    })
}

/// The calls of each node that forbid older values: writes that returned, and invalidations whose
/// caller gave up.
fn words(log: &Log) -> Vec<Vec<usize>> {
    let mut words = vec![Vec::new(); log.node_runs.len()];
    for (at, call) in log.calls.iter().enumerate() {
        let counts = match (call.what, call.outcome) {
            (What::Set(_), Outcome::Done) => true,
            (What::Invalidate { .. }, outcome) => {
                matches!(outcome, Outcome::Done | Outcome::Cancelled)
            }
            _ => false,
        };
        if counts {
            words[call.node].push(at);
        }
    }
    words
}

fn of_key(log: &Log) -> HashMap<u8, Vec<usize>> {
    let mut found = HashMap::<u8, Vec<usize>>::new();
    for (at, key) in log.applied.iter().enumerate().filter_map(|(at, a)| Some((at, a.key?))) {
        found.entry(key).or_default().push(at);
    }
    found
}

/// Returns when each node received a barrier, and when the reply of a `SYNC` covered it.
fn knowledge(log: &Log, barrier: usize) -> Vec<(u32, u32)> {
    let applied = &log.applied[barrier];
    let mut known = vec![(u32::MAX, u32::MAX); log.node_runs.len()];
    for received in log.received.iter().filter(|received| received.applied == barrier) {
        let first = &mut known[received.node].0;
        *first = received.at.order.min(*first);
    }
    let lost = applied.lost.map_or(u32::MAX, |at| at.order);
    for synced in &log.synced {
        if synced.applied.order > applied.at.order && synced.applied.order < lost {
            let covered = &mut known[synced.node].1;
            *covered = synced.at.order.min(*covered);
        }
    }
    known
}

/// Returns what a barrier covers and whether it is hard. A lost ledger hides all its values.
fn extent(applied: &Applied) -> (Scope, bool) {
    match applied.operation {
        Operation::Advance { scope, hard, .. } => (scope, hard),
        _ => (Scope::All, true),
    }
}

impl Judge<'_> {
    fn report(&mut self, rule: &'static str, reading: &Reading<'_>, why: &str) {
        let Reading { call, answer, .. } = reading;
        let state = if answer.stale { "stale" } else { "fresh" };
        let what = format!(
            "node {} answered load {} as {state} (from {}): {why}",
            call.node, answer.load, answer.source
        );
        self.found.push(Violation { rule, what, key: Some(answer.key), at: call.start });
    }

    /// Returns the latest possible stamp of a value, as known to a reader at `until`.
    fn stamp(&self, load: usize, until: u32) -> u32 {
        let load = &self.log.loads[load];
        let set = || {
            let ended = self.log.calls[load.call].end.map(|at| at.order);
            // The node sends a value again before the call ends if another node's removal hides it;
            // the second command may run later.
            let end = ended.unwrap_or(u32::MAX);
            let stored = || load.stored.iter().map(|at| &self.log.applied[*at]);
            let last = stored().rfind(|applied| applied.sent <= end);
            let order = last.or_else(|| stored().next()).map(|applied| applied.at.order);
            order.map_or(end, |order| order.min(end))
        };
        let began = if load.is_set { set() } else { load.began.order };
        let confirmed = load.confirmed.iter().filter(|(_, ended)| *ended <= until);
        confirmed.map(|(began, _)| *began).fold(began, u32::max)
    }

    /// Returns whether L2 took the value after this moment, or may have.
    fn stored_after(&self, load: usize, order: u32) -> bool {
        let load = &self.log.loads[load];
        let stored = load.stored.iter().any(|at| self.log.applied[*at].at.order > order);
        let call = &self.log.calls[load.call];
        let unsure =
            load.is_set && load.stored.is_empty() && call.end.is_none_or(|end| end.order > order);
        stored || unsure
    }

    /// Returns whether a change of the key's record supersedes the value, unless a failover takes
    /// it back.
    fn supersedes(&self, change: &Applied, reading: &Reading<'_>) -> bool {
        let load = reading.answer.load;
        let another = match change.operation {
            Operation::Put(other) | Operation::Set(other) => other != load,
            Operation::Remove | Operation::Expire => true,
            _ => return false,
        };
        another
            && change.sure
            && change.key == Some(reading.answer.key)
            && self.stamp(load, reading.end) < change.sent
            && !self.stored_after(load, change.not_before)
    }

    fn reading(&mut self, reading: &Reading<'_>) {
        let answer = reading.answer;
        // S12: a value belongs to the requested key.
        if answer.says_key != answer.key || self.log.loads[answer.load].key != answer.key {
            self.report("S12", reading, "it belongs to another key");
        }
        self.own(reading);
        self.barriers(reading);
        if !answer.stale {
            self.changes(reading);
            self.unsure(reading);
            self.strict(reading);
        }
    }

    /// **S1**, **S6**, **S9**: after an invalidation has returned on a node, no later read there
    /// answers as fresh a value that was stamped before; after a hard one, no later read answers it
    /// at all. This holds for any receipt, and also if the caller gave up.
    ///
    /// Not judged: a `set` whose caller gave up (it may not have begun), and a key's invalidation
    /// that a failover took back.
    fn own(&mut self, reading: &Reading<'_>) {
        let (log, load) = (self.log, reading.answer.load);
        let stamp = self.stamp(load, reading.end);
        for at in self.words[reading.call.node].clone() {
            let call = &log.calls[at];
            let Some(end) = call.end.filter(|end| end.order < reading.call.start.order) else {
                continue;
            };
            if self.overlapped(at, load, end.order) {
                return self.report("S6", reading, "it was loaded while this node invalidated it");
            }
            if stamp >= call.start.order {
                continue;
            }
            let hard = !matches!(call.what, What::Invalidate { hard: false });
            let is_key = matches!(call.scopes[0], Scope::Key(_));
            let covers = call.scopes.iter().any(|scope| scope.covers(&log.loads[load]));
            if !covers || (reading.answer.stale && (!hard || matches!(call.what, What::Set(_)))) {
                continue;
            }
            if is_key && (log.loads[load].call == at || self.revoked(at, load, reading.end)) {
                continue;
            }
            let again = |a: &Applied| {
                a.call == Some(at) && self.is_numbered_again(load, a, reading.call.start)
            };
            if !is_key && log.applied.iter().any(again) {
                continue;
            }
            let rule = match (reading.answer.stale, is_key) {
                (true, _) => "S9",
                (false, true) => "S6",
                (false, false) => "S1",
            };
            let why = format!(
                "this node had invalidated it ({:?}, returned at {} ms)",
                call.what, end.ms
            );
            return self.report(rule, reading, &why);
        }
    }

    /// Returns whether an unstored load overlapped a key's invalidation on its node. Later readers
    /// must not get such a value, fresh or stale.
    fn overlapped(&self, at: usize, load: usize, end: u32) -> bool {
        let call = &self.log.calls[at];
        let load = &self.log.loads[load];
        let loading = load.began.order < end && load.ended.is_none_or(|at| at > call.start);
        let mine = load.node == call.node && !load.is_set && load.stored.is_empty();
        // With several keys, or a key and tags, each has its own end.
        let alone = call.scopes == [Scope::Key(load.key)] && !self.log.companions.contains_key(&at);
        mine && loading && load.confirmed.is_empty() && alone
    }

    /// Returns whether a failover took a key's invalidation back, or the value was stored after it.
    fn revoked(&self, call: usize, load: usize, until: u32) -> bool {
        let log = self.log;
        let key = Some(log.loads[load].key);
        let (node, start) = (log.calls[call].node, log.calls[call].start);
        // By recovery, while the call's own command is still in progress.
        let recovery = |a: &Applied| {
            let again =
                matches!(a.operation, Operation::Remove | Operation::Expire) && a.call.is_none();
            again && a.node == Some(node) && a.at > start
        };
        let by = |a: &Applied| a.call == Some(call) || recovery(a);
        let first = log.applied.iter().find(|a| a.at.order < until && a.key == key && by(a));
        let lost = first.is_some_and(|a| a.lost.is_some_and(|lost| lost.order < until));
        // A `set` that overlapped it in L2 may have run later; a fill may not.
        let from = first.map_or(start.order, |a| a.not_before);
        let later = log.loads[load].is_set && self.stored_after(load, from);
        (lost && self.excuses.holds(Excuse::TakenBack))
            || (later && self.excuses.holds(Excuse::WrittenLater))
            || self.failed_over(call) && self.excuses.holds(Excuse::QueuedBeforeFailover)
    }

    /// Returns whether a failover came after a call: its queued writes may have been sent before it
    /// and lost.
    fn failed_over(&self, call: usize) -> bool {
        let start = self.log.calls[call].start.order;
        self.log
            .applied
            .iter()
            .any(|a| matches!(a.operation, Operation::Failover(_)) && a.at.order > start)
    }

    /// **S2**, **S8**, **S9**: once a node has received a barrier, values stamped before it are not
    /// fresh there. Once the reply of a `SYNC` has covered a hard barrier, the node does not answer
    /// them at all. **S3**: after the coherence TTL, a barrier counts without any `SYNC`. **L5**: in
    /// the end, nodes know even a barrier that a failover took back, if its issuer still runs.
    fn barriers(&mut self, reading: &Reading<'_>) {
        let (log, load) = (self.log, reading.answer.load);
        let (node, start) = (reading.call.node, reading.call.start);
        let stamp = self.stamp(load, reading.end);
        for (known, at) in self.known.iter().zip(&self.barriers) {
            let applied = &log.applied[*at];
            let (scope, hard) = extent(applied);
            if stamp >= applied.not_before || !scope.covers(&log.loads[load]) {
                continue;
            }
            let (received, covered) = known[node];
            let late = applied.at.ms + self.pace(node).coherence_ms < start.ms;
            let rule = if reading.answer.stale {
                (hard && covered < start.order).then_some("S9")
            } else if received.min(covered) < start.order {
                Some(if matches!(applied.operation, Operation::Advance { .. }) {
                    "S2"
                } else {
                    "S8"
                })
            } else if late && (applied.lost.is_none() || !self.excuses.holds(Excuse::TakenBack)) {
                Some("S3")
            } else {
                let last = matches!(reading.call.what, What::LastLook);
                (last && self.survives(applied)).then_some("L5")
            };
            if let Some(rule) = rule.filter(|_| !self.is_numbered_again(load, applied, start)) {
                let (order, ms) = (applied.at.order, applied.at.ms);
                let why =
                    format!("a barrier of {ms} ms (#{order}) hides it: {:?}", applied.operation);
                return self.report(rule, reading, &why);
            }
        }
    }

    /// The settings of a node.
    fn pace(&self, node: usize) -> Pace {
        let Terms { poll_ms, coherence_ms, hard_ms, .. } = *self.terms;
        self.log.node_runs[node].pace.unwrap_or(Pace {
            poll_ms,
            coherence_ms,
            hard_ms,
            soft_ms: hard_ms,
        })
    }

    /// Returns whether a node with a fallback gives L2 less time than this many round trips.
    fn is_impatient(&self, node: usize, trips: u64) -> bool {
        let trip_ms = self.terms.trip_ms.unwrap_or(0);
        self.pace(node).soft_ms <= trips * trip_ms
    }

    /// Returns whether the barrier's issuer runs to the end, so that a failover cannot lose the
    /// barrier.
    fn survives(&self, applied: &Applied) -> bool {
        let issuer = applied.node.map(|node| &self.log.node_runs[node]);
        let runs = issuer.is_some_and(|run| run.died.is_none());
        applied.lost.is_none() || runs || !self.excuses.holds(Excuse::IssuerDied)
    }
}
