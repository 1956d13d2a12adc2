//! Counts how often each fault, each race and each code path occurred.

use std::collections::BTreeMap;

use crinkle_core::Stats;

use super::plan::Plan;
use crate::history::{Applied, Fault, Load, Log, Operation, Outcome, Received, Scope, What};

/// Counters that must not be zero after many seeds. The report prints all other counters too.
const EXPECTED: &[&str] = &[
    "T1",
    "T2",
    "T3",
    "T4",
    "T5",
    "T6",
    "T7",
    "T8",
    "T9",
    "T10",
    "T11",
    "T12",
    "T13",
    "T14",
    "T15",
    "T17",
    "T18",
    "T19",
    "T21",
    "T22",
    "L2 down",
    "reply lost",
    "L2 hangs",
    "L2 slow",
    "command runs late",
    "L2 full",
    "L2 flaky",
    "L2 trouble for all",
    "L2 and bus cut off",
    "L2 silent about its ledger",
    "messages dropped",
    "messages duplicated",
    "messages reordered",
    "subscription silent",
    "disconnect",
    "publish fails",
    "publish hangs",
    "junk",
    "junk record",
    "record evicted",
    "failover",
    "L2 demoted",
    "keys and tags",
    "READONLY",
    "read of a demoted server",
    "wipe",
    "ledger lost",
    "restart",
    "clock jump",
    "message lost",
    "fence hit",
    "join refused",
    "joined",
    "fill refused",
    "hidden",
    "verified",
    "fail-safe",
    "eager",
    "load lock wait",
    "timeout",
    "epoch",
    "lost",
    "reasserted",
    "gap",
    "queued",
    "overflow",
    "reconnect",
    "hole",
    "unconfirmed",
    "subscription lost",
    "l2 back",
    "undecodable",
    "confirmed",
    "panicked",
    "cancelled",
    "several servers",
    "quiet tag lost",
    "read after reconnect",
    "L2 swallows",
    "replica read",
    "nested",
    "message of the next version",
];

/// Counters by name.
#[derive(Clone, Debug)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(EXPECTED.iter().map(|name| (*name, 0)).collect())
    }
}

impl Coverage {
    /// Every name and its count, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }

    /// The expected counters that are zero.
    #[must_use]
    pub fn zeros(&self) -> Vec<&'static str> {
        self.iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (name, count) in other.iter() {
            self.add(name, count);
        }
    }

    fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    pub(super) fn of(log: &Log, plan: &Plan, stats: &[Stats]) -> Self {
        let mut coverage = Self::default();
        for (name, count) in &log.counts {
            coverage.add(name, *count);
        }
        for stats in stats {
            coverage.paths(stats);
        }
        coverage.races(log, plan);
        coverage
    }

    fn paths(&mut self, stats: &Stats) {
        for (name, count) in [
            ("fence hit", stats.fence_hits),
            ("join refused", stats.join_refused),
            ("joined", stats.joined),
            ("fill refused", stats.fill_refused),
            ("hidden", stats.hidden),
            ("verified", stats.l1_verified),
            ("fail-safe", stats.fail_safe),
            ("eager", stats.eager_refreshes),
            ("load lock wait", stats.load_lock_waits),
            ("timeout", stats.factory_timeouts),
            ("epoch", stats.epochs),
            ("lost", stats.reissues),
            ("reasserted", stats.reasserted),
            ("fork", stats.forks),
            ("queued", stats.queued),
            ("overflow", stats.recovery_overflows),
            ("reconnect", stats.resyncs_connected),
            ("hole", stats.resyncs_message_lost),
            ("unconfirmed", stats.resyncs_unconfirmed),
            ("subscription lost", stats.resyncs_subscription_lost),
            ("number conflict", stats.resyncs_number_conflict),
            ("l2 back", stats.resyncs_l2_back),
            ("undecodable", stats.messages_undecodable + stats.l2_undecodable),
        ] {
            if count > 0 || name != "fork" {
                self.add(name, count);
            }
        }
    }

    /// Counts the races T1 to T22 of the specification where the operations really overlapped.
    fn races(&mut self, log: &Log, plan: &Plan) {
        let mut add = |name, found: bool| {
            if found {
                *self.0.entry(name).or_default() += 1;
            }
        };
        for load in &log.loads {
            load_races(log, load, &mut add);
        }
        let faults = Faults::of(log);
        let mut received = vec![Vec::new(); log.applied.len()];
        for one in &log.received {
            received[one.applied].push(*one);
        }
        for (at, change) in log.applied.iter().enumerate() {
            change_races(log, plan, &faults, at, change, &mut add);
            let early = is_early(log, &received, at);
            add("gap", early);
            add("T6", early);
        }
        for call in &log.calls {
            add("cancelled", call.outcome == Outcome::Cancelled);
            add("panicked", call.error == "FactoryPanicked");
            add("T11", call.what == What::Get && call.answers.is_empty());
            add("T17", call.scopes.iter().any(|s| matches!(s, Scope::Key(1..=3))));
        }
        let jumped = log.node_runs.iter().filter(|run| run.jumped_ms.is_some()).count();
        for _ in 0..jumped {
            add("T8", true);
        }
        add("T7", log.node_runs.len() > 1);
    }
}

