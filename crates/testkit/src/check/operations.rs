//! Judges calls, the store and factories, independently of what readers got.

use super::{Excuse, Judge, Violation};
use crate::history::{Applied, At, Call, Load, Operation, Outcome, STOPPED, Said, Scope, What};

/// No call may take longer.
const LONGEST_CALL_MS: u64 = 40_000;

/// After a failover, the caches must assert again the lost writes of this many milliseconds. (They
/// go back 10 s from the last answer of L2.)
const REASSERTED_MS: u64 = 8000;

impl Judge<'_> {
    /// Returns whether a write must hide the value although a failover took it back: L2
    /// acknowledged it soon before, and its node still runs and can assert it again.
    pub(super) fn asserted_again(&self, change: &Applied, lost: At) -> bool {
        let call = change.call.map(|call| &self.log.calls[call]);
        let acknowledged = call.is_some_and(|call| {
            let writes = matches!(call.what, What::Set(_) | What::Invalidate { .. });
            writes && call.said == Said::Done && call.end.is_some_and(|end| end < lost)
        });
        let runs = change.node.is_some_and(|node| self.log.node_runs[node].died.is_none());
        let soon = acknowledged && runs && lost.ms - change.at.ms <= REASSERTED_MS;
        // A node whose clock jumps further than its recent writes reach forgets them.
        let forgets = || {
            let jumped = change.node.and_then(|node| self.log.node_runs[node].jumped_ms);
            let since = jumped.is_some_and(|ms| ms >= change.at.ms);
            since && self.excuses.holds(Excuse::ClockJumped)
        };
        soon && !forgets()
    }

    /// **L3**: every call ends. **S15**: receipts are honest. "Done" was applied before the call
    /// returned, "queued" was not applied by it, and a barrier has a number.
    pub(crate) fn call(&mut self, call: &Call) {
        let mut found = |rule, what: String| {
            let key = call.scopes.iter().find_map(|scope| match scope {
                Scope::Key(key) => Some(*key),
                _ => None,
            });
            self.found.push(Violation { rule, what, key, at: call.start });
        };
        let took = call.end.map_or(u64::MAX, |end| end.ms - call.start.ms);
        if took > LONGEST_CALL_MS {
            found("L3", format!("a call of node {} took {took} ms", call.node));
        }
        let closing = call.error == "Closed" && self.log.node_runs[call.node].died.is_some();
        let loads = matches!(call.what, What::Load | What::Strict { loads: true });
        if call.outcome == Outcome::Failed && !loads && !closing {
            found("S15", format!("a {:?} of node {} failed: {}", call.what, call.node, call.error));
        }
        if self.terms.options && call.error == "WaitTimeout" && !call.allows.wait_timeout {
            found("S18", format!("a call of node {} ended by a limit it has not", call.node));
        }
        let Some(end) = call.end.filter(|_| call.outcome == Outcome::Done) else { return };
        let fallback = call.answers.iter().any(|answer| answer.source == "fail-safe");
        if self.terms.options && fallback && !call.allows.fail_safe {
            found("S18", format!("a call of node {} got a fallback it does not want", call.node));
        }
        let mine = |applied: &&Applied| {
            let mine = applied.node == Some(call.node) && applied.sure;
            mine && applied.at > call.start && applied.at < end
        };
        let mut during = self.log.applied.iter().filter(mine);
        let is_done = match call.what {
            What::Set(_) => during.any(|a| matches!(a.operation, Operation::Set(_))),
            What::Invalidate { .. } => during.any(|a| {
                matches!(
                    a.operation,
                    Operation::Remove | Operation::Expire | Operation::Advance { .. }
                )
            }),
            _ => true,
        };
        match call.said {
            Said::Done if !is_done => {
                found("S15", "the receipt says done, but L2 did not get the write".into())
            }
            Said::Queued if call.scopes.len() == 1 => {
                let index = self.log.calls.iter().position(|c| std::ptr::eq(c, call));
                if self.log.applied.iter().any(|a| a.sure && a.call == index && index.is_some()) {
                    found("S15", "the receipt says queued, but L2 has the write".into());
                }
            }
            _ => {}
        }
        if call.has_barrier && call.said != Said::Done {
            found("S15", "a barrier without a number".into());
        }
    }

    /// **S5**: a fill changes a record only if nothing else changed it since its factory began.
    /// **S10**: a `set` reaches L2 within the limits of its call, or never.
    pub(crate) fn store(&mut self) {
        let log = self.log;
        for (at, applied) in log.applied.iter().enumerate().filter(|(_, a)| a.sure) {
            match applied.operation {
                Operation::Put(load) => {
                    let began = self.stamp(load, applied.at.order);
                    let between = log.applied[..at].iter().rev();
                    let between = between.take_while(|other| other.at.order > began);
                    let mut other = None;
                    let mut failed_over = false;
                    for change in between {
                        // If the exact moment is unknown, only changes that lie between for certain
                        // count.
                        let vague =
                            change.not_before <= began || change.at.order >= applied.not_before;
                        failed_over |= matches!(change.operation, Operation::Failover(_));
                        let counts = change.sure && !vague;
                        if counts
                            && (change.key == applied.key || change.operation == Operation::Wipe)
                        {
                            other = other.or(Some(change));
                        }
                    }
                    let same_key = |c: &&Applied| c.key.is_some() || c.operation == Operation::Wipe;
                    let excused = || failed_over && self.excuses.holds(Excuse::FailoverBetween);
                    if let Some(change) = other.filter(same_key).filter(|_| !excused()) {
                        let what = format!("load {load} was stored over {:?}", change.operation);
                        self.found.push(Violation {
                            rule: "S5",
                            what,
                            key: applied.key,
                            at: applied.at,
                        });
                    }
                }
                Operation::Set(load) => {
                    let call = &log.calls[log.loads[load].call];
                    let late = applied.at.ms
                        > call.start.ms + self.pace(call.node).hard_ms + self.terms.late_set_ms;
                    if late && !self.paused(call.node, call.start.ms, applied.at.ms) {
                        let ms = applied.at.ms - call.start.ms;
                        let node = call.node;
                        let what =
                            format!("load {load} was set {ms} ms after its call began, by {node}");
                        self.found.push(Violation {
                            rule: "S10",
                            what,
                            key: applied.key,
                            at: applied.at,
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns whether a node's clock jumped: its estimate of the clock of L2 may be wrong.
    pub(super) fn jumped(&self, node: usize) -> bool {
        self.log.node_runs[node].jumped_ms.is_some()
    }

    /// Returns whether a node's clock jumped or its process was stopped, so that it may have read
    /// an old answer late.
    fn paused(&self, node: usize, from_ms: u64, to_ms: u64) -> bool {
        let mut stops = self.log.faults.iter().filter(|fault| fault.name == STOPPED);
        let stopped = stops.any(|stop| {
            stop.node == Some(node) && stop.from.ms <= to_ms && from_ms <= stop.until_ms
        });
        (stopped && self.excuses.holds(Excuse::Stopped))
            || (self.jumped(node) && self.excuses.holds(Excuse::ClockJumped))
    }

    /// **S14**: at most two factories of a key run on a node, and two only if the node learned of a
    /// change of the key since the first load began. (A batch is one run for many keys and is not
    /// judged.)
    pub(crate) fn factories(&mut self) {
        let log = self.log;
        let runs: Vec<_> = (0..log.loads.len()).filter(|load| !log.loads[*load].is_set).collect();
        for (place, at) in runs.iter().enumerate() {
            let young = &log.loads[*at];
            let others = runs[..place].iter().map(|at| &log.loads[*at]).filter(|old| {
                let runs = old.ended.is_none_or(|ended| ended > young.began);
                runs && old.node == young.node && old.key == young.key
            });
            let others: Vec<_> = others.collect();
            let unfounded = |old: &Load| {
                let from = log.calls[old.call].start.min(log.calls[young.call].start);
                !self.has_news(young, from)
            };
            let too_many = |others: &[&Load]| others.len() > 1;
            let broken =
                |others: &[&Load]| too_many(others) || others.iter().any(|old| unfounded(old));
            let single: Vec<_> = others.iter().copied().filter(|old| !old.in_batch).collect();
            if young.in_batch || !broken(&single) {
                let batch = young.in_batch || single.len() < others.len();
                let _ = batch && broken(&others) && self.excuses.holds(Excuse::Batch);
                continue;
            }
            let excused = !too_many(&single) && !self.terms.fused;
            if !(excused && self.excuses.holds(Excuse::NotFused)) {
                let what = format!(
                    "load {at} began on node {} beside {} others",
                    young.node,
                    single.len()
                );
                self.found.push(Violation {
                    rule: "S14",
                    what,
                    key: Some(young.key),
                    at: young.began,
                });
            }
        }
    }

    /// Returns whether the node of a load changed its key or its tags, or received such a change,
    /// before the load began.
    fn has_news(&self, young: &Load, from: At) -> bool {
        let Load { node, key, began: to, .. } = *young;
        let (log, within) = (self.log, |at: At| at > from && at < to);
        let wrote = log.calls.iter().any(|call| {
            let writes = matches!(call.what, What::Set(_) | What::Invalidate { .. });
            let overlaps = call.start < to && call.end.is_none_or(|end| end > from);
            writes
                && overlaps
                && call.node == node
                && call.scopes.iter().any(|scope| scope.covers(young))
        });
        let received = log.received.iter().any(|received| {
            let applied = &log.applied[received.applied];
            let hides = matches!(applied.operation, Operation::Advance { scope, .. } if scope.covers(young));
            received.node == node && within(received.at) && (hides || applied.key == Some(key))
        });
        // A node's own writes count for its other loads from the moment of their answer.
        let recent = |at: At| at < to && at.ms + 1000 >= from.ms;
        let did = |a: &Applied| a.node == Some(node) && a.key == Some(key) && recent(a.at);
        wrote || received || log.applied.iter().any(did)
    }
}
