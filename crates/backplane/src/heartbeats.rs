//! Heartbeats in a cluster: one counts as heard when it has come back by every way that a write can take.
//!
//! A write is announced by the server that holds its key, and passed on to the one that this node listens to,
//! over a connection between those two that no client sees. So a heartbeat goes through every server
//! that takes writes, and its copies are counted. A way keeps the order: if a later heartbeat has come back by all of
//! them and an earlier one has not, something was lost in between. What a server had announced before it
//! was replaced may be lost as well.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body};
use parking_lot::Mutex;

/// How many heartbeats are waited for.
const MOST: usize = 64;

/// Whether this is a node's heartbeat to itself.
pub(crate) fn is_beat(message: &[u8]) -> bool {
    matches!(body(message), Some(Body::Heartbeat { beat: 1.., .. }))
}

/// Whether this tells the others how far a node's sequence has come.
pub(crate) fn is_count(message: &[u8]) -> bool {
    matches!(body(message), Some(Body::Heartbeat { beat: 0, .. }))
}

fn body(message: &[u8]) -> Option<Body> {
    message::decode(message).map(|message| message.body)
}

/// What a copy of a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nothing yet: not all of them are here.
    Part,
    /// Every way is open, and has been since the heartbeat before.
    Whole,
    /// Every way is open, but something may have been lost.
    AfterLoss,
}

/// The heartbeats that are on their way, by channel.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    channels: Mutex<HashMap<String, Track>>,
}

#[derive(Debug, Default)]
struct Track {
    ways: Vec<String>,
    owed: VecDeque<Owed>,
}

#[derive(Debug)]
struct Owed {
    message: Bytes,
    copies: usize,
    /// The ways are others than before.
    moved: bool,
}

impl Beats {
    /// A subscription is in force.
    pub(crate) fn listen(&self, channels: &[String]) {
        let tracks = channels.iter().map(|channel| (channel.clone(), Track::default()));
        self.channels.lock().extend(tracks);
    }

    /// A subscription has ended.
    pub(crate) fn leave(&self, channels: &[String]) {
        let mut tracks = self.channels.lock();
        channels.iter().for_each(|channel| drop(tracks.remove(channel)));
    }

    /// A heartbeat is about to be sent by each of these ways.
    pub(crate) fn sent(&self, channel: &str, message: Bytes, ways: Vec<String>) {
        let mut tracks = self.channels.lock();
        let Some(track) = tracks.get_mut(channel) else { return };
        if track.owed.len() == MOST {
            track.owed.pop_front();
        }
        let moved = !track.ways.is_empty() && track.ways != ways;
        track.owed.push_back(Owed { message, copies: ways.len(), moved });
        track.ways = ways;
    }

    /// A copy of a heartbeat has come back.
    pub(crate) fn received(&self, channel: &str, message: &[u8]) -> Liveness {
        let mut tracks = self.channels.lock();
        let Some(track) = tracks.get_mut(channel) else { return Liveness::Part };
        // It may have been sent before anybody listened.
        let place = track.owed.iter().position(|owed| owed.message == message);
        let Some(place) = place else { return Liveness::Part };
        track.owed[place].copies -= 1;
        if track.owed[place].copies > 0 {
            return Liveness::Part;
        }
        let moved = track.owed.drain(..=place).any(|owed| owed.moved);
        if moved || place > 0 { Liveness::AfterLoss } else { Liveness::Whole }
    }
}

#[cfg(test)]
mod tests {
    use crinkle_core::protocol::PublisherId;

    use super::*;

    fn beat(number: u64) -> Bytes {
        message::heartbeat(PublisherId(1), 0, number, 1)
    }

    fn ways(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn listening() -> Beats {
        let beats = Beats::default();
        beats.listen(&ways(&["me"]));
        beats
    }

    #[test]
    fn a_heartbeat_is_heard_when_it_has_come_back_by_every_way() {
        let beats = listening();
        beats.sent("me", beat(1), ways(&["a", "b"]));
        beats.sent("me", beat(2), ways(&["a", "b"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(1)), Liveness::Whole);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Whole);
    }

    #[test]
    fn a_heartbeat_that_one_way_has_swallowed_is_a_loss_when_the_next_is_heard() {
        let beats = listening();
        for number in [1, 2] {
            beats.sent("me", beat(number), ways(&["a", "b"]));
        }
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::AfterLoss);
    }

    #[test]
    fn what_a_replaced_server_has_said_may_be_lost() {
        let beats = listening();
        beats.sent("me", beat(1), ways(&["a"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Whole);
        beats.sent("me", beat(2), ways(&["b"]));
        assert_eq!(beats.received("me", &beat(2)), Liveness::AfterLoss);
        beats.sent("me", beat(3), ways(&["b"]));
        assert_eq!(beats.received("me", &beat(3)), Liveness::Whole);
    }

    #[test]
    fn a_heartbeat_from_before_the_subscription_proves_nothing() {
        let beats = Beats::default();
        beats.sent("me", beat(1), ways(&["a"]));
        beats.listen(&ways(&["me"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        beats.sent("me", beat(2), ways(&["a"]));
        beats.leave(&ways(&["me"]));
        assert_eq!(beats.received("me", &beat(2)), Liveness::Part);
    }

    #[test]
    fn only_heartbeats_to_oneself_are_counted() {
        assert!(is_beat(&beat(1)));
        assert!(!is_beat(&beat(0)));
        assert!(is_count(&beat(0)));
        assert!(!is_beat(b"something else") && !is_count(b"something else"));
    }
}
