//! Sessions: *after any resync nothing is flushed, but nothing verified before it is served as fresh
//! until a cheap version check* (guarantee S4).
//!
//! Every message carries its publisher's sequence number. A hole that is not filled within a grace
//! period means that something was lost, and the session is bumped: entries of older sessions are
//! verified with L2 when they are next asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::PublisherId;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResyncReason {
    /// The subscription came up (or came back): what happened before is unknown.
    Connected,
    /// The subscription was lost.
    Disconnected,
    /// A publisher's sequence has a hole, or a message could not be read.
    MessageLost,
    /// An announced write was never confirmed by its publisher.
    Unconfirmed,
    /// A publisher owes announcements: the ledger says that it could not tell what it wrote.
    Owed,
    /// The node did not receive its own heartbeat for too long.
    SubscriptionLost,
    /// L2 answers again after it did not.
    L2Back,
}

/// How many holes of one publisher are tracked; more are one resync at once.
const MAX_HOLES: usize = 256;

/// How many holes are tracked in all; one more is a resync at once.
const MAX_OVERDUE: usize = 65_536;

/// How many publishers are tracked; more are one resync, and tracking starts over.
const MAX_PEERS: usize = 65_536;

/// The sequences of everyone received of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peers {
    peers: BTreeMap<PublisherId, Peer>,
    overdue: BTreeSet<(u64, PublisherId, u64)>,
    lost: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    next: u64,
    /// What is missing, and since when that is overdue.
    holes: BTreeMap<u64, u64>,
}

impl Peers {
    /// A message arrived. Never says to drop it: content is judged by content.
    ///
    /// `grace_until` is the moment at which a hole seen now becomes a loss.
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

    /// A publisher says it has sent everything below `next`.
    pub fn sent(&mut self, from: PublisherId, next: u64, grace_until: u64) {
        self.expect(from, next, grace_until);
    }

    /// A message arrived that could not be read: something was lost.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Whether something was lost by `now`; asked once, forgotten then.
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

    /// Whether nobody was received yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Everything below `seq` should have been received: what was not is a hole.
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
