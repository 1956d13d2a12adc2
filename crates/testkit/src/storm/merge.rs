//! Merges the records of several processes into one history.

use std::collections::HashMap;

use super::WORKERS;
use super::event::{Event, Ns, WorkerReport};
use super::faults::{DataLoss, Trouble};
use crate::history::{
    Answer, Applied, At, Call, Fault, Load, Log, NodeRun, Operation, Received, Synced,
};
use crate::sim::HARD_MS;

/// How long a `set` with unknown outcome may still run: its limit, and its slack.
const LATE_SET: Ns = (HARD_MS + 2000) * 1_000_000;

/// Returns the history of a round.
pub(super) fn merge(reports: &[WorkerReport], trouble: &Trouble) -> Log {
    let order = Order::of(reports, trouble);
    let mut merged = Merged { order, ..Merged::default() };
    for (node, report) in reports.iter().enumerate() {
        report.events.iter().for_each(|event| merged.name(node, event));
    }
    for (node, report) in reports.iter().enumerate() {
        report.events.iter().for_each(|event| merged.happened(node, event));
    }
    for loss in &trouble.losses {
        merged.injected(*loss);
    }
    merged.finish(trouble)
}

/// A removal's epoch and number.
type Token = u128;

/// All moments of a round, in order.
#[derive(Default)]
struct Order(Vec<Ns>);

