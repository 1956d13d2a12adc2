//! What is written after a removal (S17), and when a `set` counts as written (S1, S2).

use super::{Story, terms};
use crate::check::{Excuse, Terms};
use crate::history::{Fault, Operation, Pace, Received, Said, Scope, Stamped, Synced, What};

const TAG: u8 = 1;

const REMOVAL: What = What::Invalidate { hard: true };

impl Story {
    /// A tag removal that has not ended. Returns its call and the index of its change.
    fn removal(&mut self, node: usize, number: u64, ms: u64) -> (usize, usize) {
        let call = self.call(node, REMOVAL, (ms, ms + 10), Said::Done);
        self.0.calls[call].scopes = vec![Scope::Tags(TAG)];
        (call, self.numbered(node, Some(call), number, ms + 5))
    }

    fn numbered(&mut self, node: usize, call: Option<usize>, number: u64, ms: u64) -> usize {
        let operation =
            Operation::Advance { scope: Scope::Tags(TAG), hard: true, epoch: 1, number };
        let at = self.operation(operation, Some(node), call, ms);
        self.0.numbers.insert((1, number), at);
        at
    }

    fn tagged(&mut self, node: usize, call: usize, ms: u64, is_set: bool) -> usize {
        let load = self.load(node, call, ms, is_set);
        self.0.loads[load].tags = TAG;
        load
    }

    /// A load stores a record with this stamp.
    fn stored(&mut self, operation: Operation, call: usize, stamp: u64, ms: u64) -> usize {
        let node = self.0.calls[call].node;
        let at = self.operation(operation, Some(node), Some(call), ms);
        self.0.applied[at].stamp = Some(Stamped { epoch: 1, number: stamp, is_near: true });
        at
    }

    /// A load of node 0 that is stamped below 5.
    fn old_load(&mut self, ms: u64) -> usize {
        let call = self.call(0, What::Load, (ms, ms + 100), Said::Nothing);
        let load = self.tagged(0, call, ms + 20, false);
        self.stored(Operation::Put(load), call, 3, ms + 100);
        self.end(call);
        load
    }
}

/// Node 1 removes, and node 0 loads later without knowing it. `middle` adds events in between.
fn load_after_removal(middle: impl FnOnce(&mut Story)) -> Story {
    let mut story = Story::new();
    let (removal, _) = story.removal(1, 5, 1000);
    story.end(removal);
    middle(&mut story);
    story.old_load(3000);
    story
}

#[test]
fn a_load_that_is_stamped_below_a_removal_that_had_returned_is_accused() {
    assert_eq!(load_after_removal(|_| {}).rules(), ["S17"]);
}

/// The cache promises nothing for a removal that has not returned, even if it has a number.
#[test]
fn a_removal_that_has_not_returned_accuses_nobody() {
    let mut story = Story::new();
    let (removal, _) = story.removal(1, 5, 1000);
    story.old_load(3000);
    story.end(removal);
    assert_eq!(story.rules(), [""; 0]);
}

/// Other open calls do not matter if it is known which call numbered the removal. If not, an open
/// call that removes by tag may have numbered it; a call that removes a key may not.
#[test]
fn a_removal_has_returned_whatever_else_its_node_is_about() {
    let open = |scope, call: Option<usize>| {
        let mut story = Story::new();
        let other = story.call(1, REMOVAL, (900, 4000), Said::Done);
        story.0.calls[other].scopes = vec![scope];
        let (removal, barrier) = story.removal(1, 5, 1000);
        story.0.applied[barrier].call = call.map(|_| removal);
        story.end(removal);
        story.old_load(3000);
        story.end(other);
        story.rules()
    };
    assert_eq!(open(Scope::Tags(2), Some(1)), ["S17"]);
    assert_eq!(open(Scope::Key(0), None), ["S17"]);
    assert_eq!(open(Scope::Tags(TAG), None), [""; 0]);
}

