//! Removals that a call of this node is sending. No poll sends them as well: they would get two
//! numbers, and the later one would hide what was written after the call returned.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::protocol::Nonce;
use crate::protocol::ledger::MAX_PENDING;
use crate::sync::Mutex;

/// How many parts of one removal a call sends at the same time.
pub(crate) const AT_ONCE: usize = 256;

/// When the call of each removal ended, or the latest moment at which it can end.
#[derive(Debug, Default)]
pub(crate) struct SendingRemovals(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    ends: HashMap<Nonce, Moment>,
    /// At this size, ended calls are removed. It is twice the size after the last removal, so each
    /// call costs the same however many there are.
    sweep_at: usize,
}

impl SendingRemovals {
    /// Registers a call that sends these removals and ends at `latest`, or before.
    pub(super) fn begin(&self, nonces: &[Nonce], now: Moment, latest: Moment) {
        let mut calls = self.0.lock();
        if calls.ends.len() >= calls.sweep_at.max(MAX_PENDING) {
            calls.ends.retain(|_, end| *end > now);
            calls.sweep_at = calls.ends.len() * 2;
        }
        calls.ends.extend(nonces.iter().map(|nonce| (*nonce, latest)));
    }

    /// Ends their call.
    fn end(&self, nonces: &[Nonce], now: Moment) {
        let mut calls = self.0.lock();
        for nonce in nonces {
            if let Some(end) = calls.ends.get_mut(nonce) {
                *end = now.min(*end);
            }
        }
    }

    /// Keeps the removals that no call can have numbered after the ledger was asked, and forgets
    /// calls that ended before. (For the others, only the reply to a later question shows whether
    /// they have numbers.)
    pub(super) fn keep_ended(&self, nonces: &mut Vec<Nonce>, asked: Moment) {
        let mut calls = self.0.lock();
        calls.ends.retain(|_, end| *end > asked);
        nonces.retain(|nonce| !calls.ends.contains_key(nonce));
    }
}

/// A call that sends removals. Dropping it ends the call.
pub(crate) struct Sending<'a> {
    removals: &'a SendingRemovals,
    clock: &'a dyn Clock,
    nonces: Vec<Nonce>,
}

impl<'a> Sending<'a> {
    /// Begins a call that sends these removals, `AT_ONCE` at a time, each for `limit` at most. The
    /// bus has as long for each.
    pub(crate) fn begin(
        removals: &'a SendingRemovals,
        clock: &'a dyn Clock,
        nonces: Vec<Nonce>,
        limit: Duration,
    ) -> Self {
        let now = clock.now();
        removals.begin(&nonces, now, now + longest(nonces.len(), limit));
        Self { removals, clock, nonces }
    }
}

/// How long a call with this many parts can take: L2 and the bus take a limit each per round, and
/// one limit is spare.
fn longest(parts: usize, limit: Duration) -> Duration {
    let rounds = u32::try_from(parts.div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    limit.saturating_mul(rounds.saturating_mul(2).saturating_add(1))
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.removals.end(&self.nonces, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In an outage with more callers than that, no call scans the calls of all the others.
    #[test]
    fn calls_that_have_ended_are_looked_for_once_in_as_many_calls() {
        let (calls, most) = (SendingRemovals::default(), MAX_PENDING as u64);
        let at = Moment::from_nanos;
        let begin = |from: u64, to: u64, now| {
            (from..to).for_each(|n| calls.begin(&[Nonce(n)], at(now), at(now + 10)));
            let calls = calls.0.lock();
            (calls.ends.len() as u64, calls.sweep_at as u64)
        };
        assert_eq!(begin(0, most, 0), (most, 0));
        assert_eq!(begin(most, most * 2, 1), (most * 2, most * 2));
        assert_eq!(begin(most * 2, most * 2 + 1, 20), (1, 0), "all of them have ended");
    }

    /// A call that was stopped half-way may never end. It keeps its parts from the poll for as long
    /// as concurrent sends take, not for as long as one after the other would take.
    #[test]
    fn a_call_ends_when_its_parts_sent_at_once_would() {
        let limit = Duration::from_secs(1);
        let longest = [0, 1, 256, 257, 1024].map(|parts| longest(parts, limit).as_secs());
        assert_eq!(longest, [1, 3, 3, 5, 9]);
        assert_eq!(super::longest(usize::MAX, Duration::MAX), Duration::MAX);
    }
}
