//! The heartbeat monitor: tracks heartbeats that this node sent and has not received back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::coherence_ttl::CoherenceTtl;
use crate::clock::Moment;

/// How many heartbeats are remembered. Two polls send fewer, unless requests cause more polls.
const MOST: usize = 64;

/// The heartbeats that may still come back, in the order of sending.
#[derive(Debug)]
pub(crate) struct HeartbeatMonitor {
    poll: Duration,
    owed: VecDeque<Beat>,
}

#[derive(Debug)]
struct Beat {
    at: Moment,
    sent: Instant,
    /// The bus has accepted it.
    published: bool,
}

/// What the heartbeats show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// No loss is known.
    Alive,
    /// One was lost, and a later one has come back: other messages may be lost as well.
    Gap,
    /// They do not come back: the subscription is lost.
    Lost,
}

impl HeartbeatMonitor {
    pub(crate) fn new(poll: Duration) -> Self {
        Self { poll, owed: VecDeque::new() }
    }

    /// Tracks a heartbeat that is about to be sent.
    pub(crate) fn sent(&mut self, at: Moment, sent: Instant) {
        if self.owed.len() < MOST {
            self.owed.push_back(Beat { at, sent, published: false });
        }
    }

    /// Notes that the bus has accepted the heartbeat sent at `at`, which may have come back
    /// already.
    pub(crate) fn published(&mut self, at: Moment) {
        if let Some(beat) = self.owed.iter_mut().rfind(|beat| beat.at == at) {
            beat.published = true;
        }
    }

    /// Checks the heartbeats.
    ///
    /// The subscription is lost if one heartbeat is two polls late, and the next half a poll. (A
    /// process that was stopped finds only one that is as late as it slept.) There is a gap if a
    /// later one has come back without an earlier one: a subscription keeps their order.
    pub(crate) fn listen(&mut self, coherence: &CoherenceTtl, now: Instant) -> Liveness {
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

    /// When the oldest one will be two polls late, if that is in the future.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.owed.front().map(|beat| beat.sent + self.poll * 2).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::from_nanos(secs * 1_000_000_000)
    }

    /// S3: what was lost with a heartbeat causes a resync as soon as a later one has come back.
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
            assert_eq!(heartbeats.listen(&coherence, now), Liveness::Alive, "it is reported once");
        }
    }
}
