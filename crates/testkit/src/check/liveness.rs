//! What must come to be: recovery gets through, and nobody waits for nothing.

use super::{Excuse, Judge, Violation};
use crate::history::{Applied, At, Call, Log, Operation, Outcome, Said, Scope};

/// Trouble of so long ago may still show: a load lock, or a subscription that is made again.
const AFTER_TROUBLE_MS: u64 = 5000;

/// How long a node waits at most before it looks again at a lock that was given back.
const PAUSE_MS: u64 = 100;

impl Judge<'_> {
    /// **L6**: what was not acknowledged has reached L2 in the end as an invalidation, or something newer of
    /// the same node has.
    pub(super) fn recovery(&mut self) {
        if self.terms.trip_ms.is_none() {
            return;
        }
        for (at, call) in self.log.calls.iter().enumerate() {
            let waits = matches!(call.said, Said::Queued | Said::Unknown);
            if !waits || self.has_recovered(at, call) {
                continue;
            }
            let dead = self.log.lives[call.node].died.is_some();
            if dead && self.excuses.holds(Excuse::NobodyToRecover) {
                continue;
            }
            let what = format!(
                "a {:?} of node {} was not acknowledged, and L2 has never heard of it",
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
        // Of several keys, the receipt is of the weakest.
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

    /// **L9**: while all is well, no call waits for anything but a running factory and a few round trips.
    pub(super) fn latency(&mut self) {
        let Some(trip_ms) = self.terms.trip_ms else { return };
        for call in &self.log.calls {
            let Some(end) = call.end.filter(|_| call.outcome != Outcome::Crashed) else { continue };
            let took = end.ms - call.start.ms;
            // A look at a copy in doubt, a READ, a SYNC if the ledger was further, a PUT; two of the
            // middle ones if something was heard meanwhile.
            let most = 6 * trip_ms + 2 * PAUSE_MS;
            if took <= most || self.was_ill(call.start, end) {
                continue;
            }
            // A lock that it could not give back holds up the others, too.
            let impatient = || (0..self.log.lives.len()).any(|node| self.is_impatient(node, 1));
            let idle = took.saturating_sub(self.loading(call, end));
            if idle <= most || (impatient() && self.excuses.holds(Excuse::Impatient)) {
                continue;
            }
            let (what, node) = (call.what, call.node);
            let key = call.scopes.iter().find_map(|scope| match scope {
                Scope::Key(key) => Some(*key),
                _ => None,
            });
            let what =
                format!("a {what:?} of node {node} took {took} ms, {idle} of them for nothing");
            self.found.push(Violation { rule: "L9", what, key, at: end });
        }
    }

    /// Whether anything was wrong, or had been shortly before.
    fn was_ill(&self, from: At, to: At) -> bool {
        let lately = from.ms.saturating_sub(AFTER_TROUBLE_MS);
        let at = |ms: u64| ms >= lately && ms <= to.ms;
        let died = self.log.lives.iter().any(|life| life.died.is_some_and(|died| at(died.ms)));
        let born = self.log.lives.iter().any(|life| at(life.born.ms));
        let ill =
            |fault: &crate::history::Fault| fault.from.ms <= to.ms && fault.until_ms >= lately;
        died || born || self.log.faults.iter().any(ill)
    }

    /// For how long of a call a factory of one of its keys ran, wherever.
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

/// Whether the last `SYNC` of a node said what the ledger did, if it was asked since `due_ms`. What the ledger took
/// after the one before is what a `SYNC` is for.
pub(crate) fn is_level(log: &Log, node: usize, due_ms: u64) -> Option<bool> {
    let mut asked = log.synced.iter().rev().filter(|synced| synced.node == node);
    let last = asked.next().filter(|last| last.at.ms >= due_ms)?;
    let before = asked.next().map_or(0, |before| before.applied.order);
    let is_new = log.advanced.iter().any(|at| at.order > before && at.order < last.applied.order);
    Some(last.is_equal || is_new)
}

/// Whether a load was answered with what it could not keep. A record that ends between `READ` and `PUT` refuses the
/// fill, and the echo of that fill may overtake the load after it.
pub(crate) fn is_overtaken(log: &Log, load: usize) -> bool {
    log.calls[load].answers.iter().any(|answer| answer.stale)
}

/// Whether the second of two calls has asked L2 though nobody else has changed the key since the first began.
pub(crate) fn is_in_doubt(log: &Log, [first, second]: [usize; 2], key: u8) -> bool {
    let start = log.calls[first].start;
    // By another: a refresh that began before.
    let mine =
        |a: &Applied| matches!(a.operation, Operation::Put(load) if log.loads[load].call == first);
    let by_other = |a: &Applied| a.key == Some(key) && a.at > start && !mine(a);
    log.calls[second].asked > 0 && !log.applied.iter().any(by_other)
}
