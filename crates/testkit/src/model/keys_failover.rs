//! A replica is promoted that lacks the last writes, and whoever wrote them asserts them again.
//!
//! What was lost need not be seen until its writer has compared; from then on, by everybody who was
//! told, and in the end by all.

use crinkle_core::protocol::commits;
use crinkle_core::protocol::ledger::Strength;
use crinkle_core::protocol::record;

use super::keys::{Action, Keys, Replica, Sabotage, State};

/// What may happen. Nobody compares while a reply of the old primary is on its way.
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

    /// A node compares what it wrote with what is there.
    fn reassert(&self, state: &mut State, i: usize) {
        let bits = std::mem::take(&mut state.nodes[i].lost);
        let commits = std::mem::take(&mut state.nodes[i].commits);
        let intact = self.sabotage == Sabotage::AbsentIsIntact && state.record.is_none();
        let strength = match self.sabotage {
            Sabotage::CommitsForgotten => None,
            _ => commits::reassert(&commits, state.record).filter(|_| !intact),
        };
        // From here on it counts: for the writer, and for whoever is told. Who came before is excused.
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

/// The replica takes over: everybody is cut off, and what it lacks is excused for now.
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
