//! Counters: one relaxed add each, read by [`Cache::stats`](crate::Cache::stats).

use std::sync::atomic::{AtomicU64, Ordering};

use super::Series;

/// One row per counter: its doc, its name, and the metric that exports it.
macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident $(=> $metric:literal $({$label:ident: $value:literal})?)?,)*) => {
        /// A snapshot of a cache's counters. All count since the cache was built.
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

        /// The metrics that export the counters.
        pub(crate) const COUNTERS: &[Series<Stats, u64>] = &[
            $($(Series {
                metric: $metric,
                label: stats!(@label $($label $value)?),
                read: |stats| Some(stats.$name),
            },)?)*
        ];
    };
    (@label) => { None };
    (@label $label:ident $value:literal) => { Some((stringify!($label), $value)) };
}

stats! {
    /// Answers from L1.
    l1_hits => "crinkle_hits_total" {source: "l1"},
    /// L1 entries that a version check in L2 confirmed.
    l1_verified => "crinkle_l1_verified_total",
    /// Answers from L2.
    l2_hits => "crinkle_hits_total" {source: "l2"},
    /// Reads that neither level could answer.
    misses,
    /// Of those: neither level had it.
    misses_absent => "crinkle_misses_total" {reason: "absent"},
    /// Of those: it had expired.
    misses_stale => "crinkle_misses_total" {reason: "stale"},
    /// Of those: a removal by tag or a clear hid it.
    misses_hidden => "crinkle_misses_total" {reason: "hidden"},
    /// Of those: the key held another type, or bytes that could not be decoded.
    misses_unusable => "crinkle_misses_total" {reason: "unusable"},
    /// Of those: L2 was not available.
    misses_unreachable => "crinkle_misses_total" {reason: "unreachable"},
    /// Stale answers, fail-safe included.
    stale => "crinkle_stale_answers_total",
    /// Entries refreshed before they expired.
    eager_refreshes => "crinkle_eager_refreshes_total",
    /// Stale values served because a factory failed.
    fail_safe => "crinkle_fail_safe_total",
    /// Factories started.
    factory_calls => "crinkle_factory_calls_total",
    /// Factories that failed, panicked or exceeded their deadline.
    factory_failures => "crinkle_factory_failures_total",
    /// Callers that stopped waiting for a factory.
    factory_timeouts => "crinkle_factory_timeouts_total",
    /// Callers that shared another caller's load.
    joined => "crinkle_joined_total",
    /// Callers that could not join a load because an invalidation overtook it, and loaded again.
    join_refused => "crinkle_join_refused_total",
    /// Fills that L2 refused because the record had changed.
    fill_refused => "crinkle_fill_refused_total",
    /// Results not kept in L1 because an invalidation overtook them.
    fence_hits => "crinkle_fence_hits_total",
    /// Entries found that a removal by tag or a clear hides.
    hidden => "crinkle_hidden_total",
    /// Hits of L1 decided by comparing one number. Approximate: hits minus the checks below.
    checks_memo => "crinkle_checks_total" {path: "memo"},
    /// Checks that compared an entry with its barriers.
    checks_judged => "crinkle_checks_total" {path: "judged"},
    /// Entries that L1 evicted because it was full.
    evictions => "crinkle_evictions_total",
    /// Values stored by `set`.
    sets => "crinkle_writes_total" {op: "set"},
    /// Keys removed by `remove`.
    removes => "crinkle_writes_total" {op: "remove"},
    /// Keys expired by `expire`.
    expires => "crinkle_writes_total" {op: "expire"},
    /// Removals and expiries by tag.
    tag_removals => "crinkle_writes_total" {op: "remove_by_tag"},
    /// Clears.
    clears => "crinkle_writes_total" {op: "clear"},
    /// Times a caller waited for another node's load.
    load_lock_waits => "crinkle_load_lock_waits_total",
    /// L2 operations that failed or timed out.
    l2_errors,
    /// Of those: L2 could not be reached.
    l2_errors_unreachable => "crinkle_l2_errors_total" {kind: "unreachable"},
    /// Of those: L2 did not answer in time.
    l2_errors_timeout => "crinkle_l2_errors_total" {kind: "timeout"},
    /// Of those: L2 refused the login or the command.
    l2_errors_denied => "crinkle_l2_errors_total" {kind: "denied"},
    /// Of those: L2 was out of memory.
    l2_errors_full => "crinkle_l2_errors_total" {kind: "full"},
    /// Of those: anything else.
    l2_errors_other => "crinkle_l2_errors_total" {kind: "other"},
    /// Records that could not be decoded, or were not Crinkle's.
    l2_undecodable => "crinkle_undecodable_total" {what: "record"},
    /// Values not sent to L2 because they could not be encoded or were too large.
    l2_unencodable => "crinkle_unencodable_total",
    /// Messages received.
    messages => "crinkle_messages_total" {direction: "received"},
    /// Messages published by this node, or by L2 on its behalf; without heartbeats.
    messages_published => "crinkle_messages_total" {direction: "published"},
    /// Messages that could not be decoded.
    messages_undecodable => "crinkle_undecodable_total" {what: "message"},
    /// Resyncs: times when entries had to be verified again.
    resyncs,
    /// Of those: the subscription came up.
    resyncs_connected => "crinkle_session_changes_total" {cause: "connected"},
    /// Of those: a message was lost.
    resyncs_message_lost => "crinkle_session_changes_total" {cause: "message_lost"},
    /// Of those: an announced write was never confirmed.
    resyncs_unconfirmed => "crinkle_session_changes_total" {cause: "unconfirmed"},
    /// Of those: this node's heartbeat did not come back.
    resyncs_subscription_lost => "crinkle_session_changes_total" {cause: "subscription_lost"},
    /// Of those: the ledger said that another node could not announce its writes.
    resyncs_owed => "crinkle_session_changes_total" {cause: "owed"},
    /// Of those: a removal arrived under a number that this node had passed.
    resyncs_number_conflict => "crinkle_session_changes_total" {cause: "number_conflict"},
    /// Of those: L2 answers again.
    resyncs_l2_back => "crinkle_session_changes_total" {cause: "l2_back"},
    /// Hits of L1 that were compared with L2 (`shadow_verify`).
    shadow_checked => "crinkle_shadow_total" {outcome: "checked"},
    /// Of those: L2 had replaced them for longer than allowed. Should stay 0.
    shadow_illegal => "crinkle_shadow_total" {outcome: "illegal"},
    /// Of those: L2 no longer had a record, without an announcement, as after an eviction.
    shadow_absent => "crinkle_shadow_total" {outcome: "absent"},
    /// Ledger polls answered.
    syncs => "crinkle_syncs_total",
    /// Times another ledger replaced the known one.
    epochs => "crinkle_ledger_troubles_total" {what: "replaced"},
    /// Times a promoted server had lost removals and this node issued them again.
    reissues => "crinkle_ledger_troubles_total" {what: "reissued"},
    /// Times a promoted server had issued numbers below this node's frontier; the node cleared
    /// everything.
    forks => "crinkle_ledger_troubles_total" {what: "forked"},
    /// Invalidations queued for L2.
    queued => "crinkle_recovery_queued_total",
    /// Writes of this node that L2 no longer had after its primary may have changed. The node
    /// invalidated their keys.
    reasserted => "crinkle_reasserted_total",
    /// Writes of this node that it could not compare then, because it remembers only a limited
    /// number.
    reassert_forgotten => "crinkle_reassert_forgotten_total",
    /// Times the recovery queue was full and one clear replaced it.
    recovery_overflows => "crinkle_recovery_overflows_total",
}

/// A count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it to `to`, never lowers it, and returns the result.
    pub(crate) fn raise(&self, to: u64) -> u64 {
        self.0.fetch_max(to, Ordering::Relaxed).max(to)
    }
}