impl Order {
    fn of(reports: &[WorkerReport], trouble: &Trouble) -> Self {
        let mut all = Vec::new();
        for event in reports.iter().flat_map(|report| &report.events) {
            match event {
                Event::Call { at, .. }
                | Event::Ended { at, .. }
                | Event::Load { at, .. }
                | Event::Loaded { at, .. }
                | Event::Received { at, .. }
                | Event::Waited { at, .. }
                | Event::Subscribed { at }
                | Event::Seen { at, .. } => all.push(*at),
                Event::Confirmed { began, at, .. } => all.extend([*began, *at]),
                Event::Applied { sent, at, .. } => {
                    all.extend([*sent, at.unwrap_or(*sent + LATE_SET)]);
                }
                Event::Synced { sent, at } => all.extend([*sent, *at]),
                Event::Answer { .. } => {}
            }
        }
        for injected in &trouble.injected {
            all.extend([injected.from, injected.until]);
        }
        for loss in &trouble.losses {
            match *loss {
                DataLoss::Wiped { from, until } | DataLoss::LedgerLost { from, until } => {
                    all.extend([from, until]);
                }
                DataLoss::FailedOver { since, at } => all.extend([since, at]),
            }
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// Returns the place of a moment in the order; the first is 1.
    fn at(&self, ns: Ns) -> At {
        let place = self.0.partition_point(|at| *at < ns) + 1;
        let order = u32::try_from(place).unwrap_or(u32::MAX);
        let first = self.0.first().copied().unwrap_or(ns);
        At { order, ms: ns.saturating_sub(first) / 1_000_000 }
    }
}

/// A history under construction.
#[derive(Default)]
struct Merged {
    order: Order,
    log: Log,
    calls: HashMap<usize, usize>,
    loads: HashMap<usize, usize>,
    /// When a removal was first sent, by any node.
    removals: HashMap<u64, Ns>,
    applied: Vec<(Applied, Option<u64>, Option<Token>)>,
    received: Vec<(usize, u64, At)>,
    waited: Vec<(usize, Token, At)>,
}

impl Merged {
    /// Reserves indexes for calls and loads, since other events may refer to them earlier.
    fn name(&mut self, node: usize, event: &Event) {
        match event {
            Event::Call { at, id, what, scopes } => {
                self.calls.insert(*id, self.log.calls.len());
                self.log.calls.push(Call::begun(node, *what, scopes.clone(), self.order.at(*at)));
            }
            Event::Load { at, id, key, call, tags, is_set } => {
                self.loads.insert(*id, self.log.loads.len());
                self.log.loads.push(Load {
                    node,
                    key: *key,
                    call: *call,
                    began: self.order.at(*at),
                    ended: None,
                    version: 0,
                    tags: *tags,
                    is_set: *is_set,
                    in_batch: false,
                    confirmed: Vec::new(),
                    stored: Vec::new(),
                });
            }
            Event::Applied { sent, id: Some((_, nonce)), .. } => {
                let first = self.removals.entry(*nonce).or_insert(*sent);
                *first = (*first).min(*sent);
            }
            _ => {}
        }
    }

    fn happened(&mut self, node: usize, event: &Event) {
        let order = &self.order;
        match event {
            Event::Ended { at, call, outcome, said, has_barrier, error } => {
                let end = Some(order.at(*at));
                if let Some(call) = self.calls.get(call).map(|at| &mut self.log.calls[*at]) {
                    (call.end, call.outcome, call.said) = (end, *outcome, *said);
                    (call.has_barrier, call.error) = (*has_barrier, error.clone());
                }
            }
            Event::Answer { call, key, load, says_key, stale, source } => {
                let source = match source.as_str() {
                    "L1" => "L1",
                    "L2" => "L2",
                    "factory" => "factory",
                    "fail-safe" => "fail-safe",
                    _ => "elsewhere",
                };
                let (Some(call), Some(load)) = (self.calls.get(call), self.loads.get(load)) else {
                    let what = format!("load {load} was answered, but no worker recorded it");
                    return self.log.seen.push(("S12", what, Some(*key), At::default()));
                };
                let (key, load, says_key, stale) = (*key, *load, *says_key, *stale);
                let answer = Answer { key, load, says_key, stale, source };
                self.log.calls[*call].answers.push(answer);
            }
            Event::Loaded { at, load, version } => {
                if let Some(load) = self.loads.get(load).map(|at| &mut self.log.loads[*at]) {
                    (load.ended, load.version) = (Some(order.at(*at)), *version);
                }
            }
            Event::Confirmed { began, at, load } => {
                if let Some(load) = self.loads.get(load).map(|at| &mut self.log.loads[*at]) {
                    load.confirmed.push((order.at(*began).order, order.at(*at).order));
                }
            }
            Event::Applied { .. } => self.applied(node, event),
            Event::Received { at, message } => self.received.push((node, *message, order.at(*at))),
            Event::Waited { at, token } => self.waited.push((node, *token, order.at(*at))),
            Event::Synced { sent, at } => {
                let (applied, at) = (order.at(*sent), order.at(*at));
                self.log.synced.push(Synced { node, applied, at, is_equal: true });
            }
            Event::Subscribed { at } => self.log.subscribed.push((node, order.at(*at))),
            Event::Seen { at, rule, what } => {
                let rules = ["S12", "S14", "L1", "L3", "L6", "L7"];
                let rule = rules.into_iter().find(|known| known == rule).unwrap_or("other");
                let what = format!("node {node}: {what}");
                self.log.seen.push((rule, what, None, order.at(*at)));
            }
            Event::Call { .. } | Event::Load { .. } => {}
        }
    }

    fn applied(&mut self, node: usize, event: &Event) {
        let Event::Applied { sent, at, key, operation, call, message, id } = event else { return };
        let load = |load: usize| self.loads.get(&load).copied();
        let operation = match *operation {
            Operation::Put(one) => load(one).map(Operation::Put),
            Operation::Set(one) => load(one).map(Operation::Set),
            other => Some(other),
        };
        let Some(operation) = operation else { return };
        let first = id.and_then(|(_, nonce)| self.removals.get(&nonce)).map_or(*sent, |ns| *ns);
        // A fill waits for its version without a limit; a `set` has a limit.
        let latest = match (at, operation) {
            (Some(at), _) => self.order.at(*at),
            (None, Operation::Set(_)) => self.order.at(sent + LATE_SET),
            (None, _) => At { order: u32::MAX, ms: u64::MAX },
        };
        let applied = Applied {
            at: latest,
            sent: self.order.at(*sent).order,
            not_before: self.order.at(first).order,
            sure: at.is_some(),
            node: Some(node),
            key: *key,
            operation,
            call: call.and_then(|call| self.calls.get(&call).copied()),
            version: None,
            stamp: None,
            announced: false,
            lost: None,
        };
        let number = match (id, operation) {
            (Some((epoch, _)), Operation::Advance { number, .. }) => {
                Some((u128::from(*epoch) << 64) | u128::from(number))
            }
            _ => None,
        };
        self.applied.push((applied, *message, number));
    }

    fn injected(&mut self, loss: DataLoss) {
        let (operation, from, at) = match loss {
            DataLoss::Wiped { from, until } => (Operation::Wipe, from, until),
            DataLoss::LedgerLost { from, until } => (Operation::LedgerLost, from, until),
            DataLoss::FailedOver { since, at } => {
                (Operation::Failover(self.order.at(since).order), at, at)
            }
        };
        let from = self.order.at(from).order;
        let at = self.order.at(at);
        let applied = Applied {
            at,
            sent: from,
            not_before: from,
            sure: true,
            node: None,
            key: None,
            operation,
            call: None,
            version: None,
            stamp: None,
            announced: false,
            lost: None,
        };
        self.applied.push((applied, None, None));
    }

    /// Sorts the changes and resolves which node received which change.
    fn finish(mut self, trouble: &Trouble) -> Log {
        let mut log = self.log;
        for load in &mut log.loads {
            load.call = self.calls.get(&load.call).copied().unwrap_or_default();
        }
        for call in &mut log.calls {
            if let crate::history::What::Set(load) = &mut call.what {
                *load = self.loads.get(load).copied().unwrap_or_default();
            }
        }
        self.applied.sort_by_key(|(applied, _, _)| applied.at);
        let (mut by_message, mut by_number) = (HashMap::new(), HashMap::new());
        for (applied, message, number) in self.applied {
            let index = log.apply(applied);
            message.map(|message| by_message.entry(message).or_insert(index));
            number.map(|number| by_number.entry(number).or_insert(index));
        }
        let announced =
            self.received.iter().map(|(node, message, at)| (*node, by_message.get(message), *at));
        let waited = self.waited.iter().map(|(node, id, at)| (*node, by_number.get(id), *at));
        for (node, applied, at) in announced.chain(waited) {
            log.received.extend(applied.map(|applied| Received { node, applied: *applied, at }));
        }
        log.subscribed.sort_by_key(|(_, at)| *at);
        let born = At { order: 1, ms: 0 };
        log.node_runs = (0..WORKERS)
            .map(|slot| NodeRun { slot, born, died: None, jumped_ms: None, pace: None })
            .collect();
        for injected in &trouble.injected {
            let (name, node) = injected.judged();
            let until_ms = self.order.at(injected.until).ms;
            log.faults.push(Fault { name, node, from: self.order.at(injected.from), until_ms });
        }
        log
    }
}
