//! Measures how old fresh answers were.

use std::collections::HashMap;

use super::excuse::Excuses;
use super::{Judge, Terms};
use crate::history::{At, Call, Log, Operation, Said};

/// Returns the longest time, in milliseconds, by which a fresh answer was older than an
/// acknowledged write: from the end of the first such write to the begin of the read. A value that
/// overlapped the write or was stored after it is not older. A write that a failover took back does
/// not count.
pub(crate) fn staleness(log: &Log, terms: &Terms) -> u64 {
    let judge = Judge {
        log,
        terms,
        words: Vec::new(),
        of_key: HashMap::new(),
        barriers: Vec::new(),
        known: Vec::new(),
        found: Vec::new(),
        excuses: Excuses::default(),
    };
    let acknowledged = log.calls.iter().enumerate().filter(|(_, call)| call.said == Said::Done);
    let mut writes: Vec<_> =
        acknowledged.filter_map(|(at, call)| Some((at, call, call.end?))).collect();
    let lost = |write: &Call, end: &At| {
        log.applied.iter().any(|applied| {
            let Operation::Failover(since) = applied.operation else { return false };
            applied.at > write.start && since < end.order
        })
    };
    writes.retain(|(_, write, end)| !lost(write, end));
    let mut worst = 0;
    for call in &log.calls {
        for answer in call.answers.iter().filter(|answer| !answer.stale) {
            let load = &log.loads[answer.load];
            let stamp = judge.stamp(answer.load, call.end.map_or(u32::MAX, |end| end.order));
            let older = |(at, write, end): &&(usize, &Call, At)| {
                *end < call.start
                    && load.call != *at
                    && stamp < write.start.order
                    && write.scopes.iter().any(|scope| scope.covers(load))
                    && !judge.stored_after(answer.load, write.start.order)
            };
            if let Some((_, _, end)) = writes.iter().filter(older).min_by_key(|(_, _, end)| *end) {
                worst = worst.max(call.start.ms - end.ms);
            }
        }
    }
    worst
}
