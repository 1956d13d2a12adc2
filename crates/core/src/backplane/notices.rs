//! Tracks received messages that are not confirmed yet, and own writes whose echoes may come late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::protocol::resync::{Peers, ResyncReason};
use crate::protocol::{KeyHash, PublisherId, Version};

/// How long this node still applies echoes of its own writes once a write of unknown outcome can no
/// longer run.
const LATE_WINDOW: Duration = Duration::from_secs(60);

/// How many announced writes are remembered; more cause one resync.
const MAX_UNCONFIRMED: usize = 10_000;

/// Notices that are received and not settled.
#[derive(Debug, Default)]
pub(crate) struct PendingNotices {
    peers: Mutex<Peers>,
    unconfirmed: Mutex<HashMap<(PublisherId, KeyHash, Version), Moment>>,
    /// Until when an own write may still run late on the server.
    late_until: AtomicU64,
    /// Requests another subscription: the present one is lost.
    pub(crate) resubscribe: Notify,
}

impl PendingNotices {
    /// The reason for a resync that is due by `now`.
    pub(crate) fn resync(&self, now: Moment) -> Option<ResyncReason> {
        if self.peers.lock().take_loss(now.as_nanos()) {
            return Some(ResyncReason::MessageLost);
        }
        let mut unconfirmed = self.unconfirmed.lock();
        let before = unconfirmed.len();
        unconfirmed.retain(|_, due| *due > now);
        (unconfirmed.len() < before).then_some(ResyncReason::Unconfirmed)
    }

    /// Notes an own write of unknown outcome, which may run until `settled`: its echo must be
    /// applied.
    pub(crate) fn open_late_window(&self, settled: Moment) {
        let until = settled + LATE_WINDOW;
        self.late_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Whether echoes of own writes must be applied.
    pub(crate) fn is_late_window_open(&self, now: Moment) -> bool {
        now.as_nanos() <= self.late_until.load(Ordering::Relaxed)
    }

    /// Records a received message. A gap in its publisher's sequence is a loss after `grace`.
    pub(crate) fn received(&self, from: PublisherId, seq: u64, grace: Moment) {
        self.peers.lock().received(from, seq, grace.as_nanos());
    }

    /// Records how far a publisher's sequence has come. Messages missing at `grace` are lost.
    pub(crate) fn sent(&self, from: PublisherId, next: u64, grace: Moment) {
        self.peers.lock().sent(from, next, grace.as_nanos());
    }

    /// Records that a message was lost.
    pub(crate) fn message_lost(&self) {
        self.peers.lock().message_lost();
    }

    pub(crate) fn peers(&self) -> usize {
        self.peers.lock().len()
    }

    /// Remembers an announced write until it is confirmed. True if there are too many to remember.
    pub(crate) fn expect(
        &self,
        from: PublisherId,
        key: KeyHash,
        version: Version,
        due: Moment,
    ) -> bool {
        let mut unconfirmed = self.unconfirmed.lock();
        if unconfirmed.len() >= MAX_UNCONFIRMED {
            unconfirmed.clear();
            return true;
        }
        unconfirmed.insert((from, key, version), due);
        false
    }

    pub(crate) fn confirm(&self, from: PublisherId, key: KeyHash, version: Version) {
        self.unconfirmed.lock().remove(&(from, key, version));
    }
}
