//! A promoted replica lacks the last writes, and their writers assert them again.
//!
//! Readers need not see a lost write until its writer has compared it with L2. From then on, every
//! node that received it must see it, and in the end all nodes.

use crinkle_core::protocol::commits;
use crinkle_core::protocol::ledger::Strength;
use crinkle_core::protocol::record;

use super::keys::{Action, Keys, Replica, Sabotage, State};

/// Returns the possible actions. No node compares while a reply of the old primary is in transit.
pub(super) fn enabled(state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    if state.failovers > 0 {
        actions.push(match state.replica {
            None if state.record.is_some() => Action::Replicate,
            None => return actions,
            Some(_) => Action::FailOver,
        });
    }
    for (i, node) in state.nodes.iter().enumerate() {
        if node.lost != 0 && !node.writes.iter().any(|write| write.executed) {
            actions.push(Action::Reassert(i));
        }
    }
    actions
}

impl Keys {
    pub(super) fn fail_over(&self, state: &mut State, action: Action) {
        match action {
            Action::Replicate => {
                let State { record, value, executed, .. } = *state;
                state.replica = Some(Replica { record, value, executed });
            }
            Action::Reassert(i) => self.reassert(state, i),
            _ => promote(state),
        }
    }

    /// Compares a node's recent writes with L2 and asserts the lost ones again.
    fn reassert(&self, state: &mut State, i: usize) {
        let bits = std::mem::take(&mut state.nodes[i].lost);
        let commits = std::mem::take(&mut state.nodes[i].commits);
        let intact = self.sabotage == Sabotage::AbsentIsIntact && state.record.is_none();
        let strength = match self.sabotage {
            Sabotage::CommitsForgotten => None,
            _ => commits::reassert(&commits, state.record).filter(|_| !intact),
        };
        // From here on the lost writes count, for the writer and for receivers. Earlier callers are
        // excused.
        state.excused &= !bits;
        for node in &mut state.nodes {
            for load in &mut node.loads {
                load.required &= !bits;
            }
        }
        state.nodes[1 - i].required &= !bits;
        let Some(strength) = strength else { return };
        let version = state.version(i);
        state.announce(i, version, bits);
        state.record = match strength {
            Strength::Hard => None,
            Strength::Soft => record::expire(state.record, version),
        };
        self.receive(state, i, version);
        state.nodes[i].required |= bits;
    }
}

/// Promotes the replica: every node is disconnected, and the lost writes are excused for now.
fn promote(state: &mut State) {
    let Some(replica) = state.replica.take() else { return };
    state.failovers -= 1;
    let lost = state.executed & !replica.executed;
    state.record = replica.record;
    state.value = replica.value;
    state.excused |= lost;
    for (node, wrote) in state.nodes.iter_mut().zip(state.wrote) {
        node.cut = true;
        node.queue.clear();
        node.lost = lost & wrote;
    }
}
