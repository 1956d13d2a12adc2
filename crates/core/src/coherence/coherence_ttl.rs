use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::sync::{AtomicU64, Mutex};

/// The coherence TTL: until when an entry verified in the current session needs no check.
#[derive(Debug)]
pub(crate) struct CoherenceTtl {
    ttl: u64,
    /// Times of sending, in nanoseconds; 0 for never.
    synced_at: AtomicU64,
    last_heartbeat_at: AtomicU64,
    listening_since: AtomicU64,
    until: AtomicU64,
    /// When the heartbeats were sent that have come back since the last check.
    came_back: Mutex<Vec<Moment>>,
}

/// How many heartbeats may come back between two checks; the rest count as lost.
const MOST: usize = 64;

impl CoherenceTtl {
    /// A coherence TTL of length X that begins with the first proof.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl: nanos(ttl),
            synced_at: AtomicU64::new(0),
            last_heartbeat_at: AtomicU64::new(0),
            listening_since: AtomicU64::new(0),
            until: AtomicU64::new(0),
            came_back: Mutex::default(),
        }
    }

    /// A cache without other nodes is always coherent.
    pub(crate) fn forever() -> Self {
        let ttl = Self::new(Duration::MAX);
        ttl.until.store(u64::MAX, Ordering::Relaxed);
        ttl
    }

    /// X, in nanoseconds.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        self.ttl
    }

    /// The end, in nanoseconds on the node's clock.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.until.load(Ordering::Acquire)
    }

    /// When the last heartbeat that came back was sent.
    pub(crate) fn last_heartbeat_at(&self) -> Moment {
        Moment::from_nanos(self.last_heartbeat_at.load(Ordering::Acquire))
    }

    /// When the last `SYNC` that was answered was asked.
    pub(crate) fn synced_at(&self) -> Moment {
        Moment::from_nanos(self.synced_at.load(Ordering::Acquire))
    }

    /// Notes that a `SYNC` asked at `asked` was answered.
    pub(crate) fn synced(&self, asked: Moment) {
        self.synced_at.fetch_max(asked.as_nanos(), Ordering::AcqRel);
        self.extend();
    }

    /// Notes that the heartbeat sent at `sent` came back.
    pub(crate) fn heartbeat(&self, sent: Moment) {
        let mut came_back = self.came_back.lock();
        if came_back.len() < MOST {
            came_back.push(sent);
        }
        drop(came_back);
        self.last_heartbeat_at.fetch_max(sent.as_nanos(), Ordering::AcqRel);
        self.extend();
    }

    /// Takes the times of sending of heartbeats that have come back, up to `until`. What has come
    /// back since the caller read `until` is for its next check.
    pub(super) fn take_heartbeats(&self, until: Moment) -> Vec<Moment> {
        let mut came_back = self.came_back.lock();
        let all = std::mem::take(&mut *came_back);
        let (taken, left) = all.into_iter().partition(|sent| *sent <= until);
        *came_back = left;
        taken
    }

    /// Since when the subscription is in force.
    pub(super) fn listening_since(&self) -> Moment {
        Moment::from_nanos(self.listening_since.load(Ordering::Acquire))
    }

    /// The subscription is lost: from here on nothing is proven. What was proven holds until its
    /// TTL ends, or until an answered poll shows that only this node has lost its subscription.
    pub(crate) fn subscription_lost(&self) {
        self.last_heartbeat_at.store(0, Ordering::Release);
        self.listening_since.store(0, Ordering::Release);
    }

    /// Notes a subscription in force: the heartbeat has until now plus its limit to come back.
    pub(crate) fn listen(&self, now: Moment) {
        self.listening_since.store(now.as_nanos(), Ordering::Release);
    }

    /// Heartbeats sent until then have come back, or were sent before the subscription was in
    /// force.
    pub(crate) fn answered(&self) -> Moment {
        self.last_heartbeat_at().max(self.listening_since())
    }

    fn extend(&self) {
        let synced = self.synced_at.load(Ordering::Acquire);
        let heartbeat = self.last_heartbeat_at.load(Ordering::Acquire);
        if synced != 0 && heartbeat != 0 {
            self.until.store(synced.min(heartbeat).saturating_add(self.ttl), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A heartbeat may come back while the poll checks. If it were forgotten, it would seem lost.
    #[test]
    fn a_heartbeat_that_lands_during_a_look_is_there_for_the_next() {
        let ttl = CoherenceTtl::new(Duration::from_secs(30));
        let [first, second] = [1, 2].map(Moment::from_nanos);
        ttl.heartbeat(first);
        let answered = ttl.answered();
        ttl.heartbeat(second);
        assert_eq!(ttl.take_heartbeats(answered), [first]);
        assert_eq!(ttl.take_heartbeats(ttl.answered()), [second]);
        assert!(ttl.take_heartbeats(ttl.answered()).is_empty());
    }
}
