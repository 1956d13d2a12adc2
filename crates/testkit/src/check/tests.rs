//! Tests of the judge: they write a history and check the verdict.

mod quiet;
mod written;

use super::{Excuse, Terms, check};
use crate::history::{
    Allows, Answer, Applied, At, Call, Fault, Load, Log, NodeRun, Operation, Outcome, STOPPED,
    Said, Scope, What,
};

fn terms() -> Terms {
    Terms {
        poll_ms: 500,
        coherence_ms: 10_900,
        hard_ms: 400,
        late_ms: 800,
        heals_ms: 500,
        late_set_ms: 1000,
        fused: true,
        fails_over: true,
        trip_ms: None,
        strict: true,
        written: true,
        options: false,
        mixed: false,
    }
}

/// A handwritten history with two nodes and one key.
#[derive(Default)]
struct Story(Log);

impl Story {
    fn new() -> Self {
        let mut story = Self::default();
        let born = story.0.at(0);
        let run = |slot| NodeRun { slot, born, died: None, jumped_ms: None, pace: None };
        story.0.node_runs = vec![run(0), run(1)];
        story
    }

    fn call(&mut self, node: usize, what: What, (from, to): (u64, u64), said: Said) -> usize {
        let start = self.0.at(from);
        let end = Some(At { order: start.order, ms: to });
        self.0.calls.push(Call {
            node,
            what,
            scopes: vec![Scope::Key(0)],
            start,
            end,
            outcome: Outcome::Done,
            answers: Vec::new(),
            said,
            has_barrier: false,
            error: String::new(),
            asked: 0,
            allows: Allows::default(),
        });
        self.0.calls.len() - 1
    }

    fn end(&mut self, call: usize) {
        let ms = self.0.calls[call].end.map_or(0, |at| at.ms);
        self.0.calls[call].end = Some(self.0.at(ms));
    }

    fn load(&mut self, node: usize, call: usize, ms: u64, is_set: bool) -> usize {
        let began = self.0.at(ms);
        self.0.loads.push(Load {
            node,
            key: 0,
            call,
            began,
            ended: None,
            version: 0,
            tags: 0,
            is_set,
            in_batch: false,
            confirmed: Vec::new(),
            stored: Vec::new(),
        });
        self.0.loads.len() - 1
    }

    /// The store does something. Returns the index of the change.
    fn operation(
        &mut self,
        operation: Operation,
        node: Option<usize>,
        call: Option<usize>,
        ms: u64,
    ) -> usize {
        let at = self.0.at(ms);
        let of_key = matches!(
            operation,
            Operation::Put(_)
                | Operation::Set(_)
                | Operation::Remove
                | Operation::Expire
                | Operation::Evict
        );
        let key = of_key.then_some(0);
        let (sent, not_before) = (at.order, at.order);
        self.0.apply(Applied {
            at,
            sent,
            not_before,
            sure: true,
            node,
            key,
            operation,
            call,
            version: None,
            stamp: None,
            announced: false,
            lost: None,
        })
    }

    fn answer(&mut self, call: usize, load: usize) {
        self.0.calls[call].answers.push(Answer {
            key: 0,
            load,
            says_key: 0,
            stale: false,
            source: "L2",
        });
        self.end(call);
    }

    fn rules(&self) -> Vec<&'static str> {
        self.rules_by(&terms())
    }

    fn rules_by(&self, terms: &Terms) -> Vec<&'static str> {
        let mut rules: Vec<_> =
            check(&self.0, terms).violations.iter().map(|found| found.rule).collect();
        rules.dedup();
        rules
    }

    fn excused(&self, excuse: Excuse) -> u64 {
        self.excused_by(&terms(), excuse)
    }

    fn excused_by(&self, terms: &Terms, excuse: Excuse) -> u64 {
        check(&self.0, terms).excuses.get(excuse.name()).copied().unwrap_or(0)
    }
}

