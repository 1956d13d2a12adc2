use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::sync::{AtomicU64, Mutex};

/// Until when an entry verified in the current session needs no check of its own.
#[derive(Debug)]
pub(crate) struct CoherenceLease {
    lease: u64,
    /// Moments of sending, in nanoseconds; 0 for never.
    synced_at: AtomicU64,
    heard_at: AtomicU64,
    listening_since: AtomicU64,
    until: AtomicU64,
    /// When those that came back since the last look were sent.
    came_back: Mutex<Vec<Moment>>,
}

/// How many heartbeats come back between two looks at most; the rest count as lost.
const MOST: usize = 64;

impl CoherenceLease {
    /// A lease of length X that begins with the first proof.
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            lease: nanos(lease),
            synced_at: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            listening_since: AtomicU64::new(0),
            until: AtomicU64::new(0),
            came_back: Mutex::default(),
        }
    }

    /// A cache without other nodes is always coherent.
    pub(crate) fn forever() -> Self {
        let lease = Self::new(Duration::MAX);
        lease.until.store(u64::MAX, Ordering::Relaxed);
        lease
    }

    /// X, in nanoseconds.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        self.lease
    }

    /// The end, in nanoseconds on the node's clock.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.until.load(Ordering::Acquire)
    }

    /// When the last heartbeat that came back was sent.
    pub(crate) fn heard_at(&self) -> Moment {
        Moment::from_nanos(self.heard_at.load(Ordering::Acquire))
    }

    /// When the last `SYNC` that was answered was asked.
    pub(crate) fn synced_at(&self) -> Moment {
        Moment::from_nanos(self.synced_at.load(Ordering::Acquire))
    }

    /// A `SYNC` asked at `asked` was answered.
    pub(crate) fn synced(&self, asked: Moment) {
        self.synced_at.fetch_max(asked.as_nanos(), Ordering::AcqRel);
        self.extend();
    }

    /// The heartbeat sent at `sent` came back.
    pub(crate) fn heard(&self, sent: Moment) {
        let mut came_back = self.came_back.lock();
        if came_back.len() < MOST {
            came_back.push(sent);
        }
        drop(came_back);
        self.heard_at.fetch_max(sent.as_nanos(), Ordering::AcqRel);
        self.extend();
    }

    /// When the heartbeats were sent that have come back since the last call, of those sent until then.
    /// What has come back since the caller looked is for its next look.
    pub(super) fn take_heard(&self, until: Moment) -> Vec<Moment> {
        let mut came_back = self.came_back.lock();
        let all = std::mem::take(&mut *came_back);
        let (taken, left) = all.into_iter().partition(|sent| *sent <= until);
        *came_back = left;
        taken
    }

    /// Since when there is a subscription.
    pub(super) fn listening_since(&self) -> Moment {
        Moment::from_nanos(self.listening_since.load(Ordering::Acquire))
    }

    /// The subscription is gone: from here on nothing is proven. What was proven holds until its
    /// lease ends, or until a poll is answered and says that this node alone is deaf.
    pub(crate) fn lose(&self) {
        self.heard_at.store(0, Ordering::Release);
        self.listening_since.store(0, Ordering::Release);
    }

    /// A subscription is in force: the heartbeat has until now plus its limit to come back.
    pub(crate) fn listen(&self, now: Moment) {
        self.listening_since.store(now.as_nanos(), Ordering::Release);
    }

    /// Heartbeats sent until then have come back, or went out before anybody listened.
    pub(crate) fn answered(&self) -> Moment {
        self.heard_at().max(self.listening_since())
    }

    fn extend(&self) {
        let synced = self.synced_at.load(Ordering::Acquire);
        let heard = self.heard_at.load(Ordering::Acquire);
        if synced != 0 && heard != 0 {
            self.until.store(synced.min(heard).saturating_add(self.lease), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The receiver may hear one while the poll looks; if that were forgotten, it would seem lost.
    #[test]
    fn a_heartbeat_that_lands_during_a_look_is_there_for_the_next() {
        let lease = CoherenceLease::new(Duration::from_secs(30));
        let [first, second] = [1, 2].map(Moment::from_nanos);
        lease.heard(first);
        let answered = lease.answered();
        lease.heard(second);
        assert_eq!(lease.take_heard(answered), [first]);
        assert_eq!(lease.take_heard(lease.answered()), [second]);
        assert!(lease.take_heard(lease.answered()).is_empty());
    }
}
