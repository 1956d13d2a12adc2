//! The judge of a history: what a reader was given, against what had been invalidated.
//!
//! It knows nothing of how the cache works and shares no code with it. Every rule says only what must
//! not be; where two things overlapped, either outcome passes.
//!
//! Words: a value is *stamped* no later than its factory began (or, of a `set`, than L2 took it). A
//! change of a key's record *supersedes* a value that was stamped before it and not stored after it.
//! What a failover took back supersedes nothing from then on.

mod deeds;
mod staleness;

use std::collections::HashMap;

use crate::history::{Answer, Applied, At, Call, Deed, Log, Outcome, Said, Scope, What};

pub(crate) use staleness::staleness;

/// What the judge has to know about the cluster, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The time between two polls.
    pub(crate) poll_ms: u64,
    /// The length of the coherence lease on the slowest clock, and what a clock of the history may be off.
    pub(crate) lease_ms: u64,
    /// The limit of an L2 call.
    pub(crate) hard_ms: u64,
    /// The longest that a message is kept back, or a process does not run.
    pub(crate) late_ms: u64,
    /// How long nodes need to find back to a store that answers again.
    pub(crate) heals_ms: u64,
    /// How long a `set` that is under way may still run after its limit: the slack it is given, and
    /// what a node may be wrong about the clock of the store after a slow `SYNC`.
    pub(crate) straggles_ms: u64,
    /// Whether the store announces by itself.
    pub(crate) fused: bool,
    /// Whether the store fails over; if not, it may be wiped.
    pub(crate) fails_over: bool,
}

/// Something that must not be.
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
    /// By node: the calls whose word counts.
    words: Vec<Vec<usize>>,
    /// By key: places in the list of changes.
    of_key: HashMap<u8, Vec<usize>>,
    /// Places in the list of changes that numbered a removal, or lost the ledger.
    barriers: Vec<usize>,
    /// By barrier and node: when the node was told, and when its `SYNC` covered it.
    known: Vec<Vec<(u32, u32)>>,
    found: Vec<Violation>,
}

/// Judges a history.
pub(crate) fn check(log: &Log, terms: &Terms) -> Vec<Violation> {
    let barriers: Vec<_> = (0..log.applied.len())
        .filter(|at| match log.applied[*at].deed {
            Deed::Advance { .. } => log.applied[*at].sure,
            Deed::Wipe | Deed::LedgerLost => !terms.fails_over,
            _ => false,
        })
        .collect();
    let known = barriers.iter().map(|at| knowledge(log, *at)).collect();
    let seen = log.seen.iter().map(|(rule, what, key, at)| Violation {
        rule,
        what: what.clone(),
        key: *key,
        at: *at,
    });
    let (words, of_key) = (words(log), of_key(log));
    let mut judge = Judge { log, terms, words, of_key, barriers, known, found: seen.collect() };
    for call in &log.calls {
        for answer in &call.answers {
            if let Some(end) = call.end {
                judge.reading(&Reading { call, answer, end: end.order });
            }
        }
        judge.call(call);
    }
    judge.store();
    judge.factories();
    judge.found.sort_by_key(|violation| violation.at);
    judge.found
}

