//! The steps of the ledger model.

use std::sync::Arc;

use crinkle_core::protocol::ledger::{
    Advance, Advanced, Authority, Item, ReceiveResult, Removal, Replica, Strength, SyncAsk,
    SyncReply,
};
use crinkle_core::protocol::validity::Verdict;
use crinkle_core::protocol::{Epoch, Nonce};

use super::ledger::{
    Action, ELSEWHERE, Entry, Flight, Ledger, Node, RETENTION_MS, Sabotage, State, TAG, probe,
};
use super::same::FIRST_NAME;

impl Ledger {
    pub(super) fn initial(&self) -> State {
        let mut state = State {
            source: 1,
            now: 1,
            issued: 1,
            server: Arc::new((Authority::with_capacity(self.cap), None)),
            copy: None,
            nodes: self.loaders.map(|loads| {
                let flights = if loads { self.flights } else { 0 };
                Arc::new(Node { flights, ..Node::default() })
            }),
            ghosts: Arc::default(),
            step: 0,
            has_loaded: false,
            drops: self.drops,
            failovers: self.failovers,
            flushes: self.flushes,
            epochs: 1,
            nonces: 1,
            resent: 0,
            monotonic: true,
            bad: None,
        };
        for node in 0..2 {
            self.sync(&mut state, node);
        }
        state.epochs = 2;
        state.copy = (self.failovers > 0).then(|| Arc::clone(&state.server));
        state
    }