/// Once the ledger is lost, a node that did not receive the removal cannot learn of it. Until then
/// it had to.
#[test]
fn a_ledger_that_is_lost_before_a_write_tells_nobody_of_its_removals() {
    let lost = |story: &mut Story| story.operation(Operation::LedgerLost, None, None, 2000);
    let story = load_after_removal(|story| _ = lost(story));
    assert_eq!(story.rules(), [""; 0]);
    assert_eq!(story.excused(Excuse::LedgerLost), 1);
    let mut late = load_after_removal(|_| {});
    let _ = lost(&mut late);
    assert_eq!(late.rules(), ["S17"]);
}

/// A `SYNC` from before the end of a fault may still be in progress for the limit of L2, but not
/// much longer.
#[test]
fn a_fault_that_has_just_ended_excuses_what_is_loaded_after_it() {
    let faulty = |node, until_ms| {
        let fault = |story: &mut Story| {
            let from = story.0.at(1500);
            story.0.faults.push(Fault { name: "L2 slow", node, from, until_ms });
        };
        load_after_removal(fault).rules()
    };
    assert_eq!(faulty(Some(0), 2200), [""; 0]);
    assert_eq!(faulty(None, 2200), [""; 0]);
    assert_eq!(faulty(Some(1), 2200), ["S17"], "of another node");
    assert_eq!(faulty(Some(0), 2000), ["S17"], "it is over");
}

/// A node whose callers have a fallback and give L2 less time than two round trips loads without
/// the ledger's answer. A node with more time does not, nor does a node that has the answer.
#[test]
fn a_node_that_does_not_wait_for_the_ledger_loads_without_its_answer() {
    let story = |soft_ms, synced: bool| {
        let mut story = load_after_removal(|story| {
            let (applied, at) = (story.0.at(2000), story.0.at(2010));
            if synced {
                story.0.synced.push(Synced { node: 0, applied, at, is_equal: true });
            }
        });
        let pace = Pace { poll_ms: 500, coherence_ms: 10_900, hard_ms: 400, soft_ms };
        story.0.node_runs[0].pace = Some(pace);
        story
    };
    let terms = Terms { trip_ms: Some(30), ..terms() };
    assert_eq!(story(13, false).rules_by(&terms), [""; 0]);
    assert_eq!(story(13, false).excused_by(&terms, Excuse::Unanswered), 1);
    assert_eq!(story(100, false).rules_by(&terms), ["S17"]);
    assert_eq!(story(13, true).rules_by(&terms), ["S17"]);
}

/// A `set` is judged by what it had sent when its call ended. A later run does not change its
/// receipt.
#[test]
fn a_set_is_judged_by_what_was_stored_before_its_receipt() {
    let set = |again_ms: u64, said| {
        let mut story = load_after_removal(|_| {});
        story.0.loads.clear();
        story.0.applied.pop();
        let call = story.call(0, What::Set(0), (3000, 3100), said);
        let load = story.tagged(0, call, 3000, true);
        story.stored(Operation::Set(load), call, 3, 3050);
        if again_ms > 3100 {
            story.end(call);
        }
        story.stored(Operation::Put(load), call, 7, again_ms);
        if again_ms <= 3100 {
            story.end(call);
        }
        story.rules()
    };
    assert_eq!(set(3080, Said::Done), [""; 0]);
    assert_eq!(set(3200, Said::Done), ["S17"]);
    assert_eq!(set(3200, Said::Unknown), [""; 0], "it does not say that it is done");
}

/// A `set` overlaps another node's removal that hides it, and is sent again. The second command
/// runs after the call has ended. If it was sent before that, the value counts as written at the
/// end of the call.
#[test]
fn a_set_that_is_sent_again_is_stamped_when_it_was_sent() {
    let answered = |sent_in_time: bool, stale: bool| {
        let mut story = Story::new();
        let set = story.call(0, What::Set(0), (1000, 1100), Said::Unknown);
        let load = story.tagged(0, set, 1000, true);
        story.operation(Operation::Set(load), Some(0), Some(set), 1010);
        let (removal, _) = story.removal(1, 5, 1020);
        story.end(removal);
        let sent = story.0.at(1090).order;
        story.end(set);
        let again = story.operation(Operation::Put(load), Some(0), Some(set), 1150);
        story.0.applied[again].sent = if sent_in_time { sent } else { sent + 2 };
        let read = story.call(1, What::Get, (1160, 1170), Said::Nothing);
        story.answer(read, load);
        story.0.calls[read].answers[0].stale = stale;
        story.rules()
    };
    assert_eq!(answered(true, false), [""; 0]);
    assert_eq!(answered(true, true), [""; 0]);
    assert_eq!(answered(false, false), ["S1"]);
    assert_eq!(answered(false, true), ["S9"]);
}

