//! The steps of a `SYNC` in the ledger model.

use std::sync::Arc;

use crinkle_core::protocol::ledger::{Removal, Strength, Synced, Target};

use super::ledger::{
    Action, CAP, ELSEWHERE, Ledger, Node, RETENTION_MS, Sabotage, State, equal, probe,
};
use super::ledger_steps::{epoch, nonce};

/// More requests in a row count as endless.
const MAX_ROUNDS: usize = 12;

impl Ledger {
    /// Runs a whole `SYNC` in one step.
    pub(super) fn sync(&self, state: &mut State, i: usize) {
        for _ in 0..MAX_ROUNDS {
            self.ask_sync(state, i);
            if !self.answer_sync(state, i).again {
                return;
            }
        }
        state.bad = Some("SYNC does not end");
    }

    pub(super) fn ask_sync(&self, state: &mut State, i: usize) {
        let new_epoch = epoch(state);
        let mut ask = state.node(i).replica.ask(new_epoch, self.page, RETENTION_MS);
        if self.sabotage == Sabotage::NoLogMatching {
            ask.last = None;
        }
        let mut reply = state.sync(&ask);
        if self.sabotage == Sabotage::NoFold {
            reply.levels.retain(|(_, target, _)| matches!(target, Target::Tag(_)));
        }
        if reply.epoch == epoch(state) {
            state.epochs += 1;
        }
        state.node(i).answer = Some(reply);
    }

    pub(super) fn answer_sync(&self, state: &mut State, i: usize) -> Synced {
        let Some(reply) = state.node(i).answer.take() else { return Synced::default() };
        let node = state.node(i);
        let synced = node.replica.synced(&reply);
        node.shown.extend(reply.ids.iter().map(|(_, id)| *id));
        node.known.extend(reply.ids.iter().map(|(_, id)| *id));
        node.synced |= !synced.again;
        if !synced.again && !node.replica.is_suspect() {
            for id in std::mem::take(&mut state.node(i).shown) {
                state.learn(i, id);
            }
        }
        if self.sabotage == Sabotage::NoReissue {
            return synced;
        }
        for strength in [Strength::Soft, Strength::Hard] {
            let targets: Vec<Target> =
                synced.reissue.iter().filter(|r| r.0 == strength).map(|r| r.1).collect();
            if targets.is_empty() {
                continue;
            }
            let nonce = nonce(state);
            state.nonces += 1;
            let node = &state.nodes[i];
            let required = match strength {
                Strength::Soft => node.required,
                Strength::Hard => node.required_hard,
            };
            let elsewhere = targets.iter().all(|target| ELSEWHERE.contains(target));
            let ghost = if elsewhere { 0 } else { required };
            Arc::make_mut(&mut state.ghosts).insert(nonce, (ghost, strength));
            state.node(i).known.insert(nonce);
            state.node(i).begin(Removal { nonce, strength, targets });
        }
        synced
    }

    /// Returns whether `SYNC` makes the nodes equal to the server, and ends, when nothing is in
    /// progress.
    pub(super) fn converges(&self, state: &State) -> bool {
        let busy = |node: &Arc<Node>| {
            node.reply.is_some() || node.answer.is_some() || !node.queue.is_empty()
        };
        if state.has_loaded || state.nodes.iter().any(busy) {
            return true;
        }
        let mut state = state.clone();
        for _ in 0..MAX_ROUNDS {
            for i in 0..2 {
                self.sync(&mut state, i);
                for _ in 0..MAX_ROUNDS {
                    if state.nodes[i].replica.pending().len() == 0 {
                        break;
                    }
                    self.advance(&mut state, i);
                    self.step(&mut state, Action::Reply(i));
                    while !state.nodes[1 - i].queue.is_empty() {
                        self.step(&mut state, Action::Deliver(1 - i));
                    }
                    self.sync(&mut state, i);
                }
            }
            if state.bad.is_some() {
                return false;
            }
            let server = probe(&state.server.0, state.now);
            if state.nodes.iter().all(|node| equal(&node.replica, &server, self.cap < CAP)) {
                return state.nodes.iter().all(|node| !node.replica.is_suspect());
            }
        }
        false
    }
}
