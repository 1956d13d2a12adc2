//! The timeline of a simulated cluster as text.

use std::fmt::Write as _;

use crinkle_core::sabotage::Sabotage;

use super::SimulatedCluster;
use super::switches::Switches;
use crate::check;
use crate::history::{At, Call, Log, Scope, What};

/// Returns all events of the cluster that concern its first violation, or all events if there is
/// none. One line per event, in order.
#[must_use]
pub fn timeline(seed: u64, switches: Switches) -> String {
    timeline_with(seed, switches, None)
}

/// The same with a planted bug.
#[must_use]
pub fn timeline_with(seed: u64, switches: Switches, bug: Option<Sabotage>) -> String {
    let ended =
        super::simulate(SimulatedCluster { seed, switches, bug, skew_s: 0, detailed: true });
    let violations = check::check(&ended.log, &ended.plan.terms()).violations;
    let first = violations.first();
    let mut text = format!("seed {seed}: {:?}\n", ended.plan);
    let mut lines = lines(&ended.log, first.and_then(|violation| violation.key));
    let until = first.map_or(u32::MAX, |violation| violation.at.order.saturating_add(40));
    lines.sort();
    for (order, ms, line) in lines.into_iter().filter(|(order, _, _)| *order <= until) {
        let _ = writeln!(text, "{ms:>7} ms  #{order:<6} {line}");
    }
    for violation in violations.iter().take(5) {
        let (rule, what, at) = (violation.rule, &violation.what, violation.at);
        let _ = writeln!(text, "VIOLATED {rule} at {} ms #{}: {what}", at.ms, at.order);
    }
    text
}

/// Returns the events around a moment: up to 300 before it and 30 after it.
pub(crate) fn story(log: &Log, key: Option<u8>, at: At) -> String {
    let mut lines = lines(log, key);
    lines.sort();
    let place = lines.partition_point(|(order, _, _)| *order <= at.order);
    let around = place.saturating_sub(300)..lines.len().min(place + 30);
    let mut text = String::new();
    for (order, ms, line) in &lines[around] {
        let _ = writeln!(text, "{ms:>7} ms  #{order:<6} {line}");
    }
    text
}

/// One event: its order, its time, and its text.
type Line = (u32, u64, String);

fn lines(log: &Log, key: Option<u8>) -> Vec<Line> {
    let mut lines = Vec::new();
    let about = |scope: &Scope| match (scope, key) {
        (Scope::Key(one), Some(key)) => *one == key,
        _ => true,
    };
    for (id, call) in log.calls.iter().enumerate() {
        if call.scopes.iter().any(about) {
            calls(log, id, call, key, &mut lines);
        }
    }
    for (id, load) in
        log.loads.iter().enumerate().filter(|(_, load)| key.is_none_or(|k| k == load.key))
    {
        let kind = if load.is_set { "set" } else { "factory" };
        let what = format!(
            "node {} {kind} begins: load {id} of key {}, tags {:03b}, call {}",
            load.node, load.key, load.tags, load.call
        );
        lines.push((load.began.order, load.began.ms, what));
        if let Some(ended) = load.ended {
            let what = format!(
                "node {} factory of load {id} ended, source version {}",
                load.node, load.version
            );
            lines.push((ended.order, ended.ms, what));
        }
    }
    for (id, applied) in log.applied.iter().enumerate() {
        if key.is_some() && applied.key.is_some() && applied.key != key {
            continue;
        }
        let who = applied.node.map_or_else(|| "fault".to_owned(), |node| format!("node {node}"));
        let lost = applied.lost.map_or(String::new(), |at| format!(" (lost at {} ms)", at.ms));
        let sure = if applied.sure { "" } else { " (perhaps)" };
        let what = format!(
            "L2 change {id} by {who}: {:?} {:?}{lost}{sure}",
            applied.operation, applied.key
        );
        lines.push((applied.at.order, applied.at.ms, what));
    }
    for received in &log.received {
        let applied = &log.applied[received.applied];
        if key.is_none() || applied.key.is_none() || applied.key == key {
            let what = format!("node {} receives change {}", received.node, received.applied);
            lines.push((received.at.order, received.at.ms, what));
        }
    }
    for (at, of, what) in log.details.iter().filter(|(_, of, _)| key.is_none() || *of == key) {
        lines.push((at.order, at.ms, format!("{what} (key {of:?})")));
    }
    rest(log, &mut lines);
    lines
}

fn calls(log: &Log, id: usize, call: &Call, key: Option<u8>, lines: &mut Vec<Line>) {
    let what = match call.what {
        What::Set(load) if load < log.loads.len() => format!("set (load {load})"),
        what => format!("{what:?}"),
    };
    let begins = format!("node {} call {id}: {what} {:?}", call.node, call.scopes);
    lines.push((call.start.order, call.start.ms, begins));
    let Some(end) = call.end else { return };
    let mut what = format!(
        "node {} call {id} ends: {:?} {} said {:?}",
        call.node, call.outcome, call.error, call.said
    );
    for answer in call.answers.iter().filter(|a| key.is_none_or(|k| k == a.key)) {
        let state = if answer.stale { "stale" } else { "fresh" };
        let _ = write!(what, ", load {} {state} from {}", answer.load, answer.source);
    }
    lines.push((end.order, end.ms, what));
}

fn rest(log: &Log, lines: &mut Vec<Line>) {
    for synced in &log.synced {
        let what = format!("node {} SYNC answered, as of #{}", synced.node, synced.applied.order);
        lines.push((synced.at.order, synced.at.ms, what));
    }
    for (node, at) in &log.subscribed {
        lines.push((at.order, at.ms, format!("node {node} subscribes")));
    }
    for fault in &log.faults {
        let node = fault.node.map_or(String::new(), |node| format!(" on node {node}"));
        let what = format!("FAULT {}{node} until {} ms", fault.name, fault.until_ms);
        lines.push((fault.from.order, fault.from.ms, what));
    }
    for (id, run) in log.node_runs.iter().enumerate() {
        lines.push((run.born.order, run.born.ms, format!("node {id} starts in slot {}", run.slot)));
        if let Some(died) = run.died {
            lines.push((died.order, died.ms, format!("node {id} goes down")));
        }
    }
}
