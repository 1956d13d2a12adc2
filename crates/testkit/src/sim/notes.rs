//! What the history records of faults, calls and loads.

use super::world::World;
use crate::history::{Answer, Applied, Call, Fault, Load, Operation, Outcome, Scope, What};

impl World {
    pub(super) fn fault(&self, name: &'static str, node: Option<usize>, for_ms: u64) {
        let from = self.at();
        let mut log = self.log.lock();
        log.count(name);
        log.faults.push(Fault { name, node, from, until_ms: from.ms + for_ms });
    }

    pub(super) fn begin_call(&self, node: usize, what: What, scopes: Vec<Scope>) -> usize {
        let start = self.at();
        let mut log = self.log.lock();
        log.calls.push(Call::begun(node, what, scopes, start));
        log.calls.len() - 1
    }

    pub(super) fn end_call(&self, call: usize, outcome: Outcome) {
        let end = self.at();
        let mut log = self.log.lock();
        let companion = log.companions.get(&call).copied();
        for part in [Some(call), companion].into_iter().flatten() {
            (log.calls[part].end, log.calls[part].outcome) = (Some(end), outcome);
        }
    }

    /// Records the begin of a factory run or of a `set`; returns its load id.
    pub(super) fn begin_load(
        &self,
        node: usize,
        key: u8,
        call: usize,
        tags: u8,
        is_set: bool,
    ) -> usize {
        let (began, version) = (self.at(), self.read_source(key));
        let mut log = self.log.lock();
        let (ended, confirmed, stored) = (None, Vec::new(), Vec::new());
        log.loads.push(Load {
            node,
            key,
            call,
            began,
            ended,
            version,
            tags,
            is_set,
            in_batch: false,
            confirmed,
            stored,
        });
        log.loads.len() - 1
    }

    pub(super) fn answer(&self, call: usize, answer: Answer) {
        self.log.lock().calls[call].answers.push(answer);
    }

    /// Records a fault that changed the data of the servers.
    pub(super) fn changed_by_fault(
        &self,
        name: &'static str,
        key: Option<u8>,
        operation: Operation,
    ) {
        self.fault(name, None, 0);
        let at = self.at();
        self.log.lock().apply(Applied {
            at,
            sent: at.order,
            not_before: at.order,
            sure: true,
            node: None,
            key,
            operation,
            call: None,
            version: None,
            stamp: None,
            announced: false,
            lost: None,
        });
    }
}