/// A `set` is not acknowledged, recovery invalidates the key, and then the `set` runs after all.
fn set_after_recovery() -> Story {
    let mut story = Story::new();
    let set = story.call(0, What::Set(0), (2500, 2900), Said::Unknown);
    let load = story.load(0, set, 2500, true);
    story.end(set);
    story.operation(Operation::Remove, Some(0), None, 3900);
    story.operation(Operation::Set(load), Some(0), Some(set), 4300);
    let look = story.call(1, What::LastLook, (24_000, 24_000), Said::Nothing);
    story.answer(look, load);
    story
}

#[test]
fn a_set_that_runs_after_its_limit_is_reported_twice() {
    assert_eq!(set_after_recovery().rules(), ["S10"]);
    assert_eq!(check(&set_after_recovery().0, &terms()).violations.len(), 2);
}

/// The command of a removal is stuck. Recovery has removed the key meanwhile, and a `set` that
/// overlapped both came later. A later run of the stuck command hides nothing from earlier reads.
#[test]
fn a_set_after_recovery_is_not_hidden_by_a_removal_that_is_still_on_its_way() {
    let story = |set_at: u64| {
        let mut story = Story::new();
        let set = story.call(0, What::Set(0), (2500, 2540), Said::Nothing);
        let load = story.load(0, set, 2500, true);
        story.0.calls[set].outcome = Outcome::Cancelled;
        story.end(set);
        let removal = story.call(1, What::Invalidate { hard: true }, (2600, 3000), Said::Unknown);
        let mut operations =
            [(Operation::Set(load), Some(set), set_at), (Operation::Remove, None, 3010)];
        operations.sort_by_key(|(.., at)| *at);
        for (operation, call, at) in operations {
            let node = if call.is_some() { 0 } else { 1 };
            story.operation(operation, Some(node), call, at);
        }
        story.end(removal);
        let read = story.call(1, What::Get, (3900, 3910), Said::Nothing);
        story.answer(read, load);
        story.0.calls[read].answers[0].stale = true;
        story.operation(Operation::Remove, Some(1), Some(removal), 4500);
        story
    };
    assert_eq!(story(3200).rules(), [""; 0]);
    assert_eq!(story(3200).excused(Excuse::WrittenLater), 1);
    assert_eq!(story(2900).rules(), ["S9"], "recovery has removed it");
}

/// The node's clock jumped, so the latest time that it gave L2 was wrong. The cache promises
/// nothing for clocks that jump while no time passes.
#[test]
fn a_set_of_a_node_whose_clock_jumped_may_run_after_recovery() {
    let mut story = set_after_recovery();
    story.0.node_runs[0].jumped_ms = Some(1466);
    assert_eq!(story.rules(), [""; 0]);
    assert_eq!(story.excused(Excuse::ClockJumped), 2);
}

/// A failover takes back a `set` that had replaced a value, and no node asserts it again.
#[test]
fn a_node_forgets_what_it_has_written_if_its_clock_jumps() {
    let story = |jumped_ms: Option<u64>| {
        let mut story = Story::new();
        let set = |story: &mut Story, ms| {
            let set = story.call(0, What::Set(0), (ms, ms + 10), Said::Done);
            let load = story.load(0, set, ms, true);
            story.operation(Operation::Set(load), Some(0), Some(set), ms + 5);
            story.end(set);
            load
        };
        let old = set(&mut story, 1000);
        let since = story.0.at(1100).order;
        set(&mut story, 2000);
        story.operation(Operation::Failover(since), None, None, 3000);
        story.0.node_runs[0].jumped_ms = jumped_ms;
        let look = story.call(1, What::LastLook, (24_000, 24_000), Said::Nothing);
        story.answer(look, old);
        story
    };
    assert_eq!(story(None).rules(), ["L5"]);
    assert_eq!(story(Some(2500)).rules(), [""; 0]);
    assert_eq!(story(Some(2500)).excused(Excuse::ClockJumped), 1);
    assert_eq!(story(Some(1500)).rules(), ["L5"], "before it has written");
}