/// Receives the name of a race and whether it occurred.
type Add<'a> = &'a mut dyn FnMut(&'static str, bool);

fn load_races(log: &Log, load: &Load, add: Add<'_>) {
    let call = &log.calls[load.call];
    let ended = load.ended.map_or(u32::MAX, |at| at.order);
    let during = |a: &&Applied| a.at > load.began && a.at.order < ended;
    let during: Vec<_> = log.applied.iter().filter(during).collect();
    let barrier = during
        .iter()
        .any(|a| matches!(a.operation, Operation::Advance { scope, .. } if scope.covers(load)));
    let of_key = |a: &&Applied| a.key == Some(load.key);
    let removed = during
        .iter()
        .any(|a| of_key(a) && matches!(a.operation, Operation::Remove | Operation::Expire));
    let set = during.iter().any(|a| {
        of_key(a) && matches!(a.operation, Operation::Set(_)) && a.node != Some(load.node)
    });
    if load.is_set {
        return;
    }
    let left = call.end.is_none_or(|end| end.order < ended);
    add("T1", barrier && left);
    add("T2", barrier && !left);
    add("T3", removed);
    add("T4", set);
    add("confirmed", !load.confirmed.is_empty());
    let gone = matches!(call.outcome, Outcome::Cancelled | Outcome::Crashed)
        || call.error == "FactoryPanicked";
    add("T15", gone);
    add(
        "T19",
        call.outcome == Outcome::Failed
            && log.applied.iter().any(|a| {
                a.at < call.start && a.key == Some(load.key) && a.operation == Operation::Remove
            }),
    );
    add(
        "T22",
        log.received.iter().any(|received| {
            let of_key = log.applied[received.applied].key == Some(load.key);
            of_key
                && received.node == load.node
                && received.at > load.began
                && received.at.order < ended
        }),
    );
}

/// The faults by which races are recognized.
struct Faults<'a> {
    disconnects: Vec<&'a Fault>,
    silent: Vec<&'a Fault>,
    lost_replies: Vec<&'a Fault>,
}

impl<'a> Faults<'a> {
    fn of(log: &'a Log) -> Self {
        let named = |name| log.faults.iter().filter(|fault| fault.name == name).collect();
        Self {
            disconnects: named("disconnect"),
            silent: named("subscription silent"),
            lost_replies: named("reply lost"),
        }
    }
}

/// Returns whether one of the faults was in force at the change, for this node or for any.
fn in_force(faults: &[&Fault], change: &Applied, node: Option<usize>) -> bool {
    faults.iter().any(|fault| {
        let on = fault.from.ms <= change.at.ms && change.at.ms <= fault.until_ms;
        on && (node.is_none() || fault.node == node)
    })
}

/// Returns whether a node received this removal before one that came shortly before it. `received`
/// is by change.
fn is_early(log: &Log, received: &[Vec<Received>], at: usize) -> bool {
    let is_barrier = |at: usize| matches!(log.applied[at].operation, Operation::Advance { .. });
    let recent = |before: &usize| log.applied[at].at.ms - log.applied[*before].at.ms < 1000;
    is_barrier(at)
        && received[at].iter().any(|one| {
            let known = |h: &Received| h.node == one.node && h.at < one.at;
            let mut before = (0..at).rev().take_while(recent).filter(|before| is_barrier(*before));
            before.any(|before| !received[before].iter().any(known))
        })
}

fn change_races(
    log: &Log,
    plan: &Plan,
    faults: &Faults<'_>,
    at: usize,
    change: &Applied,
    add: Add<'_>,
) {
    let clears = matches!(change.operation, Operation::Advance { scope: Scope::All, .. });
    let barrier = matches!(change.operation, Operation::Advance { .. });
    let unreceived =
        || in_force(&faults.disconnects, change, None) || in_force(&faults.silent, change, None);
    add("T5", clears && unreceived());
    add("T10", barrier && plan.max_lifetime().as_secs() < 60 && change.at.ms > 5000);
    add("T12", change.key.is_some() && in_force(&faults.disconnects, change, None));
    add("T13", matches!(change.operation, Operation::Wipe | Operation::LedgerLost));
    add("T14", barrier && change.lost.is_some());
    add("T21", change.call.is_some() && in_force(&faults.lost_replies, change, change.node));
    let expired_before = || {
        log.applied[..at]
            .iter()
            .rev()
            .find(|a| a.key == change.key)
            .is_some_and(|a| a.operation == Operation::Expire)
    };
    add("T9", matches!(change.operation, Operation::Set(_)) && expired_before());
    let recovered = change.call.is_none() && change.operation == Operation::Remove;
    let newer = || {
        log.applied[..at].iter().rev().take(6).any(|a| {
            a.key == change.key && matches!(a.operation, Operation::Set(_) | Operation::Put(_))
        })
    };
    add("T18", recovered && newer());
}
