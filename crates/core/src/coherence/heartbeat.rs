//! Whether this node hears: its own heartbeats that have not come back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ttl::CoherenceTtl;
use crate::clock::Moment;

/// How many heartbeats are remembered; more are not sent in two polls unless somebody causes them.
const MOST: usize = 64;

/// The heartbeats that may still come back, in the order in which they were sent.
#[derive(Debug)]
pub(super) struct HeartbeatMonitor {
    poll: Duration,
    owed: VecDeque<Beat>,
}

#[derive(Debug)]
struct Beat {
    at: Moment,
    sent: Instant,
    /// The bus has taken it.
    published: bool,
}

/// What the heartbeats say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Nothing is amiss.
    Alive,
    /// One was lost, and a later one has come back: others may have been lost with it.
    Gap,
    /// They do not come back.
    Lost,
}

impl HeartbeatMonitor {
    pub(super) fn new(poll: Duration) -> Self {
        Self { poll, owed: VecDeque::new() }
    }

    /// A heartbeat is to be sent.
    pub(super) fn sent(&mut self, at: Moment, sent: Instant) {
        if self.owed.len() < MOST {
            self.owed.push_back(Beat { at, sent, published: false });
        }
    }

    /// The bus has taken the one sent at `at`, which may have come back already.
    pub(super) fn published(&mut self, at: Moment) {
        if let Some(beat) = self.owed.iter_mut().rfind(|beat| beat.at == at) {
            beat.published = true;
        }
    }

    /// Whether one is two polls late, and another half a poll: a process that was stopped finds one
    /// that is as late as it slept. Or whether a later one has come back without it: a subscription keeps
    /// their order.
    pub(super) fn listen(&mut self, coherence: &CoherenceTtl, now: Instant) -> Liveness {
        let (answered, since) = (coherence.answered(), coherence.listening_since());
        let came_back = coherence.take_heartbeats(answered);
        let mut gap = false;
        while let Some(beat) = self.owed.front().filter(|beat| beat.at <= answered) {
            gap |= beat.published && beat.at > since && !came_back.contains(&beat.at);
            self.owed.pop_front();
        }
        let late = |which, by| {
            let beat = self.owed.get(which);
            beat.is_some_and(|beat: &Beat| now.duration_since(beat.sent) >= by)
        };
        match late(0, self.poll * 2) && late(1, self.poll / 2) {
            true => Liveness::Lost,
            false if gap => Liveness::Gap,
            false => Liveness::Alive,
        }
    }

    /// When the oldest one will be two polls late, if that is not over.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.owed.front().map(|beat| beat.sent + self.poll * 2).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::from_nanos(secs * 1_000_000_000)
    }

    /// S3: what was lost with a heartbeat is in resync as soon as a later one has come back.
    #[test]
    fn a_heartbeat_that_a_later_one_overtakes_is_a_gap_if_it_was_published() {
        for published in [true, false] {
            let (mut heartbeats, now) =
                (HeartbeatMonitor::new(Duration::from_secs(1)), Instant::now());
            let coherence = CoherenceTtl::new(Duration::from_secs(30));
            coherence.listen(at(1));
            heartbeats.sent(at(2), now);
            if published {
                heartbeats.published(at(2));
            }
            heartbeats.sent(at(3), now);
            heartbeats.published(at(3));
            coherence.heartbeat(at(3));
            let expected = if published { Liveness::Gap } else { Liveness::Alive };
            assert_eq!(heartbeats.listen(&coherence, now), expected);
            assert_eq!(heartbeats.listen(&coherence, now), Liveness::Alive, "it is told once");
        }
    }
}
