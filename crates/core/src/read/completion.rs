//! Completes a flight: one guard, which answers every caller exactly once (R3).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::entry::{Entry, ErasedEntry, Source, Value};
use crate::events::Event;
use crate::flight::{Completed, Failure, Flight, Outcome, Progress, StaleReason, Usability};
use crate::node::Node;
use crate::protocol::flight::Received;
use crate::protocol::validity::Verdict;

/// Completes its flight exactly once (R3). If dropped first, it completes the flight with an error.
pub(super) struct CompletionGuard {
    pub(super) node: Arc<Node>,
    pub(super) flight: Arc<Flight>,
    completed: bool,
}

impl CompletionGuard {
    pub(super) fn new(node: Arc<Node>, flight: Arc<Flight>) -> Self {
        Self { node, flight, completed: false }
    }

    /// Completes with a value: inserts it into L1 if the fence allows and it is visible (R2), then
    /// answers every caller.
    ///
    /// True if L1 kept the value.
    pub(super) fn complete<T: Value>(self, entry: Arc<Entry<T>>, source: Source) -> bool {
        self.node.fresh_hit(&entry.meta, source, self.node.now());
        let erased: ErasedEntry = entry;
        let mut kept = false;
        let settle = |node: &Node, flight: &Flight, erased: &ErasedEntry, allowed: bool| {
            let allowed = allowed || sabotaged!(OvertakenIsKept);
            let now = node.now();
            let verdict = node.coherence.judge(erased.meta(), now);
            let usability = if allowed && verdict == Verdict::Fresh {
                Usability::Fresh
            } else {
                Usability::Overtaken
            };
            kept = allowed && !matches!(verdict, Verdict::Hidden(_));
            if kept {
                node.l1.insert(flight.hash, ErasedEntry::clone(erased));
            } else {
                node.counters.fence_hits.add();
            }
            usability
        };
        let (node, flight) = (Arc::clone(&self.node), Arc::clone(&self.flight));
        self.complete_with(erased, source, settle);
        if kept && source == Source::Factory {
            node.emit(&flight.key, |key| Event::Set { key, filled: true });
        }
        kept
    }

    /// Completes with a value that L2 refused: only the leader, and callers that came before the
    /// load began, may use it.
    pub(super) fn complete_refused<T: Value>(self, entry: Arc<Entry<T>>) {
        self.node.counters.fill_refused.add();
        self.complete_with(entry, Source::Factory, |_, _, _, _| Usability::Refused);
    }

    /// Completes with a valid value that the factory asked not to store.
    pub(super) fn complete_unstored<T: Value>(self, entry: Arc<Entry<T>>) {
        let settle = |node: &Node, _: &Flight, erased: &ErasedEntry, allowed| {
            let fresh =
                allowed && node.coherence.judge(erased.meta(), node.now()) == Verdict::Fresh;
            if fresh { Usability::Fresh } else { Usability::Overtaken }
        };
        self.complete_with(entry, Source::Factory, settle);
    }

    /// Completes with a stale value that the leader accepts.
    pub(super) fn complete_stale<T: Value>(mut self, entry: Arc<Entry<T>>, pause: StaleReason) {
        let erased: ErasedEntry = entry;
        self.end(|node, flight, received| {
            if received.allows(erased.meta().version) {
                keep_stale(node, flight, &erased);
            }
            Outcome::Stale(erased, pause)
        });
    }

    /// Completes with a failure. `kept` goes into L1, where it holds the throttle of the factory.
    pub(super) fn fail(mut self, failure: Failure, kept: Option<ErasedEntry>) {
        self.end(|node, flight, received| {
            let removed = flight.removed.load(Ordering::Acquire);
            let visible = |erased: &ErasedEntry| !removed && is_visible(node, erased);
            if let Some(kept) = kept.filter(visible)
                && received.allows(kept.meta().version)
            {
                keep_stale(node, flight, &kept);
            }
            let stale = failure.stale.filter(visible);
            Outcome::Failed(Failure { stale, ..failure })
        });
    }

    /// Completes with a value of the given usability.
    fn complete_with(
        mut self,
        erased: ErasedEntry,
        source: Source,
        usability: impl FnOnce(&Node, &Flight, &ErasedEntry, bool) -> Usability,
    ) {
        let version = erased.meta().version;
        self.end(move |node, flight, received| {
            let usability = usability(node, flight, &erased, received.allows(version));
            Outcome::Value(Completed { erased, source, usability })
        });
    }

    fn end(&mut self, outcome: impl FnOnce(&Node, &Flight, Received) -> Outcome) {
        let (node, flight) = (&self.node, &self.flight);
        let outcome =
            node.flights.end(flight.hash, flight.id, |received| outcome(node, flight, received));
        flight.progress.write(Progress::Done(outcome));
        // Set last: if dropping a value panics before this, the guard still completes the flight.
        self.completed = true;
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if !self.completed {
            let failure = self.node.lost(&self.flight);
            self.end(|_, _, _| Outcome::Failed(failure));
        }
    }
}

/// Keeps a stale value in L1, unless L1 holds a fresh one that the call skipped.
fn keep_stale(node: &Node, flight: &Flight, erased: &ErasedEntry) {
    let fresh = |h: ErasedEntry| node.coherence.judge(h.meta(), node.now()) == Verdict::Fresh;
    let better = node.l1.get(flight.hash, &flight.key).is_some_and(fresh);
    if !better && is_visible(node, erased) {
        node.l1.insert(flight.hash, ErasedEntry::clone(erased));
    }
}

/// Whether no removal hides the entry.
fn is_visible(node: &Node, erased: &ErasedEntry) -> bool {
    let verdict = node.coherence.judge(erased.meta(), node.now());
    !matches!(verdict, Verdict::Hidden(_)) || sabotaged!(FailSafeIgnoresHard)
}
