//! Heartbeats in a cluster: one counts as received when it has come back over every path that a
//! write can take.
//!
//! The server that holds a key announces its writes, and forwards them to the server that this node
//! subscribes to. The connection between the two is one that no client sees. So a heartbeat goes
//! through every server that takes writes, and its copies are counted. A path keeps the order. If a
//! later heartbeat has come back over all of them and an earlier one has not, a message was lost in
//! between. Announcements of a server that was replaced may be lost as well.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body};
use parking_lot::Mutex;

/// How many heartbeats are remembered.
const MOST: usize = 64;

/// Whether this is a node's heartbeat to itself.
pub(crate) fn is_beat(message: &[u8]) -> bool {
    matches!(body(message), Some(Body::Heartbeat { beat: 1.., .. }))
}

/// Whether this announces how far a node's sequence has come.
pub(crate) fn is_count(message: &[u8]) -> bool {
    matches!(body(message), Some(Body::Heartbeat { beat: 0, .. }))
}

fn body(message: &[u8]) -> Option<Body> {
    message::decode(message).map(|message| message.body)
}

/// What a copy of a heartbeat shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nothing yet: copies are missing.
    Part,
    /// Every path works, and has worked since the heartbeat before.
    Whole,
    /// Every path works, but a message may have been lost.
    AfterLoss,
}

/// The heartbeats that have not come back, by channel.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    channels: Mutex<HashMap<String, Track>>,
}

#[derive(Debug, Default)]
struct Track {
    paths: Vec<String>,
    owed: VecDeque<Owed>,
}

#[derive(Debug)]
struct Owed {
    message: Bytes,
    copies: usize,
    /// The paths have changed since the heartbeat before.
    moved: bool,
}

impl Beats {
    /// Tracks the heartbeats of a subscription that is in force.
    pub(crate) fn listen(&self, channels: &[String]) {
        let tracks = channels.iter().map(|channel| (channel.clone(), Track::default()));
        self.channels.lock().extend(tracks);
    }

    /// Ends the tracking: the subscription has ended.
    pub(crate) fn leave(&self, channels: &[String]) {
        let mut tracks = self.channels.lock();
        channels.iter().for_each(|channel| drop(tracks.remove(channel)));
    }

    /// Tracks a heartbeat that is about to be sent over each of these paths.
    pub(crate) fn sent(&self, channel: &str, message: Bytes, paths: Vec<String>) {
        let mut tracks = self.channels.lock();
        let Some(track) = tracks.get_mut(channel) else { return };
        if track.owed.len() == MOST {
            track.owed.pop_front();
        }
        let moved = !track.paths.is_empty() && track.paths != paths;
        track.owed.push_back(Owed { message, copies: paths.len(), moved });
        track.paths = paths;
    }

    /// Counts a copy of a heartbeat that has come back.
    pub(crate) fn received(&self, channel: &str, message: &[u8]) -> Liveness {
        let mut tracks = self.channels.lock();
        let Some(track) = tracks.get_mut(channel) else { return Liveness::Part };
        // It may have been sent before the subscription was in force.
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

    fn paths(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn listening() -> Beats {
        let beats = Beats::default();
        beats.listen(&paths(&["me"]));
        beats
    }

    #[test]
    fn a_heartbeat_is_heard_when_it_has_come_back_by_every_way() {
        let beats = listening();
        beats.sent("me", beat(1), paths(&["a", "b"]));
        beats.sent("me", beat(2), paths(&["a", "b"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(1)), Liveness::Whole);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Whole);
    }

    #[test]
    fn a_heartbeat_that_one_way_has_swallowed_is_a_loss_when_the_next_is_heard() {
        let beats = listening();
        for number in [1, 2] {
            beats.sent("me", beat(number), paths(&["a", "b"]));
        }
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::Part);
        assert_eq!(beats.received("me", &beat(2)), Liveness::AfterLoss);
    }

    #[test]
    fn what_a_replaced_server_has_said_may_be_lost() {
        let beats = listening();
        beats.sent("me", beat(1), paths(&["a"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Whole);
        beats.sent("me", beat(2), paths(&["b"]));
        assert_eq!(beats.received("me", &beat(2)), Liveness::AfterLoss);
        beats.sent("me", beat(3), paths(&["b"]));
        assert_eq!(beats.received("me", &beat(3)), Liveness::Whole);
    }

    #[test]
    fn a_heartbeat_from_before_the_subscription_proves_nothing() {
        let beats = Beats::default();
        beats.sent("me", beat(1), paths(&["a"]));
        beats.listen(&paths(&["me"]));
        assert_eq!(beats.received("me", &beat(1)), Liveness::Part);
        beats.sent("me", beat(2), paths(&["a"]));
        beats.leave(&paths(&["me"]));
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
