//! Numbers that a promoted server with a slow clock issues again.

use super::{Excuse, Judge};
use crate::history::{Applied, At, Load, Operation, Synced};

impl Judge<'_> {
    /// Returns whether a promoted server with a slow clock numbered a barrier below the stamp of an
    /// older value. The node that loaded the value notices when it next syncs with the ledger.
    pub(super) fn is_numbered_again(&self, load: usize, barrier: &Applied, until: At) -> bool {
        let (log, load) = (self.log, &self.log.loads[load]);
        let Operation::Advance { epoch, number, .. } = barrier.operation else { return false };
        if !self.is_stamped_past(load, epoch, number) {
            return false;
        }
        let failover =
            |a: &&Applied| matches!(a.operation, Operation::Failover(_)) && a.at < barrier.at;
        let Some(failover) = log.applied.iter().rfind(failover) else { return false };
        let asked = |s: &Synced| s.node == load.node && s.applied > failover.at && s.at < until;
        !log.synced.iter().any(asked) && self.excuses.holds(Excuse::NumberedAgain)
    }

    /// Whether a value is stamped with this number of the epoch or a later one. If L2 never stored
    /// the value, no record shows its stamp: then what its node knew when the load began counts.
    fn is_stamped_past(&self, load: &Load, epoch: u64, number: u64) -> bool {
        let log = self.log;
        if !load.stored.is_empty() {
            let stamps = load.stored.iter().filter_map(|at| log.applied[*at].stamp);
            return stamps.into_iter().any(|stamp| stamp.epoch == epoch && stamp.number >= number);
        }
        self.known.iter().zip(&self.barriers).any(|(known, at)| {
            let (applied, began) = (&log.applied[*at], load.began.order);
            let (received, covered) = known[load.node];
            let is_own = applied.node == Some(load.node) && applied.at.order < began;
            let is_known = is_own || received.min(covered) < began;
            let later = |of: u64, other: u64| of == epoch && other >= number;
            is_known
                && matches!(applied.operation, Operation::Advance { epoch, number, .. } if later(epoch, number))
        })
    }
}
