//! What a replica may not know yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::protocol::KeyHash;

/// How many moments are kept; keys that share one are asked of the primary more often than they must.
const MOMENTS: usize = 1 << 16;

/// When this node last had news of a key: it has written or read it on the primary, or heard of it.
/// A replica is asked only about what had no news for as long as it may lag behind.
#[derive(Debug)]
pub(crate) struct Recent {
    lag: Duration,
    news: Box<[AtomicU64]>,
    /// The session as of the last question, and since when it may be known: news from before may be lost.
    session: AtomicU64,
    since: AtomicU64,
}

impl Recent {
    pub(crate) fn new(lag: Duration) -> Self {
        let news = (0..MOMENTS).map(|_| AtomicU64::new(0)).collect();
        Self { lag, news, session: AtomicU64::new(0), since: AtomicU64::new(0) }
    }

    pub(crate) fn lag(&self) -> Duration {
        self.lag
    }

    /// There was news of a key.
    pub(crate) fn note(&self, key: KeyHash, now: Moment) {
        self.place(key).fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    /// Whether a replica knows all that this node does of a key, in a session that it asks in now.
    pub(crate) fn is_settled(&self, key: KeyHash, session: u64, now: Moment) -> bool {
        if self.session.load(Ordering::Acquire) != session {
            self.since.fetch_max(now.as_nanos(), Ordering::AcqRel);
            self.session.store(session, Ordering::Release);
        }
        let since = self.since.load(Ordering::Acquire);
        let news = self.place(key).load(Ordering::Acquire).max(since);
        now.as_nanos() > news.saturating_add(nanos(self.lag))
    }

    fn place(&self, key: KeyHash) -> &AtomicU64 {
        &self.news[(key.0 % MOMENTS as u128) as usize]
    }
}