/// The value counts as written at the end of its call, not when the command runs. A removal between
/// the two hides it.
#[test]
fn a_set_that_arrives_late_is_not_stamped_after_its_call() {
    let mut story = Story::new();
    let set = story.call(0, What::Set(0), (1000, 1100), Said::Unknown);
    let load = story.tagged(0, set, 1000, true);
    story.operation(Operation::Set(load), Some(0), Some(set), 1010);
    let sent = story.0.at(1090).order;
    story.end(set);
    let (removal, _) = story.removal(1, 5, 1110);
    story.end(removal);
    let again = story.operation(Operation::Put(load), Some(0), Some(set), 1150);
    story.0.applied[again].sent = sent;
    let read = story.call(1, What::Get, (1160, 1170), Said::Nothing);
    story.answer(read, load);
    assert_eq!(story.rules(), ["S1"]);
}

/// A promoted server with a slow clock numbers a removal below the stamp of an older value. No node
/// can know until the value's node has synced with that server.
#[test]
fn a_removal_numbered_again_hides_once_who_knows_better_has_asked() {
    let story = |fails_over: bool, asks: bool, is_near: bool| {
        let mut story = Story::new();
        if fails_over {
            let since = story.0.at(900).order;
            story.operation(Operation::Failover(since), None, None, 1000);
        }
        let call = story.call(0, What::Load, (1010, 1100), Said::Nothing);
        let load = story.tagged(0, call, 1020, false);
        let (removal, _) = story.removal(1, 5, 1050);
        let stored = story.stored(Operation::Put(load), call, 9, 1090);
        story.0.applied[stored].stamp.as_mut().unwrap().is_near = is_near;
        story.end(call);
        story.end(removal);
        if asks {
            let (applied, at) = (story.0.at(1110), story.0.at(1120));
            story.0.synced.push(Synced { node: 0, applied, at, is_equal: true });
        }
        let read = story.call(1, What::Get, (1200, 1210), Said::Nothing);
        story.answer(read, load);
        story
    };
    assert_eq!(story(true, false, true).rules(), [""; 0]);
    assert_eq!(story(true, false, true).excused(Excuse::NumberedAgain), 1);
    let far = story(true, false, false);
    assert_eq!(far.rules(), [""; 0], "wherever the record is");
    assert_eq!(far.excused(Excuse::NumberedAgain), 1);
    assert_eq!(story(true, true, true).rules(), ["S1"], "it has cleared");
    assert_eq!(story(false, false, true).rules(), ["S1"], "no number is issued again");
}

/// A value that L2 never stored has no record that shows its stamp.
#[test]
fn a_removal_numbered_again_does_not_hide_what_a_node_that_knew_more_keeps_in_l1() {
    let story = |knew: bool| {
        let mut story = Story::new();
        let since = story.0.at(700).order;
        if knew {
            let (removal, _) = story.removal(0, 9, 800);
            story.end(removal);
        }
        story.operation(Operation::Failover(since), None, None, 1000);
        let call = story.call(0, What::Set(0), (1010, 1100), Said::Queued);
        story.tagged(0, call, 1020, true);
        story.end(call);
        let (removal, applied) = story.removal(1, 5, 1150);
        story.end(removal);
        let at = story.0.at(1160);
        story.0.received.push(Received { node: 0, applied, at });
        let read = story.call(0, What::Get, (1200, 1210), Said::Nothing);
        story.answer(read, 0);
        story
    };
    assert_eq!(story(true).rules_by(&terms()).iter().filter(|rule| **rule == "S2").count(), 0);
    assert_eq!(story(true).excused(Excuse::NumberedAgain), 1);
    assert!(story(false).rules().contains(&"S2"), "{:?}", story(false).rules());
}
