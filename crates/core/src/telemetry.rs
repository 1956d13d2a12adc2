//! Counters: one relaxed add each, read by [`Cache::stats`](crate::Cache::stats).

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of a cache's counters, all since it was built.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }
    };
}

stats! {
    /// Answers from L1.
    l1_hits,
    /// L1 entries that a version check in L2 confirmed.
    l1_verified,
    /// Answers from L2.
    l2_hits,
    /// Reads that neither level could answer.
    misses,
    /// Stale answers, fail-safe included.
    stale,
    /// Entries loaded anew before their life was over.
    eager_refreshes,
    /// Factories started.
    factory_calls,
    /// Factories that failed, panicked or ran out of time.
    factory_failures,
    /// Callers that shared another caller's load.
    joined,
    /// Callers whose load was overtaken by an invalidation and who loaded again.
    join_refused,
    /// Fills that L2 refused because the record had changed.
    fill_refused,
    /// Results not kept in L1 because an invalidation overtook them.
    fence_hits,
    /// Entries found that a removal by tag or a clear hides.
    hidden,
    /// Times another node's load was waited for.
    lease_waits,
    /// L2 operations that failed or timed out.
    l2_errors,
    /// Records that could not be decoded, or were not ours.
    l2_undecodable,
    /// Values that could not be encoded, or were too large, and stayed in L1.
    l2_unencodable,
    /// Messages received.
    messages,
    /// Messages that could not be decoded.
    messages_undecodable,
    /// Times something was in doubt and entries had to be verified again.
    doubts,
    /// Ledger polls answered.
    syncs,
    /// Times the ledger was another than before.
    epochs,
    /// Times a promoted server had lost removals that this node issued again.
    reissues,
    /// Times a promoted server had issued numbers this node had passed; everything was cleared.
    forks,
    /// Invalidations that wait for L2, or have waited.
    queued,
    /// Times the recovery queue overflowed into a clear.
    recovery_overflows,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
