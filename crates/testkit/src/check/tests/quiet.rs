//! What must not happen in a healthy cluster: idle waits (L9) and unverified copies (L8).

use super::{Story, terms};
use crate::check::{Excuse, Terms, is_level, is_overtaken, is_unverified};
use crate::history::{NodeRun, Operation, Pace, Said, Synced, What};

fn healthy() -> Terms {
    Terms { trip_ms: Some(30), ..terms() }
}

fn pace(soft_ms: u64) -> Pace {
    Pace { poll_ms: 500, coherence_ms: 10_900, hard_ms: 400, soft_ms }
}

/// A call of node 0 takes 546 ms; a factory of another node runs for 110 ms of them.
fn long_wait() -> Story {
    let mut story = Story::new();
    let call = story.call(1, What::Load, (16_043, 16_201), Said::Nothing);
    let load = story.load(1, call, 16_067, false);
    let waits = story.call(0, What::Load, (16_046, 16_592), Said::Nothing);
    story.0.loads[load].ended = Some(story.0.at(16_177));
    story.end(call);
    story.end(waits);
    story
}

#[test]
fn a_call_that_waits_for_nothing_is_accused() {
    assert_eq!(long_wait().rules_by(&healthy()), ["L9"]);
    let mut patient = long_wait();
    patient.0.node_runs.iter_mut().for_each(|run| run.pace = Some(pace(31)));
    assert_eq!(patient.rules_by(&healthy()), ["L9"]);
}

/// Waiting for a running factory is allowed.
#[test]
fn a_call_that_waits_for_a_factory_is_not_accused() {
    let mut story = long_wait();
    story.0.loads[0].ended.as_mut().unwrap().ms = 16_500;
    assert_eq!(story.rules_by(&healthy()), [""; 0]);
}

/// A node that gives L2 less time than a round trip takes may delay the others. A node that never
/// ran delays no other.
#[test]
fn a_node_that_is_impatient_with_l2_may_keep_others_waiting() {
    let mut story = long_wait();
    story.0.node_runs[1].pace = Some(pace(30));
    assert_eq!(story.rules_by(&healthy()), [""; 0]);
    assert_eq!(story.excused_by(&healthy(), Excuse::Impatient), 1);
}

/// A read that a replica begins and the primary completes takes three trips, and opens the circuit
/// breaker of a node with less time.
#[test]
fn a_node_that_is_impatient_with_l2_may_not_write_to_it() {
    for (hard_ms, rules) in [(91, &["L4"][..]), (90, &[])] {
        let mut story = Story::new();
        let at = story.0.at(20_000);
        story.0.seen.push(("L4", "answered from the factory".to_owned(), None, at));
        story.0.node_runs.iter_mut().for_each(|run| run.pace = Some(Pace { hard_ms, ..pace(31) }));
        assert_eq!(story.rules_by(&healthy()), rules);
    }
}

/// Two nodes that run, and one that dies at 5000 ms.
fn with_dead_node() -> Story {
    let mut story = Story::new();
    let (born, died) = (story.0.at(0), story.0.at(5000));
    story.0.node_runs.push(NodeRun {
        slot: 1,
        born,
        died: Some(died),
        jumped_ms: None,
        pace: None,
    });
    story
}

fn with_unverified(mut story: Story) -> Story {
    let at = story.0.at(20_000);
    story.0.seen.push(("L8", "node 0 has unverified copies".to_owned(), None, at));
    story
}

/// A poll that was answered meanwhile does not excuse an unverified copy.
#[test]
fn a_node_that_is_unverified_though_all_is_well_is_accused() {
    let mut story = with_dead_node();
    let call = story.call(0, What::Load, (19_980, 19_990), Said::Nothing);
    let (applied, at) = (story.0.at(19_985), story.0.at(19_986));
    story.0.synced.push(Synced { node: 0, applied, at, is_equal: true });
    story.end(call);
    let second = story.call(0, What::Load, (19_990, 20_000), Said::Nothing);
    story.end(second);
    assert_eq!(with_unverified(story).rules(), ["L8"]);
}

/// The others trust the mark of a dead node for a minute. The mark of a running node, or one that
/// was cleared, excuses nothing.
#[test]
fn only_the_mark_of_a_dead_node_leaves_others_unverified() {
    let owing = |node, paid: bool, then: Option<Operation>| {
        let mut story = with_dead_node();
        story.0.owes(node, true);
        if paid {
            story.0.owes(node, false);
        }
        if let Some(operation) = then {
            story.operation(operation, None, None, 4000);
        }
        with_unverified(story)
    };
    let story = owing(2, false, None);
    assert_eq!(story.rules(), [""; 0]);
    assert_eq!(story.excused(Excuse::DiedOwing), 1);
    assert_eq!(owing(1, false, None).rules(), ["L8"], "it runs, and clears its mark");
    assert_eq!(owing(2, true, None).rules(), ["L8"], "it has cleared its mark");
    let lost = owing(2, true, Some(Operation::LedgerLost));
    assert_eq!(lost.rules(), [""; 0], "the other nodes may not know that it cleared its mark");
}

/// Two successful loads of node 0; the second one asked L2.
fn two_loads() -> (Story, [usize; 2]) {
    let mut story = with_dead_node();
    let first = story.call(0, What::Load, (20_000, 20_010), Said::Nothing);
    let load = story.load(0, first, 20_000, false);
    story.operation(Operation::Put(load), Some(0), Some(first), 20_000);
    story.answer(first, load);
    let second = story.call(0, What::Load, (20_010, 20_020), Said::Nothing);
    story.0.calls[second].asked = 1;
    (story, [first, second])
}

#[test]
fn a_node_that_asks_again_for_what_it_has_kept_is_unverified() {
    let (mut story, calls) = two_loads();
    assert!(!is_overtaken(&story.0, calls[0]), "it has kept what it loaded");
    assert!(is_unverified(&story.0, calls, 0), "its own fill is no change");
    story.operation(Operation::Remove, Some(1), None, 20_005);
    assert!(!is_unverified(&story.0, calls, 0), "another node has changed the key");
}

/// For example, because its record expired between `READ` and `PUT`.
#[test]
fn a_load_that_could_not_keep_its_value_is_overtaken() {
    let (mut story, [first, _]) = two_loads();
    story.0.calls[first].answers[0].stale = true;
    assert!(is_overtaken(&story.0, first));
}

/// Two `SYNC`s of node 0; the last one found the ledger ahead of the node.
#[test]
fn a_node_whose_last_look_finds_what_an_earlier_one_should_have_is_behind() {
    let mut story = Story::new();
    let sync = |story: &mut Story, ms, is_equal| {
        let (applied, at) = (story.0.at(ms), story.0.at(ms + 1));
        story.0.synced.push(Synced { node: 0, applied, at, is_equal });
    };
    let removed = story.0.at(100);
    story.0.advanced.push(removed);
    sync(&mut story, 200, true);
    sync(&mut story, 500, false);
    assert_eq!(is_level(&story.0, 0, 400), Some(false), "the first should have brought it");
    assert_eq!(is_level(&story.0, 0, 600), None, "it has not synced since");
    let removed = story.0.at(600);
    story.0.advanced.push(removed);
    sync(&mut story, 800, false);
    assert_eq!(is_level(&story.0, 0, 400), Some(true), "this `SYNC` exists to bring it");
}
