//! Whether this node hears: its own heartbeats that have not come back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;

/// How many heartbeats are remembered; more are not sent in two polls unless somebody causes them.
const MOST: usize = 64;

/// The heartbeats that may still come back, in the order in which they were sent.
#[derive(Debug)]
pub(super) struct Ears {
    poll: Duration,
    owed: VecDeque<(Moment, Instant)>,
}

impl Ears {
    pub(super) fn new(poll: Duration) -> Self {
        Self { poll, owed: VecDeque::new() }
    }

    /// A heartbeat was sent, or should have been.
    pub(super) fn sent(&mut self, at: Moment, now: Instant) {
        if self.owed.len() < MOST {
            self.owed.push_back((at, now));
        }
    }

    /// Whether one is two polls late, and another half a poll: a process that was stopped finds one
    /// that is as late as it slept. `answered` is the newest that has come back, or when listening began.
    pub(super) fn are_deaf(&mut self, answered: Moment, now: Instant) -> bool {
        while self.owed.front().is_some_and(|(at, _)| *at <= answered) {
            self.owed.pop_front();
        }
        let late = |which, by| {
            let sent = self.owed.get(which);
            sent.is_some_and(|(_, sent): &(_, Instant)| now.duration_since(*sent) >= by)
        };
        late(0, self.poll * 2) && late(1, self.poll / 2)
    }

    /// When the oldest one will be two polls late, if that is not over.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.owed.front().map(|(_, sent)| *sent + self.poll * 2).filter(|due| *due > now)
    }
}