    pub(super) fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        if state.step < self.script.len() {
            actions.push(Action::Begin(0));
            if state.step > 0 {
                actions.push(Action::Begin(1));
            }
        }
        if state.failovers > 0 {
            if state.copy.as_ref() != Some(&state.server) {
                actions.push(Action::Replicate);
            }
            actions.push(Action::Failover);
        }
        if state.flushes > 0 {
            actions.push(Action::Flush);
        }
        for i in 0..2 {
            self.enabled_at(state, i, actions);
        }
    }

    fn enabled_at(&self, state: &State, i: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[i];
        if node.reply.is_some() {
            actions.push(Action::Reply(i));
            if state.drops > 0 {
                actions.push(Action::LoseReply(i));
            }
        } else if node.replica.pending().len() > 0 && !node.replica.is_suspect() {
            actions.push(Action::Advance(i));
        }
        if !node.queue.is_empty() {
            actions.push(Action::Deliver(i));
            if state.drops > 0 {
                actions.push(Action::Drop(i));
            }
            if self.reorder && node.queue.len() > 1 {
                actions.push(Action::DeliverSecond(i));
            }
        }
        if node.answer.is_some() {
            actions.push(Action::AnswerSync(i));
            if state.drops > 0 {
                actions.push(Action::LoseSync(i));
            }
        } else {
            actions.push(if self.slow_sync { Action::AskSync(i) } else { Action::Sync(i) });
        }
        match &node.flight {
            None => {
                if node.flights > 0 && !node.replica.is_suspect() {
                    actions.push(Action::Start(i));
                }
            }
            Some(flight) => {
                if self.joins && flight.joined.is_none() {
                    actions.push(Action::Join(i));
                }
                actions.push(Action::Done(i));
            }
        }
        if node.l1 != state.server.1 && state.server.1.is_some() {
            actions.push(Action::ReadL2(i));
        }
    }

    pub(super) fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Begin(i) => self.begin(state, i),
            Action::Advance(i) => self.advance(state, i),
            Action::Reply(i) => {
                if let Some((removal, advanced)) = state.node(i).reply.take() {
                    let item = Item { seq: advanced.seq, prev: advanced.prev, removal };
                    self.receive(state, i, Source::Reply(advanced), item);
                }
            }
            Action::LoseReply(i) => {
                state.drops -= 1;
                if let Some((removal, _)) = state.node(i).reply.take() {
                    self.resend(state, i, removal.nonce);
                }
            }
            Action::Deliver(i) => {
                let (epoch, item) = state.node(i).queue.remove(0);
                self.receive(state, i, Source::Message(epoch), item);
            }
            Action::DeliverSecond(i) => {
                let (epoch, item) = state.node(i).queue.remove(1);
                self.receive(state, i, Source::Message(epoch), item);
            }
            Action::Drop(i) => {
                state.drops -= 1;
                state.node(i).queue.remove(0);
            }
            Action::Sync(i) => self.sync(state, i),
            Action::AskSync(i) => self.ask_sync(state, i),
            Action::AnswerSync(i) => {
                self.answer_sync(state, i);
            }
            Action::LoseSync(i) => {
                state.drops -= 1;
                state.node(i).answer = None;
                state.node(i).shown.clear();
                state.node(i).replica.abandon();
            }
            Action::Replicate => state.copy = Some(Arc::clone(&state.server)),
            Action::Failover => self.failover(state),
            Action::Flush => {
                state.flushes -= 1;
                state.server = Arc::new((Authority::with_capacity(self.cap), None));
            }
            Action::Start(i) => {
                state.has_loaded = true;
                start(state.source, state.node(i));
            }
            Action::Join(i) => {
                let required = state.nodes[i].required;
                if let Some(flight) = &mut state.node(i).flight {
                    flight.joined = Some(required);
                }
            }
            Action::Done(i) => self.done(state, i),
            Action::ReadL2(i) => self.read_l2(state, i),
        }
    }

    fn begin(&self, state: &mut State, i: usize) {
        let (target, strength) = self.script[state.step];
        state.step += 1;
        let mut ghost = 0;
        if !ELSEWHERE.contains(&target) {
            state.source += 1;
            ghost = state.source;
        }
        let nonce = nonce(state);
        state.nonces += 1;
        Arc::make_mut(&mut state.ghosts).insert(nonce, (ghost, strength));
        state.learn(i, nonce);
        state.node(i).begin(Removal { nonce, strength, targets: vec![target] });
    }

    pub(super) fn advance(&self, state: &mut State, i: usize) {
        let Some(removal) = state.nodes[i].replica.pending().next().map(|p| p.removal.clone())
        else {
            return;
        };
        let advanced = number(state, i, &removal);
        let item = Item { seq: advanced.seq, prev: advanced.prev, removal: removal.clone() };
        state.node(1 - i).queue.push((advanced.epoch, item));
        state.node(i).reply = Some((removal, advanced));
        if !state.monotonic {
            state.require_sync();
        }
    }

    /// Prepares another attempt at a removal whose reply was lost; it has a new nonce.
    fn resend(&self, state: &mut State, i: usize, lost: Nonce) {
        let retried = nonce(state);
        if self.sabotage == Sabotage::NonceSentTwice
            || state.node(i).replica.resend(lost, retried).is_none()
        {
            return;
        }
        state.nonces += 1;
        state.resent += 1;
        let ghosts = Arc::make_mut(&mut state.ghosts);
        if let Some(ghost) = ghosts.get(&lost).copied() {
            ghosts.insert(retried, ghost);
        }
        state.node(i).known.insert(retried);
    }

    fn receive(&self, state: &mut State, i: usize, source: Source, mut item: Item) {
        let node = state.node(i);
        let nonce = item.removal.nonce;
        let last = last_of(&node.replica);
        match self.sabotage {
            Sabotage::IgnoreGap => item.prev = last,
            Sabotage::NewestAsPrev if item.prev.is_some() && item.prev == node.newest => {
                item.prev = last;
            }
            _ => {}
        }
        if self.sabotage == Sabotage::NewestAsPrev {
            node.newest = Some(nonce);
        }
        if self.sabotage == Sabotage::LastWriteWins && item.removal.targets.contains(&TAG) {
            node.last_number = item.seq;
        }
        let (epoch, received) = match source {
            Source::Message(epoch) => (epoch, node.replica.received(epoch, item)),
            Source::Reply(advanced) => {
                let advanced = Advanced { prev: item.prev, ..advanced };
                (advanced.epoch, node.replica.committed(item.removal, advanced))
            }
        };
        // A number of an epoch that the server has lost binds only its issuer, which retries.
        if received != ReceiveResult::Foreign
            || probe(&state.server.0, state.now).epoch() == Some(epoch)
        {
            state.learn(i, nonce);
        }
    }

    fn failover(&self, state: &mut State) {
        state.failovers -= 1;
        let top = state.issued.max(probe(&state.server.0, state.now).frontier());
        state.server = state.copy.clone().unwrap_or_default();
        if self.clock_ahead {
            state.now = top + 1;
        } else if probe(&state.server.0, state.now).frontier() < top {
            state.monotonic = false;
        }
        state.require_sync();
    }

    fn done(&self, state: &mut State, i: usize) {
        let node = state.node(i);
        let Some(mut flight) = node.flight.take() else { return };
        if self.sabotage == Sabotage::StampAfter {
            flight.entry.stamp = node.replica.frontier();
            flight.entry.epoch = node.replica.epoch();
        }
        if self.sabotage == Sabotage::OriginAfter {
            flight.entry.origin = node.generation;
        }
        let fresh = self.judge(&state.nodes[i], &flight.entry) == Verdict::Fresh;
        if let Some(required) = flight.joined {
            let given = fresh || self.sabotage == Sabotage::UncheckedJoin;
            if given && flight.entry.value < required && Self::counts(state) {
                state.bad = Some("joiner");
            }
        }
        if fresh {
            state.node(i).l1 = Some(flight.entry);
            state.server().1 = Some(Entry { origin: 0, ..flight.entry });
        }
    }

    fn read_l2(&self, state: &mut State, i: usize) {
        let Some(entry) = state.server.1 else { return };
        if self.judge(&state.nodes[i], &entry) == Verdict::Fresh {
            state.node(i).l1 = Some(entry);
        }
    }
}

