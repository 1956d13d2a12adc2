//! Judges the changes of a key: which nodes must know a change, and by when.

use super::{Excuse, Judge, Reading};
use crate::history::{Applied, At, Said, What};

impl Judge<'_> {
    /// **S4**: a node does not answer as fresh, without asking L2, what was superseded before it
    /// subscribed. **S6**: a node does not serve what a received message superseded. **S3**: every
    /// node knows a change in L2 within the coherence TTL; while L2 answers and no message is
    /// singled out to be lost, within 3 polls and a round trip. **L2**: in the end every node knows
    /// it.
    pub(super) fn changes(&mut self, reading: &Reading<'_>) {
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
                    let why = format!(
                        "{:?} at {ms} ms (#{order}) is not asserted again",
                        change.operation
                    );
                    return self.report("L5", reading, &why);
                }
                self.excuses.holds(Excuse::TakenBack);
                continue;
            }
            let received =
                log.received.iter().any(|h| h.applied == at && h.node == node && h.at < start);
            let foreign = change.node != Some(node);
            let rule = if received && foreign {
                Some("S6")
            } else if change.at.order < subscribed && foreign {
                Some("S4")
            } else if matches!(reading.call.what, What::Strict { .. }) {
                Some("S16")
            } else if matches!(reading.call.what, What::LastLook) {
                (!self.is_orphan(change)).then_some("L2")
            } else {
                let overdue = self.is_overdue(node, change, start);
                (overdue && !self.is_orphan(change)).then_some("S3")
            };
            if let Some(rule) = rule {
                let (order, ms) = (change.at.order, change.at.ms);
                let why = format!("superseded at {ms} ms (#{order}) by {:?}", change.operation);
                return self.report(rule, reading, &why);
            }
        }
    }

    /// **S10**: a `set` with the receipt "queued" or "unknown" becomes an invalidation. In the end
    /// its value is nowhere. On its own node it is gone once L2 has answered long enough for
    /// recovery to finish.
    pub(super) fn unsure(&mut self, reading: &Reading<'_>) {
        let load = &self.log.loads[reading.answer.load];
        let call = &self.log.calls[load.call];
        let unsure = matches!(call.said, Said::Unknown | Said::Queued) && call.scopes.len() == 1;
        if !load.is_set || !unsure {
            return;
        }
        let own = reading.call.node == call.node;
        let since = call.end.map_or(u64::MAX, |end| end.ms);
        let pace = self.pace(call.node);
        let recovered = since.saturating_add(2000 + 2 * pace.hard_ms + 4 * pace.poll_ms);
        let over = own && reading.call.start.ms > recovered;
        if !over && !matches!(reading.call.what, What::LastLook) {
            return;
        }
        if !self.unsure_is_excused(reading, since) {
            let why = "its `set` was not acknowledged, so recovery invalidates it";
            self.report("S10", reading, why);
        }
    }

    /// Returns whether recovery could not invalidate such a `set`, or not yet.
    fn unsure_is_excused(&self, reading: &Reading<'_>, since: u64) -> bool {
        let load = &self.log.loads[reading.answer.load];
        let call = &self.log.calls[load.call];
        let holds = |excuse| self.excuses.holds(excuse);
        let faulty = self.log.faults.iter().any(|fault| {
            let sick =
                ["L2", "reply", "command", "publish"].iter().any(|s| fault.name.starts_with(s));
            let mine = fault.node.is_none_or(|node| node == call.node);
            sick && mine
                && fault.from.ms < reading.call.start.ms
                && fault.until_ms + self.terms.heals_ms > since
        });
        let last = matches!(reading.call.what, What::LastLook);
        let dead = self.log.node_runs[call.node].died.is_some();
        let latest = call.start.ms + self.pace(call.node).hard_ms + self.terms.late_set_ms;
        let stored = load.stored.iter().map(|at| self.log.applied[*at].at.ms);
        let late = stored.max().is_some_and(|ms| ms > latest);
        (!load.confirmed.is_empty() && holds(Excuse::Confirmed))
            || (dead && holds(Excuse::NobodyToRecover))
            || (!last && faulty && holds(Excuse::RecoveryBusy))
            || (self.failed_over(load.call) && holds(Excuse::QueuedBeforeFailover))
            // The latest time that the node gave L2 was wrong, so the `set` ran after recovery
            // invalidated it.
            || (late && self.jumped(call.node) && holds(Excuse::ClockJumped))
    }

    /// Returns whether the node that made a change died before it could announce how many messages
    /// it had sent. This is not judged: no other node can know that the last message was lost.
    fn is_orphan(&self, change: &Applied) -> bool {
        let died = change.node.and_then(|node| self.log.node_runs[node].died);
        let announced_ms = 12 * change.node.map_or(0, |node| self.pace(node).poll_ms) + 2000;
        died.is_some_and(|died| died.ms < change.at.ms + announced_ms)
            && self.excuses.holds(Excuse::LastWord)
    }

    /// Returns whether a node has missed a change in L2 for too long. The bound is three polls and
    /// the duration of the change, or the coherence TTL if a fault was in force. A node tries to
    /// publish before and after the write; if both fail, the ledger announces the change.
    fn is_overdue(&self, node: usize, change: &Applied, until: At) -> bool {
        let passed = until.ms - change.at.ms;
        let pace = self.pace(node);
        // The sender announces its number of messages at every poll of its own.
        let maker = change.node.map_or(pace, |node| self.pace(node));
        let (poll_ms, hard_ms) = (pace.poll_ms.max(maker.poll_ms), pace.hard_ms.max(maker.hard_ms));
        let bound = 3 * poll_ms + self.terms.late_ms + 3 * hard_ms + poll_ms / 10;
        if passed <= bound {
            return false;
        }
        let excused = self.is_ill(node, change, until) && self.excuses.holds(Excuse::Trouble);
        !excused || passed > pace.coherence_ms
    }

    /// Returns whether L2 had a fault, or messages were lost, for the node or for the node that
    /// made the change.
    fn is_ill(&self, node: usize, change: &Applied, until: At) -> bool {
        let from = change.at.ms.saturating_sub(2000);
        let faulty = self.log.faults.iter().any(|fault| {
            let concerns = fault.node.is_none_or(|n| n == node || Some(n) == change.node);
            let kind = fault.name.starts_with("L2")
                || ["messages dropped", "reply lost", "command runs late", "failover", "wipe"]
                    .contains(&fault.name);
            concerns
                && kind
                && fault.from.ms < until.ms
                && fault.until_ms + self.terms.heals_ms > from
        });
        faulty || change.node.is_none()
    }
}