/// A clock jump does not excuse the value of a `set` without a receipt that ran in time.
#[test]
fn a_set_in_time_that_is_still_there_is_reported_whatever_the_clock_does() {
    let mut story = Story::new();
    let set = story.call(0, What::Set(0), (2500, 2900), Said::Unknown);
    let load = story.load(0, set, 2500, true);
    story.end(set);
    story.operation(Operation::Set(load), Some(0), Some(set), 2950);
    let look = story.call(1, What::LastLook, (24_000, 24_000), Said::Nothing);
    story.answer(look, load);
    story.0.node_runs[0].jumped_ms = Some(1466);
    assert_eq!(story.rules(), ["S10"]);
}

/// With real servers, the time of a `set` is known only as "before its answer was read". A stopped
/// process reads the answer late, which is not counted as a violation.
#[test]
fn a_process_that_was_stopped_reads_the_answer_of_its_set_late() {
    let story = |stopped: bool| {
        let mut story = Story::new();
        let set = story.call(0, What::Set(0), (2500, 8600), Said::Done);
        let load = story.load(0, set, 2500, true);
        if stopped {
            let from = story.0.at(2550);
            story.0.faults.push(Fault { name: STOPPED, node: Some(0), from, until_ms: 8550 });
        }
        story.operation(Operation::Set(load), Some(0), Some(set), 8600);
        story.end(set);
        story
    };
    assert_eq!(story(true).rules(), [""; 0]);
    assert_eq!(story(true).excused(Excuse::Stopped), 1);
    assert_eq!(story(false).rules(), ["S10"]);
}

/// A store that fails over is never wiped as well: its ledger could not be judged. A value stored
/// across a `FLUSHALL` is a violation unless a failover lies between.
#[test]
fn what_is_stored_across_a_flush_is_accused_unless_a_failover_lies_between() {
    let story = |fails_over: bool| {
        let mut story = Story::new();
        let call = story.call(0, What::Load, (1000, 1300), Said::Nothing);
        let load = story.load(0, call, 1000, false);
        story.operation(Operation::Wipe, None, None, 1100);
        if fails_over {
            let since = story.0.at(1150).order;
            story.operation(Operation::Failover(since), None, None, 1200);
        }
        story.operation(Operation::Put(load), Some(0), Some(call), 1300);
        story.end(call);
        story
    };
    assert_eq!(story(false).rules(), ["S5"]);
    assert_eq!(story(true).rules(), [""; 0]);
    assert_eq!(story(true).excused(Excuse::FailoverBetween), 1);
}

/// A number issued again after a failover is another removal, not the same one sent twice.
#[test]
fn a_number_that_a_failover_took_back_may_be_issued_again() {
    let mut story = Story::new();
    let operation = Operation::Advance { scope: Scope::All, hard: true, epoch: 7, number: 5 };
    let since = story.0.at(900).order;
    let first = story.operation(operation, Some(0), None, 1000);
    story.0.numbers.insert((7, 5), first);
    assert!(story.0.is_numbered((7, 5)), "sent twice, it is one removal");
    assert!(!story.0.is_numbered((7, 6)) && !story.0.is_numbered((8, 5)));
    story.operation(Operation::Failover(since), None, None, 1200);
    assert!(!story.0.is_numbered((7, 5)), "the new primary has not issued it");
}

/// A message that a node cannot decode, as it is of another wire version, keeps the node's copies
/// unverified.
#[test]
fn nodes_of_two_wire_versions_may_be_unverified() {
    for rule in ["L4", "L8"] {
        let mut story = Story::new();
        let at = story.0.at(20_000);
        story.0.seen.push((rule, "node 0 has unverified copies".to_owned(), None, at));
        assert_eq!(story.rules(), [rule]);
        let mixed = Terms { mixed: true, ..terms() };
        assert_eq!(story.rules_by(&mixed), [""; 0]);
        assert_eq!(story.excused_by(&mixed, Excuse::OtherVersion), 1);
    }
}
