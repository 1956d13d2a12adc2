//! **S16**: nothing that L2 held before a strict read began replaces what the read answers as
//! fresh. This file judges the ledger; changes of the key's record are judged with the other
//! changes. **S17**: a write after a numbered removal is not stamped below it, unless its receipt
//! does not say "done".

use super::{Excuse, Judge, Reading, Violation, extent};
use crate::history::{Applied, At, Call, Load, Operation, Said, Scope, Stamped, What};

impl Judge<'_> {
    /// A barrier hides older values from a strict read if it was numbered before the read began and
    /// no failover has taken it back. Older means stamped before the barrier was sent.
    pub(super) fn strict(&mut self, reading: &Reading<'_>) {
        let What::Strict { .. } = reading.call.what else { return };
        if !self.terms.strict {
            return;
        }
        let (log, load) = (self.log, reading.answer.load);
        let stamp = self.stamp(load, reading.end);
        for at in self.barriers.clone() {
            let barrier = &log.applied[at];
            let (scope, _) = extent(barrier);
            let before = barrier.at < reading.call.start && stamp < barrier.sent;
            let lost = barrier.lost.is_some_and(|lost| lost.order <= reading.end);
            if before && !lost && scope.covers(&log.loads[load]) {
                let (order, ms) = (barrier.at.order, barrier.at.ms);
                let why = format!("hidden at {ms} ms (#{order}) by {:?}", barrier.operation);
                return self.report("S16", reading, &why);
            }
        }
    }

    /// Judges the records of `set`s with the receipt "done", and of loads in a healthy cluster.
    pub(super) fn written(&mut self) {
        if !self.terms.written {
            return;
        }
        let log = self.log;
        for (at, load) in log.loads.iter().enumerate() {
            let call = &log.calls[load.call];
            let ended = call.end.map_or(u32::MAX, |end| end.order);
            let done = !load.is_set || call.said == Said::Done;
            let during = |at: &&usize| !load.is_set || log.applied[**at].at.order <= ended;
            let Some(stored) = load.stored.iter().rfind(during).filter(|_| done) else { continue };
            let applied = &log.applied[*stored];
            let judged = load.is_set || self.is_well(load, applied);
            let stamped = applied.stamp.filter(|stamp| judged && stamp.is_near);
            let Some(Stamped { epoch, number: stamp, .. }) = stamped else { continue };
            let newer = log.numbers.iter().find(|((of, number), place)| {
                let barrier = &log.applied[**place];
                let Operation::Advance { scope, .. } = barrier.operation else { return false };
                let missed = *of == epoch && *number > stamp && barrier.lost.is_none();
                let newer = missed && barrier.at < call.start && scope.covers(load);
                newer
                    && self.has_returned(barrier, call.start)
                    && !self.is_of_lost(barrier, applied)
                    && !self.is_unanswered(**place, load)
            });
            if let Some(((_, number), _)) = newer {
                let what =
                    format!("load {at} is stamped {stamp}, below {number} from before its call");
                let found = Violation { rule: "S17", what, key: Some(load.key), at: call.start };
                self.found.push(found);
            }
        }
    }

    /// Returns whether the call that numbered a removal had returned; the cache promises nothing
    /// before. If the call is unknown, its node must have no open call that removes by tag or
    /// clears.
    fn has_returned(&self, barrier: &Applied, by: At) -> bool {
        let is_open = |call: &Call| call.end.is_none_or(|end| end >= by);
        let may_be = |call: &&Call| {
            let removes = matches!(call.what, What::Invalidate { .. });
            let by_tag = !matches!(call.scopes[..], [Scope::Key(_), ..]);
            removes && by_tag && Some(call.node) == barrier.node && call.start < barrier.at
        };
        match barrier.call {
            Some(call) => !is_open(&self.log.calls[call]),
            None => !self.log.calls.iter().filter(may_be).any(is_open),
        }
    }

    /// Returns whether the ledger that numbered a removal was lost before a write. Then no node can
    /// learn of the removal any more, and the write belongs to an old epoch.
    fn is_of_lost(&self, barrier: &Applied, stored: &Applied) -> bool {
        let lost = |a: &Applied| matches!(a.operation, Operation::LedgerLost | Operation::Wipe);
        let between = |a: &Applied| a.at > barrier.at && a.at < stored.at;
        let gone = self.log.applied.iter().any(|a| lost(a) && between(a));
        gone && self.excuses.holds(Excuse::LedgerLost)
    }

    /// Returns whether a load began before the ledger reported a removal to its node, because a
    /// node with a fallback does not wait that long. A `set` waits for the ledger without a
    /// fallback.
    fn is_unanswered(&self, barrier: usize, load: &Load) -> bool {
        let known = self.barriers.iter().zip(&self.known).find(|(at, _)| **at == barrier);
        let unknown = known.is_some_and(|(_, known)| known[load.node].1 > load.began.order);
        // The call that compares may wait for the poll.
        !load.is_set
            && unknown
            && self.is_impatient(load.node, 2)
            && self.excuses.holds(Excuse::Unanswered)
    }

    /// Returns whether no fault concerned the node from the begin of the load's call until L2 took
    /// the value, and no earlier `SYNC` may still be in progress.
    fn is_well(&self, load: &Load, stored: &Applied) -> bool {
        let slack_ms = self.pace(load.node).hard_ms + self.terms.heals_ms;
        let from = self.log.calls[load.call].start.ms.saturating_sub(slack_ms);
        !self.log.faults.iter().any(|fault| {
            let mine = fault.node.is_none_or(|node| node == load.node);
            mine && fault.from.ms <= stored.at.ms && from <= fault.until_ms
        })
    }
}
