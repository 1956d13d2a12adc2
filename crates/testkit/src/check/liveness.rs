//! Judges liveness: recovery finishes, and no call waits without a reason.

use super::{Excuse, Judge, Violation};
use crate::history::{Applied, At, Call, Log, Operation, Outcome, Said, Scope};

/// A fault may have effects for this long after its end: a load lock, or a new subscription.
const AFTER_TROUBLE_MS: u64 = 5000;

/// The longest pause before a node checks a released load lock again.
const PAUSE_MS: u64 = 100;

impl Judge<'_> {
    /// **L6**: in the end, L2 has every unacknowledged write as an invalidation, or something newer
    /// of the same node.
    pub(super) fn recovery(&mut self) {
        if self.terms.trip_ms.is_none() {
            return;
        }
        for (at, call) in self.log.calls.iter().enumerate() {
            let waits = matches!(call.said, Said::Queued | Said::Unknown);
            if !waits || self.has_recovered(at, call) {
                continue;
            }
            let dead = self.log.node_runs[call.node].died.is_some();
            if dead && self.excuses.holds(Excuse::NobodyToRecover) {
                continue;
            }
            let what = format!(
                "a {:?} of node {} was not acknowledged, and L2 never received it",
                call.what, call.node
            );
            let key = call.scopes.iter().find_map(|scope| match scope {
                Scope::Key(key) => Some(*key),
                _ => None,
            });
            self.found.push(Violation { rule: "L6", what, key, at: call.start });
        }
    }

    fn has_recovered(&self, at: usize, call: &Call) -> bool {
        let log = self.log;
        // The receipt for several keys is that of the weakest one.
        let mine = |load: usize| call.scopes.len() == 1 && log.loads[load].call == at;
        let after = log.applied.iter().filter(|a| a.node == Some(call.node) && a.at > call.start);
        let done: Vec<_> = after.collect();
        let cleared = |scope: Scope| {
            matches!((scope, call.scopes[0]), (Scope::All, _)) || scope == call.scopes[0]
        };
        call.scopes.iter().all(|scope| {
            done.iter().any(|a| match (a.operation, scope) {
                (Operation::Advance { scope: Scope::All, .. }, _) => true,
                (Operation::Advance { scope, .. }, Scope::Tags(_) | Scope::All) => cleared(scope),
                (Operation::Remove | Operation::Expire, Scope::Key(key)) => a.key == Some(*key),
                (Operation::Put(load) | Operation::Set(load), Scope::Key(key)) => {
                    a.key == Some(*key) && !mine(load)
                }
                _ => false,
            })
        })
    }

    /// **L9**: in a healthy cluster a call waits only for a running factory and a few round trips.
    pub(super) fn latency(&mut self) {
        let Some(trip_ms) = self.terms.trip_ms else { return };
        for call in &self.log.calls {
            let Some(end) = call.end.filter(|_| call.outcome != Outcome::Crashed) else { continue };
            let took = end.ms - call.start.ms;
            // A check of an unverified copy, a `READ`, a `SYNC` if the ledger was ahead, a `PUT`.
            // The two in the middle may repeat if the node receives a change meanwhile.
            let most = 6 * trip_ms + 2 * PAUSE_MS;
            if took <= most || self.had_fault(call.start, end) {
                continue;
            }
            // A load lock that such a node could not release delays the other nodes too.
            let impatient = || (0..self.log.node_runs.len()).any(|node| self.is_impatient(node, 1));
            let idle = took.saturating_sub(self.loading(call, end));
            if idle <= most || (impatient() && self.excuses.holds(Excuse::Impatient)) {
                continue;
            }
            let (what, node) = (call.what, call.node);
            let key = call.scopes.iter().find_map(|scope| match scope {
                Scope::Key(key) => Some(*key),
                _ => None,
            });
            let what = format!("a {what:?} of node {node} took {took} ms, {idle} of them idle");
            self.found.push(Violation { rule: "L9", what, key, at: end });
        }
    }

    /// Returns whether a fault was in force during this time or shortly before it.
    fn had_fault(&self, from: At, to: At) -> bool {
        let since_ms = from.ms.saturating_sub(AFTER_TROUBLE_MS);
        let at = |ms: u64| ms >= since_ms && ms <= to.ms;
        let died = self.log.node_runs.iter().any(|run| run.died.is_some_and(|died| at(died.ms)));
        let born = self.log.node_runs.iter().any(|run| at(run.born.ms));
        let in_force =
            |fault: &crate::history::Fault| fault.from.ms <= to.ms && fault.until_ms >= since_ms;
        died || born || self.log.faults.iter().any(in_force)
    }

    /// Returns how long a factory of one of the call's keys ran during the call, on any node.
    fn loading(&self, call: &Call, end: At) -> u64 {
        let mut runs: Vec<_> = self
            .log
            .loads
            .iter()
            .filter(|load| !load.is_set && call.scopes.contains(&Scope::Key(load.key)))
            .map(|load| {
                let ended = load.ended.map_or(end.ms, |at| at.ms).min(end.ms);
                (load.began.ms.max(call.start.ms), ended)
            })
            .filter(|(from, to)| from < to)
            .collect();
        runs.sort_unstable();
        let (mut sum, mut until) = (0, 0);
        for (from, to) in runs {
            sum += to.saturating_sub(from.max(until));
            until = until.max(to);
        }
        sum
    }
}

/// Returns whether the last `SYNC` of a node agreed with the ledger, or `None` if the node sent
/// none since `due_ms`. Barriers that the ledger took after the `SYNC` before are excused: this one
/// exists to bring them.
pub(crate) fn is_level(log: &Log, node: usize, due_ms: u64) -> Option<bool> {
    let mut asked = log.synced.iter().rev().filter(|synced| synced.node == node);
    let last = asked.next().filter(|last| last.at.ms >= due_ms)?;
    let before = asked.next().map_or(0, |before| before.applied.order);
    let is_new = log.advanced.iter().any(|at| at.order > before && at.order < last.applied.order);
    Some(last.is_equal || is_new)
}

/// Returns whether a load returned a value that it could not keep. `PUT` refuses a fill if the
/// record expires after `READ`, and the echo of that fill may overtake the next load.
pub(crate) fn is_overtaken(log: &Log, load: usize) -> bool {
    log.calls[load].answers.iter().any(|answer| answer.stale)
}

/// Returns whether the second of two calls asked L2 although no other call changed the key since
/// the first began.
pub(crate) fn is_unverified(log: &Log, [first, second]: [usize; 2], key: u8) -> bool {
    let start = log.calls[first].start;
    // A refresh that began before counts as another call.
    let mine =
        |a: &Applied| matches!(a.operation, Operation::Put(load) if log.loads[load].call == first);
    let by_other = |a: &Applied| a.key == Some(key) && a.at > start && !mine(a);
    log.calls[second].asked > 0 && !log.applied.iter().any(by_other)
}