/// The calls of each node after which something must not be: writes that returned, and invalidations
/// whose caller gave up.
fn words(log: &Log) -> Vec<Vec<usize>> {
    let mut words = vec![Vec::new(); log.lives.len()];
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

/// When each node was told of a barrier, and when the answer of a `SYNC` covered it.
fn knowledge(log: &Log, barrier: usize) -> Vec<(u32, u32)> {
    let applied = &log.applied[barrier];
    let mut known = vec![(u32::MAX, u32::MAX); log.lives.len()];
    for heard in log.heard.iter().filter(|heard| heard.applied == barrier) {
        let told = &mut known[heard.node].0;
        *told = heard.at.order.min(*told);
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

/// What a barrier covers, and whether it is hard; a lost ledger hides everything of its life.
fn extent(applied: &Applied) -> (Scope, bool) {
    match applied.deed {
        Deed::Advance { scope, hard, .. } => (scope, hard),
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

    /// No later than this was the value stamped, as far as a reader at `until` can tell.
    fn stamp(&self, load: usize, until: u32) -> u32 {
        let load = &self.log.loads[load];
        let set = || {
            let first = load.stored.first().map(|at| self.log.applied[*at].at.order);
            let ended = self.log.calls[load.call].end.map(|at| at.order);
            first.or(ended).unwrap_or(u32::MAX)
        };
        let began = if load.is_set { set() } else { load.began.order };
        let confirmed = load.confirmed.iter().filter(|(_, ended)| *ended <= until);
        confirmed.map(|(began, _)| *began).fold(began, u32::max)
    }

    /// Whether L2 took the value, or may have, after this.
    fn stored_after(&self, load: usize, order: u32) -> bool {
        let load = &self.log.loads[load];
        let stored = load.stored.iter().any(|at| self.log.applied[*at].at.order > order);
        let call = &self.log.calls[load.call];
        let unsure =
            load.is_set && load.stored.is_empty() && call.end.is_none_or(|end| end.order > order);
        stored || unsure
    }

    /// Whether a change of the key's record leaves the value behind, unless a failover takes it back.
    fn supersedes(&self, change: &Applied, reading: &Reading<'_>) -> bool {
        let load = reading.answer.load;
        let another = match change.deed {
            Deed::Put(other) | Deed::Set(other) => other != load,
            Deed::Remove | Deed::Expire => true,
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
        // S12: a value is of the key that was asked for.
        if answer.says_key != answer.key || self.log.loads[answer.load].key != answer.key {
            self.report("S12", reading, "it belongs to another key");
        }
        self.own(reading);
        self.barriers(reading);
        if !answer.stale {
            self.changes(reading);
            self.unsure(reading);
        }
    }

    /// **S1**, **S6**, **S9**: after an invalidation has returned on a node (whatever its receipt
    /// says, and also if its caller gave up), no later read there is fresh with a value that was
    /// stamped before; after a hard one, no later read is answered with it at all.
    ///
    /// Not judged: a `set` whose caller gave up (it may not have begun), and a key's invalidation that
    /// a failover took back.
    fn own(&mut self, reading: &Reading<'_>) {
        let (log, load) = (self.log, reading.answer.load);
        let stamp = self.stamp(load, reading.end);
        for at in self.words[reading.call.node].clone() {
            let call = &log.calls[at];
            let Some(end) = call.end.filter(|end| end.order < reading.call.start.order) else {
                continue;
            };
            if self.overlapped(call, load, end.order) {
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
            if is_key && self.undone(at, load, reading.end) {
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

    /// Whether a load that is in no store overlapped a key's invalidation on its node, so that it is for
    /// nobody who came later, fresh or stale.
    fn overlapped(&self, call: &Call, load: usize, end: u32) -> bool {
        let load = &self.log.loads[load];
        let loading = load.began.order < end && load.ended.is_none_or(|at| at > call.start);
        let mine = load.node == call.node && !load.is_set && load.stored.is_empty();
        // Of several keys, each has its own end.
        mine && loading && load.confirmed.is_empty() && call.scopes == [Scope::Key(load.key)]
    }

    /// Whether a key's invalidation was taken back by a failover, or the value stored after it.
    fn undone(&self, call: usize, load: usize, until: u32) -> bool {
        let log = self.log;
        if log.loads[load].call == call {
            return true;
        }
        let key = Some(log.loads[load].key);
        let mut applied = log.applied.iter().filter(|a| a.call == Some(call) && a.key == key);
        let first = applied.next();
        let lost = first.is_some_and(|a| a.lost.is_some_and(|lost| lost.order < until));
        // A `set` that overlapped it at L2 may have come later; a fill may not.
        let from = first.map_or(log.calls[call].start.order, |a| a.not_before);
        lost || (log.loads[load].is_set && self.stored_after(load, from)) || self.failed_over(call)
    }

    /// Whether a failover came after a call: what it queued may have been sent before, and lost.
    fn failed_over(&self, call: usize) -> bool {
        let start = self.log.calls[call].start.order;
        self.log.applied.iter().any(|a| matches!(a.deed, Deed::Failover(_)) && a.at.order > start)
    }

    /// **S2**, **S8**, **S9**: once a node was told of a barrier, nothing stamped before it is fresh
    /// there; once the answer of a `SYNC` has covered it, nothing that a hard one covers is answered at
    /// all. While L2 answers, a `SYNC` comes every poll; after the coherence lease nothing counts that
    /// no `SYNC` has covered. **L5**: in the end even what a failover took back is known, if its issuer
    /// lives.
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
            let (told, covered) = known[node];
            let late = applied.at.ms + self.terms.lease_ms < start.ms;
            let rule = if reading.answer.stale {
                (hard && covered < start.order).then_some("S9")
            } else if told.min(covered) < start.order {
                Some(if matches!(applied.deed, Deed::Advance { .. }) { "S2" } else { "S8" })
            } else if late && applied.lost.is_none() {
                Some("S3")
            } else {
                let last = matches!(reading.call.what, What::LastLook);
                (last && self.survives(applied)).then_some("L5")
            };
            if let Some(rule) = rule {
                let (order, ms) = (applied.at.order, applied.at.ms);
                let why = format!("a barrier of {ms} ms (#{order}) hides it: {:?}", applied.deed);
                return self.report(rule, reading, &why);
            }
        }
    }

    /// Whether somebody who issued a barrier lives to the end, so that a failover cannot lose it.
    fn survives(&self, applied: &Applied) -> bool {
        let issuer = applied.node.map(|node| &self.log.lives[node]);
        applied.lost.is_none() || issuer.is_some_and(|life| life.died.is_none())
    }

    /// **S4**: what a change superseded before a node subscribed is not fresh there without a look at
    /// L2. **S6**: what a node has heard of is not served. **S3**: a change that L2 holds is known
    /// everywhere within the coherence lease; within 3 polls and a round trip while L2 answers and
    /// no message is singled out to be lost. **L2**: in the end, everywhere.
    fn changes(&mut self, reading: &Reading<'_>) {
        let log = self.log;
        let (node, start) = (reading.call.node, reading.call.start);
        let subscribed = log.subscribed.iter().rev().find(|(n, at)| *n == node && *at < start);
        let subscribed = subscribed.map_or(0, |(_, at)| at.order);
        for at in self.of_key.get(&reading.answer.key).into_iter().flatten().copied() {
            let change = &log.applied[at];
            if change.at >= start || !self.supersedes(change, reading) {
                continue;
            }
            if let Some(lost) = change.lost.filter(|lost| lost.order <= reading.end) {
                let last = matches!(reading.call.what, What::LastLook);
                if last && self.asserted_again(change, lost) {
                    let (order, ms) = (change.at.order, change.at.ms);
                    let why =
                        format!("{:?} at {ms} ms (#{order}) is not asserted again", change.deed);
                    return self.report("L5", reading, &why);
                }
                continue;
            }
            let heard = log.heard.iter().any(|h| h.applied == at && h.node == node && h.at < start);
            let foreign = change.node != Some(node);
            let rule = if heard && foreign {
                Some("S6")
            } else if change.at.order < subscribed && foreign {
                Some("S4")
            } else if matches!(reading.call.what, What::Strict { .. }) {
                Some("strict")
            } else if matches!(reading.call.what, What::LastLook) {
                (!self.is_orphan(change)).then_some("L2")
            } else {
                let passed = start.ms - change.at.ms;
                let overdue = passed > self.bound(node, change, start);
                (overdue && !self.is_orphan(change)).then_some("S3")
            };
            if let Some(rule) = rule {
                let (order, ms) = (change.at.order, change.at.ms);
                let why = format!("superseded at {ms} ms (#{order}) by {:?}", change.deed);
                return self.report(rule, reading, &why);
            }
        }
    }

    /// **S10**: a `set` whose receipt says that it was queued, or may have happened, becomes an
    /// invalidation: in the end its value is nowhere; on its own node, as soon as L2 has answered it for
    /// long enough that recovery is through.
    fn unsure(&mut self, reading: &Reading<'_>) {
        let load = &self.log.loads[reading.answer.load];
        let call = &self.log.calls[load.call];
        let unsure = matches!(call.said, Said::Unknown | Said::Queued) && call.scopes.len() == 1;
        let lives = self.log.lives[call.node].died.is_none();
        if !load.is_set || !unsure || !lives || self.failed_over(load.call) {
            return;
        }
        let own = reading.call.node == call.node;
        let since = call.end.map_or(u64::MAX, |end| end.ms);
        let recovered =
            since.saturating_add(2000 + 2 * self.terms.hard_ms + 4 * self.terms.poll_ms);
        let well = !self.log.faults.iter().any(|fault| {
            let sick =
                ["L2", "reply", "command", "publish"].iter().any(|s| fault.name.starts_with(s));
            let mine = fault.node.is_none_or(|node| node == call.node);
            sick && mine
                && fault.from.ms < reading.call.start.ms
                && fault.until_ms + self.terms.heals_ms > since
        });
        let over = own && well && reading.call.start.ms > recovered;
        if load.confirmed.is_empty() && (over || matches!(reading.call.what, What::LastLook)) {
            self.report(
                "S10",
                reading,
                "its `set` was not acknowledged, so recovery invalidates it",
            );
        }
    }

    /// Whether who made a change died before it could say how many messages it had sent. Not judged:
    /// nobody can know that its last message was lost.
    fn is_orphan(&self, change: &Applied) -> bool {
        let died = change.node.and_then(|node| self.log.lives[node].died);
        died.is_some_and(|died| died.ms < change.at.ms + 12 * self.terms.poll_ms + 2000)
    }

    /// How long a node may go without a change that L2 holds, in milliseconds.
    fn bound(&self, node: usize, change: &Applied, until: At) -> u64 {
        let from = change.at.ms.saturating_sub(2000);
        let ill = self.log.faults.iter().any(|fault| {
            let concerns = fault.node.is_none_or(|n| n == node || Some(n) == change.node);
            let kind = fault.name.starts_with("L2")
                || fault.name.starts_with("publish")
                || ["messages dropped", "reply lost", "command runs late", "failover", "wipe"]
                    .contains(&fault.name);
            concerns
                && kind
                && fault.from.ms < until.ms
                && fault.until_ms + self.terms.heals_ms > from
        });
        if ill || change.node.is_none() {
            return self.terms.lease_ms;
        }
        3 * self.terms.poll_ms + self.terms.late_ms + self.terms.hard_ms + self.terms.poll_ms / 10
    }
}
