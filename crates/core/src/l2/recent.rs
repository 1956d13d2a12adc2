//! Recently changed keys, which a replica may not have seen yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Moment, nanos};
use crate::protocol::KeyHash;

/// How many times are kept. Keys that share one are read from the primary more often than needed.
const MOMENTS: usize = 1 << 16;

/// When this node last knew of a change of a key: it wrote it, read it on the primary, or received
/// a message about it. A replica is read only for keys without a change within its maximum lag.
#[derive(Debug)]
pub(crate) struct Recent {
    lag: Duration,
    news: Box<[AtomicU64]>,
    /// The session at the last check, and when this node first saw it. Older changes may be
    /// missing.
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

    /// Records a possible change of a key.
    pub(crate) fn note(&self, key: KeyHash, now: Moment) {
        self.place(key).fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    /// Whether a replica has all that this node knows of a key, in the session of the reader.
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
