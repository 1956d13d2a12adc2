//! The steps of the key model.

use crinkle_core::protocol::Version;
use crinkle_core::protocol::commits::Commit;
use crinkle_core::protocol::flight::{FlightId, Registration};
use crinkle_core::protocol::ledger::Strength;
use crinkle_core::protocol::record::{self, Head, LoadLock, LoadLockRequest, Put};

use super::keys::{Action, Check, Copied, Keys, Load, Node, Op, Sabotage, Stage, State, Write};
use super::keys_failover as failover;
use super::same::FIRST_NAME;

impl Keys {
    pub(super) fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        if state.step < self.script.len() {
            actions.push(Action::Write(0));
            actions.push(Action::Write(1));
        }
        if state.evictions > 0 && state.record.is_some() {
            actions.push(Action::Evict);
        }
        actions.extend(failover::enabled(state));
        for i in 0..2 {
            let node = &state.nodes[i];
            for (at, write) in node.writes.iter().enumerate() {
                let executed = write.executed;
                actions.push(if executed {
                    Action::Returned(i, at)
                } else {
                    Action::Execute(i, at)
                });
            }
            actions.extend((0..node.loads.len()).map(|at| Action::Load(i, at)));
            if !node.queue.is_empty() {
                actions.push(Action::Deliver(i));
            }
            if node.cut {
                actions.push(Action::Reconnect(i));
            } else if state.cuts > 0 {
                actions.push(Action::Cut(i));
            }
            let unverified = node.l1.is_some_and(|copy| copy.session != node.session);
            if node.check.is_some() || unverified {
                actions.push(Action::Verify(i));
            }
            if node.arrivals > 0 && (node.l1.is_none() || unverified) {
                actions.push(Action::Arrive(i));
            }
        }
    }

    pub(super) fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Write(i) => self.write(state, i),
            Action::Execute(i, at) => execute(state, i, at),
            Action::Returned(i, at) => self.returned(state, i, at),
            Action::Deliver(i) => {
                let (version, bits) = state.nodes[i].queue.remove(0);
                state.nodes[i].required |= bits;
                self.receive(state, i, version);
            }
            Action::Evict => {
                state.evictions -= 1;
                state.record = None;
            }
            Action::Cut(i) => {
                state.cuts -= 1;
                state.nodes[i].cut = true;
                state.nodes[i].queue.clear();
            }
            Action::Reconnect(i) => {
                state.nodes[i].cut = false;
                state.nodes[i].required |= state.executed;
                state.nodes[i].session +=
                    u8::from(self.sabotage != Sabotage::ReconnectKeepsSession);
            }
            Action::Arrive(i) => self.register(state, i),
            Action::Load(i, at) => self.load(state, i, at),
            Action::Verify(i) => self.verify(state, i),
            Action::Replicate | Action::FailOver | Action::Reassert(_) => {
                self.fail_over(state, action);
            }
        }
    }

    /// A node receives the announcement of a version.
    pub(super) fn receive(&self, state: &mut State, i: usize, version: Version) {
        let node = &mut state.nodes[i];
        node.l1 = node.l1.filter(|copy| copy.version == version);
        if self.sabotage != Sabotage::NoFence {
            node.key.receive(version);
        }
        self.remember_last(node, version);
    }

    /// Remembers only the last received version, in a sabotaged variant.
    fn remember_last(&self, node: &mut Node, version: Version) {
        if self.sabotage == Sabotage::LastReceivedOnly {
            node.loads.iter_mut().for_each(|load| load.last = Some(version));
        }
    }

    fn write(&self, state: &mut State, i: usize) {
        let (version, id) = (state.version(i), state.id(i));
        let bit = 1 << state.step;
        let op = self.script[state.step];
        state.step += 1;
        state.source |= bit;
        let value = state.source;
        let node = &mut state.nodes[i];
        node.l1 = None;
        if self.sabotage != Sabotage::NoFence {
            node.key.begin(id, Some(version));
        }
        self.remember_last(node, version);
        let session = node.session;
        node.writes.push(Write { id, op, version, session, bit, value, executed: false });
    }

    fn returned(&self, state: &mut State, i: usize, at: usize) {
        let write = state.nodes[i].writes.remove(at);
        let node = &mut state.nodes[i];
        node.l1 = node.l1.filter(|copy| copy.version == write.version);
        self.remember_last(node, write.version);
        let received = node.key.end(write.id);
        let allowed = match self.sabotage {
            Sabotage::SetInsertsUnchecked | Sabotage::NoFence => true,
            _ => received.allows(write.version),
        };
        if write.op == Op::Set && allowed {
            let Write { value, version, session, .. } = write;
            node.l1 = Some(Copied { value, version, session });
        }
        node.required |= write.bit;
        let strength = if write.op == Op::Expire { Strength::Soft } else { Strength::Hard };
        if state.failovers > 0 || node.lost > 0 {
            node.commits.push(Commit { version: write.version, strength });
        }
    }

    fn register(&self, state: &mut State, i: usize) {
        let id = state.id(i);
        let node = &mut state.nodes[i];
        node.arrivals -= 1;
        // The end of a session fences the loads that began in it.
        if self.sabotage != Sabotage::JoinAcrossSessions {
            for load in node.loads.iter().filter(|load| load.session != node.session) {
                node.key.fence(load.id);
            }
        }
        if self.sabotage == Sabotage::UncheckedJoin
            && let Some(load) = node.loads.first_mut()
        {
            load.required |= node.required;
            return;
        }
        match node.key.register(id) {
            Registration::Join(id) => {
                for load in node.loads.iter_mut().filter(|load| load.id == id) {
                    load.required |= node.required;
                }
            }
            Registration::Lead => {
                let (session, required) = (node.session, node.required);
                let stage = Stage::Begun;
                node.loads.push(Load { id, session, stage, required, last: None, filled: false });
                if state.nodes[i].loads.len() > 2 {
                    state.bad = Some("three flights");
                }
            }
            Registration::Wait(_) => node.arrivals += 1,
        }
    }

    fn load(&self, state: &mut State, i: usize, at: usize) {
        match state.nodes[i].loads[at].stage {
            Stage::Begun => {
                let stage = read(state, i);
                state.nodes[i].loads[at].stage = stage;
            }
            Stage::Loaded { expected, value } => self.put(state, i, at, expected, value),
            Stage::Ended { stored, version, value } => {
                self.ended(state, i, at, stored, version, value);
            }
        }
    }

    fn put(&self, state: &mut State, i: usize, at: usize, expected: Version, value: u8) {
        let version = state.version(i);
        let id = state.nodes[i].loads[at].id;
        state.nodes[i].key.own(id, version);
        let stored = match self.sabotage {
            Sabotage::UnconditionalPut => true,
            Sabotage::AbsentIsFine if state.record.is_none() => true,
            _ => record::put(state.record, expected) == Put::Stored,
        };
        if stored {
            state.record = Some(Head::Value { version, expired: false, refresh: None });
            state.value = value;
            state.nodes[i].loads[at].filled = true;
            state.announce(i, version, 0);
        }
        state.nodes[i].loads[at].stage = Stage::Ended { stored, version, value };
    }

    fn ended(
        &self,
        state: &mut State,
        i: usize,
        at: usize,
        stored: bool,
        version: Version,
        value: u8,
    ) {
        // A node treats its own fill as received: copies of other versions are older.
        if stored && state.nodes[i].loads[at].filled {
            self.receive(state, i, version);
        }
        let load = state.nodes[i].loads.remove(at);
        let node = &mut state.nodes[i];
        let received = node.key.end(load.id);
        let allowed = match self.sabotage {
            Sabotage::NoFence => true,
            Sabotage::LastReceivedOnly => load.last.is_none_or(|last| last == version),
            _ => received.allows(version),
        };
        if stored && allowed {
            let adopts = self.sabotage == Sabotage::FillAdoptsSession;
            let session = if adopts { node.session } else { load.session };
            node.l1 = Some(Copied { value, version, session });
        }
        if state.lacks(load.required, value) {
            state.bad = Some("a caller got a value older than a write it knew");
        }
    }

    /// Begins, executes or ends the version check of an unverified copy.
    fn verify(&self, state: &mut State, i: usize) {
        let Some(check) = state.nodes[i].check.take() else {
            let id = state.id(i);
            let node = &mut state.nodes[i];
            let Some(copy) = node.l1 else { return };
            node.key.begin(id, None);
            let (version, session) = (copy.version, node.session);
            node.check = Some(Check { id, version, session, answer: None });
            return;
        };
        let Some(same) = check.answer else {
            let same = matches!(state.record, Some(Head::Value { version, expired: false, .. })
                if version == check.version);
            state.nodes[i].check = Some(Check { answer: Some(same), ..check });
            return;
        };
        let adopts = self.sabotage == Sabotage::CheckAdoptsSession;
        let node = &mut state.nodes[i];
        let held = node.key.end(check.id).allows(check.version);
        let Some(copy) = node.l1.as_mut().filter(|copy| copy.version == check.version) else {
            return;
        };
        if same && held {
            copy.session = if adopts { node.session } else { check.session };
        } else {
            node.l1 = None;
        }
    }
}