enum Source {
    Message(Epoch),
    Reply(Advanced),
}

impl Node {
    pub(super) fn begin(&mut self, removal: Removal) {
        self.generation += 1;
        self.replica.begin(removal, self.generation);
    }
}

impl State {
    /// Records that the node knows this removal.
    pub(super) fn learn(&mut self, i: usize, nonce: Nonce) {
        let ghost = self.ghosts.get(&nonce).copied();
        let node = self.node(i);
        node.known.insert(nonce);
        if let Some((ghost, strength)) = ghost {
            node.required = node.required.max(ghost);
            if strength == Strength::Hard {
                node.required_hard = node.required_hard.max(ghost);
            }
        }
    }

    pub(super) fn sync(&mut self, ask: &SyncAsk) -> SyncReply {
        let now = self.now;
        self.server().0.sync(now, ask)
    }

    fn advance(&mut self, ask: &Advance) -> Advanced {
        let now = self.now;
        self.server().0.advance(now, ask)
    }

    fn require_sync(&mut self) {
        for i in 0..2 {
            self.node(i).synced = false;
        }
    }
}

fn start(source: u8, node: &mut Node) {
    node.flights -= 1;
    let entry = Entry {
        value: source,
        epoch: node.replica.epoch(),
        stamp: node.replica.frontier(),
        origin: node.generation,
    };
    node.flight = Some(Flight { entry, joined: None });
}

fn number(state: &mut State, i: usize, removal: &Removal) -> Advanced {
    let node = &state.nodes[i];
    let ask = Advance {
        removal: removal.clone(),
        epoch: node.replica.epoch(),
        frontier: node.replica.highest(),
        new_epoch: epoch(state),
        retention_ms: RETENTION_MS,
    };
    let advanced = state.advance(&ask);
    state.issued = state.issued.max(advanced.seq);
    if advanced.epoch == epoch(state) {
        state.epochs += 1;
    }
    advanced
}

/// The newest contiguous id of a replica.
fn last_of(replica: &Replica) -> Option<Nonce> {
    let mut replica = replica.clone();
    replica.abandon();
    replica.ask(Epoch(99), 1, RETENTION_MS).last
}

/// The next epoch id.
pub(super) fn epoch(state: &State) -> Epoch {
    Epoch(2 * FIRST_NAME + state.epochs)
}

pub(super) fn nonce(state: &State) -> Nonce {
    Nonce(FIRST_NAME + state.nonces)
}
