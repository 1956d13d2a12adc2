//! Detects lost messages, which start a resync: *no entry is flushed, but entries verified before it
//! are not served as fresh until a cheap version check* (guarantee S4).
//!
//! Every message carries its publisher's sequence number. A gap that is not filled within a grace
//! period means a lost message, and a new session begins. Entries of older sessions are verified
//! with L2 when they are next read.

use std::collections::{BTreeMap, BTreeSet};

use super::PublisherId;

/// Why a session ended (the reason of a resync).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResyncReason {
    /// The subscription came up (again): this node may have missed earlier messages.
    Connected,
    /// A publisher's sequence has a gap, or a message could not be decoded.
    MessageLost,
    /// A publisher announced a write and never confirmed it.
    Unconfirmed,
    /// The ledger says that a publisher could not announce its writes.
    Owed,
    /// The node did not receive its own heartbeat for too long.
    SubscriptionLost,
    /// A removal arrived under a number that this node had passed, or beyond more gaps than it
    /// tracks: the ledger may have forked.
    NumberConflict,
    /// L2 answers again after an outage.
    L2Back,
}

/// How many missing messages of one publisher are tracked; more cause a resync at once.
const MAX_HOLES: usize = 256;

/// How many missing messages are tracked in all; one more causes a resync at once.
const MAX_OVERDUE: usize = 65_536;

/// How many publishers are tracked; more cause one resync, and tracking starts over.
const MAX_PEERS: usize = 65_536;

/// The message sequences of all publishers that this node has received from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peers {
    peers: BTreeMap<PublisherId, Peer>,
    overdue: BTreeSet<(u64, PublisherId, u64)>,
    lost: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    next: u64,
    /// The missing sequence numbers, and the moment when each one counts as lost.
    holes: BTreeMap<u64, u64>,
}

impl Peers {
    /// Records a received message. Never rejects one: its content decides whether it applies.
    ///
    /// `grace_until` is the moment at which a gap found now counts as a loss.
    pub fn received(&mut self, from: PublisherId, seq: u64, grace_until: u64) {
        self.expect(from, seq, grace_until);
        if let Some(peer) = self.peers.get_mut(&from) {
            if peer.next == seq {
                peer.next = seq.saturating_add(1);
            }
            if let Some(due) = peer.holes.remove(&seq) {
                self.overdue.remove(&(due, from, seq));
            }
        }
    }

    /// Records that a publisher has sent everything below `next`.
    pub fn sent(&mut self, from: PublisherId, next: u64, grace_until: u64) {
        self.expect(from, next, grace_until);
    }

    /// Records a message that could not be decoded: something was lost.
    pub fn message_lost(&mut self) {
        self.lost = true;
    }

    /// Whether a message was lost by `now`. Resets the answer.
    pub fn take_loss(&mut self, now: u64) -> bool {
        let mut loss = std::mem::take(&mut self.lost);
        while let Some(&(due, from, seq)) = self.overdue.first() {
            if due > now {
                break;
            }
            self.overdue.pop_first();
            loss |= self.peers.get_mut(&from).is_some_and(|peer| peer.holes.remove(&seq).is_some());
        }
        loss && !sabotaged!(HolesIgnored)
    }

    /// How many publishers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no message was received yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Records a gap for each sequence number below `seq` that was not received.
    fn expect(&mut self, from: PublisherId, seq: u64, grace_until: u64) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&from) {
            self.peers.clear();
            self.overdue.clear();
            self.lost = true;
        }
        let peer = self.peers.entry(from).or_insert_with(|| Peer { next: 1, ..Peer::default() });
        if seq <= peer.next {
            return;
        }
        let missing = seq - peer.next;
        let full = peer.holes.len() >= MAX_HOLES || self.overdue.len() >= MAX_OVERDUE;
        if missing > MAX_HOLES as u64 || full {
            for (hole, due) in std::mem::take(&mut peer.holes) {
                self.overdue.remove(&(due, from, hole));
            }
            self.lost = true;
        } else {
            for hole in peer.next..seq {
                peer.holes.insert(hole, grace_until);
                self.overdue.insert((grace_until, from, hole));
            }
        }
        peer.next = seq;
    }
}