impl State {
    pub(super) fn version(&mut self, i: usize) -> Version {
        Version(self.name(i))
    }

    fn id(&mut self, i: usize) -> FlightId {
        FlightId(self.name(i))
    }

    /// Returns an id that no node has issued.
    fn name(&mut self, i: usize) -> u64 {
        self.nodes[i].names += 1;
        FIRST_NAME + self.nodes[i].names * 2 + i as u64
    }

    pub(super) fn announce(&mut self, from: usize, version: Version, bits: u8) {
        let other = &mut self.nodes[1 - from];
        if !other.cut {
            other.queue.push((version, bits));
        }
    }
}

/// The `READ` of a load, after waiting for any load lock of another load.
fn read(state: &mut State, i: usize) -> Stage {
    let id = state.version(i);
    let replace = match state.record {
        Some(Head::LoadLock(by) | Head::Value { refresh: Some((by, _)), .. }) => Some(by),
        _ => None,
    };
    let ask = LoadLockRequest { id, ttl_ms: 1, replace, hidden: None };
    let decision = record::read(state.record, false, Some(ask), 0);
    if let Some(head) = decision.write {
        state.record = Some(head);
    }
    match (decision.load_lock, state.record) {
        (LoadLock::Granted, Some(head)) => {
            Stage::Loaded { expected: head.version(), value: state.source }
        }
        (_, Some(Head::Value { version, .. })) => {
            Stage::Ended { stored: true, version, value: state.value }
        }
        _ => Stage::Begun,
    }
}

/// The script of a write: it announces, then acts.
fn execute(state: &mut State, i: usize, at: usize) {
    let write = state.nodes[i].writes[at].clone();
    state.nodes[i].writes[at].executed = true;
    state.announce(i, write.version, write.bit);
    match write.op {
        Op::Set => {
            let version = write.version;
            state.record = Some(Head::Value { version, expired: false, refresh: None });
            state.value = write.value;
            state.excused |= state.executed & !write.value;
        }
        Op::Remove => state.record = None,
        Op::Expire => state.record = record::expire(state.record, write.version),
    }
    state.executed |= write.bit;
    state.wrote[i] |= write.bit;
}
