//! The calls with which the pipeline counts and emits what has happened.

use std::time::Duration;

use super::Node;
use crate::clock::Moment;
use crate::entry::{Meta, Source};
use crate::error::Error;
use crate::events::{Event, EventKey, LedgerTrouble, MissReason};
use crate::protocol::validity::{Verdict, Why};
use crate::telemetry::{Counter, FailureKind, Fault, Nth, Stats, spans};

/// One hit of L1 in this many is sampled.
const SAMPLE: u64 = 64;

impl Node {
    pub(crate) fn stats(&self) -> Stats {
        let (l1_hits, checks_judged) = (self.telemetry.l1_hits.get(), self.coherence.judged.get());
        let failed = |kind: FailureKind| self.telemetry.l2_errors[kind as usize].get();
        Stats {
            l1_hits,
            checks_judged,
            // Some checks are not of hits, and a counter must not fall.
            checks_memo: self.counters.checks_memo.raise(l1_hits.saturating_sub(checks_judged)),
            evictions: self.telemetry.evictions.get(),
            messages_published: self.telemetry.published.get(),
            l2_errors: self.telemetry.l2_errors.iter().map(Counter::get).sum(),
            l2_errors_unreachable: failed(FailureKind::Unreachable),
            l2_errors_timeout: failed(FailureKind::Timeout),
            l2_errors_denied: failed(FailureKind::Denied),
            l2_errors_full: failed(FailureKind::Full),
            l2_errors_other: failed(FailureKind::Other),
            ..self.counters.snapshot()
        }
    }

    /// Emits an event about a key if there is a subscriber.
    pub(crate) fn emit(&self, key: &str, event: impl FnOnce(EventKey) -> Event) {
        self.telemetry.emit(|| event(self.telemetry.key(key)));
    }

    /// Counts, and emits an event about a key.
    pub(crate) fn note(&self, count: &Counter, key: &str, event: impl FnOnce(EventKey) -> Event) {
        count.add();
        self.emit(key, event);
    }

    /// Counts an entry that a removal hides.
    pub(crate) fn found(&self, verdict: Verdict) {
        if matches!(verdict, Verdict::Hidden(Why::Tag | Why::Clear)) {
            self.counters.hidden.add();
        }
    }

    /// Counts a fresh hit of L1. The counter's result says whether to sample or emit it.
    #[inline]
    pub(crate) fn l1_hit(&self, meta: &Meta, now: Moment) -> Nth {
        let nth = self.telemetry.l1_hits.add();
        if nth.is_one_in(SAMPLE) {
            self.sample_hit(meta, now);
        }
        if nth.is_watched() {
            self.emit_hit(meta);
        }
        nth
    }

    #[cold]
    fn sample_hit(&self, meta: &Meta, now: Moment) {
        meta.warm();
        self.telemetry.meters.l1_age.record(now.since(meta.created));
    }

    #[cold]
    fn emit_hit(&self, meta: &Meta) {
        if self.settings.trace_hits {
            spans::hit(&self.telemetry, &meta.key);
        } else if !self.telemetry.events_bus.wants_l1_hits() {
            self.telemetry.l1_hits.unwatch();
            // A subscriber may have come between the check and `unwatch`.
            if self.telemetry.events_bus.wants_l1_hits() {
                self.telemetry.l1_hits.watch();
            }
            return;
        }
        self.emit(&meta.key, |key| Event::Hit { key, source: Source::L1, stale: false });
    }

    /// Counts and emits a fresh hit.
    pub(crate) fn fresh_hit(&self, meta: &Meta, source: Source, now: Moment) {
        match source {
            Source::L1 => {
                self.l1_hit(meta, now);
            }
            Source::L2 => self.l2_hit(meta, now),
            _ => {}
        }
    }

    fn l2_hit(&self, meta: &Meta, now: Moment) {
        self.telemetry.meters.l2_age.record(now.since(meta.created));
        let event = |key| Event::Hit { key, source: Source::L2, stale: false };
        self.note(&self.counters.l2_hits, &meta.key, event);
    }

    /// Counts and emits a stale hit.
    pub(crate) fn stale_hit(&self, key: &str, source: Source) {
        self.note(&self.counters.stale, key, |key| Event::Hit { key, source, stale: true });
    }

    /// Counts and emits a read that found no usable entry.
    pub(crate) fn miss(&self, key: &str, reason: MissReason) {
        let counters = &self.counters;
        counters.misses.add();
        let counter = match reason {
            MissReason::Absent => &counters.misses_absent,
            MissReason::Stale => &counters.misses_stale,
            MissReason::Hidden => &counters.misses_hidden,
            MissReason::Unusable => &counters.misses_unusable,
            MissReason::Unreachable => &counters.misses_unreachable,
        };
        self.note(counter, key, |key| Event::Miss { key, reason });
    }

    /// Records the end of a factory.
    pub(crate) fn factory_ended(&self, key: &str, took: Duration, failure: Option<&Error>) {
        let meters = &self.telemetry.meters;
        let Some(error) = failure else {
            meters.factory_ok.record(took);
            return self.emit(key, |key| Event::FactorySuccess { key, took });
        };
        meters.factory_failed.record(took);
        let event = |key| Event::FactoryError { key, took, error: error.clone() };
        self.note(&self.counters.factory_failures, key, event);
    }

    /// Counts and emits a ledger that differs from what this node knew.
    pub(crate) fn ledger_trouble(&self, count: &Counter, trouble: LedgerTrouble) {
        count.add();
        self.recovery.recent_writes.suspect();
        self.telemetry.emit(|| Event::Ledger { trouble });
    }

    /// Why the coherence TTL has expired.
    fn why_incoherent(&self, now: Moment) -> &'static str {
        let coherence = &self.coherence.ttl;
        let is_old = |at: Moment| now.since(at) > self.settings.coherence_ttl;
        if self.coherence.known().suspect {
            "the ledger is unverified until L2 answers a poll"
        } else if is_old(coherence.synced_at()) {
            "L2 has answered no poll within the coherence TTL"
        } else if is_old(coherence.last_heartbeat_at()) {
            "no heartbeat of this node has come back over the backplane within the coherence TTL"
        } else {
            "the coherence TTL has run out"
        }
    }

    /// Checks whether this node is coherent, and reports a change.
    pub(crate) fn watch_coherence(&self) {
        let now = self.now();
        let coherent = self.coherence.is_coherent(now);
        let mut trouble = self.telemetry.trouble.lock();
        if trouble.coherent.0 == coherent {
            return;
        }
        trouble.coherent = (coherent, now);
        drop(trouble);
        match coherent {
            true => self.telemetry.fault_over(Fault::NotCoherent),
            false => self.telemetry.fault(Fault::NotCoherent, self.why_incoherent(now)),
        }
        self.telemetry.emit(|| Event::Coherence { coherent });
    }
}
