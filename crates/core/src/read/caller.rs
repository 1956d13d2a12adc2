//! How one caller judges the outcome of a load.
//!
//! A load yields an outcome. Each caller, leader or joined, applies its own options to it (R6).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::judge::judge_record;
use super::verify::may_serve_unverified;
use super::{Call, Local, lookup};
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::flight::{Cause, Completed, Failure, Flight, Outcome, StaleReason, Usability};
use crate::node::Node;
use crate::protocol::flight::FlightId;
use crate::read::stale::may_serve_stale;

/// Which limit ended the wait before the flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Soft,
    Hard,
    Flight,
    LoadLockWait,
    /// The caller's limit for L2.
    L2(Duration),
}

/// The result of waiting for a flight.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// The caller returns this result.
    Take(Result<Cached<T>, Error>),
    /// The outcome is not valid for this caller: it registers again.
    Again,
    /// The load continues without L2, but this caller requires L2 and allows it more time.
    ///
    /// The caller asks L2 and skips L1. If it led and L2 has no value, it returns the load's
    /// outcome.
    AskL2,
    /// The load failed without L2, but its leader allows L2 more time: the leader asks again.
    ///
    /// If L2 has no value, the leader returns this error.
    AskAgain(Error),
}

/// The moment a caller registered, in two orders: node generation and flight id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    generation: u64,
    horizon: FlightId,
}

impl Ticket {
    pub(crate) fn now(node: &Node) -> Self {
        Self { generation: node.coherence.generation(), horizon: node.flights.horizon() }
    }

    /// Whether the flight began after the caller registered.
    pub(crate) fn is_before(self, flight: &Flight) -> bool {
        flight.id >= self.horizon
    }

    /// Whether this caller may use a result that an invalidation overtook (R4).
    fn may_take(self, flight: &Flight, usability: Usability) -> bool {
        let before_it_began = self.is_before(flight);
        match usability {
            _ if sabotaged!(UncheckedJoin) => true,
            Usability::Fresh => true,
            Usability::Refused => before_it_began,
            Usability::Overtaken => before_it_began || flight.stamp.generation == self.generation,
        }
    }
}

/// One caller that waits for a flight.
pub(super) struct Caller<'a> {
    pub(super) node: &'a Node,
    pub(super) flight: &'a Flight,
    pub(super) call: &'a Call,
    /// When it registered, if it joined another caller's flight; `None` for the leader.
    pub(super) joined: Option<Ticket>,
    /// When it started to wait for this flight.
    pub(super) since: Instant,
}

impl Caller<'_> {
    /// Applies this caller's options to an outcome.
    pub(super) fn answer<T: Value>(&self, outcome: Outcome) -> Answer<T> {
        if self.has_to_do_without_l2() {
            let failed = matches!(outcome, Outcome::Failed(_));
            match (self.is_more_patient_with_l2(), self.joined) {
                (false, _) => return self.l2_required(),
                (true, Some(_)) if failed => return Answer::Again,
                (true, _) if !failed => return Answer::AskL2,
                (true, _) => {}
            }
        }
        match outcome {
            Outcome::Value(completed) => self.value(completed),
            Outcome::Stale(erased, pause) => self.paused(erased, pause),
            Outcome::Failed(failure) => self.failed(failure),
        }
    }

    fn value<T: Value>(&self, completed: Completed) -> Answer<T> {
        let options = &self.call.options;
        let skipped = match completed.source {
            Source::L1 => options.skip_l1_read,
            Source::L2 => options.skip_l2_read,
            _ => false,
        };
        let may = |ticket: Ticket| !skipped && ticket.may_take(self.flight, completed.usability);
        if !self.joined.is_none_or(may) {
            return Answer::Again;
        }
        // A value of another type counts as no value.
        let Some(entry) = typed(completed.erased) else { return Answer::Again };
        let stale = completed.usability != Usability::Fresh;
        if stale {
            self.node.stale_hit(&entry.meta.key, completed.source);
        }
        Answer::Take(Ok(Cached::new(entry, self.node.now(), completed.source, stale)))
    }

    /// The leader accepted a stale value; a joined caller may require a load.
    fn paused<T: Value>(&self, erased: ErasedEntry, pause: StaleReason) -> Answer<T> {
        let Some(entry) = typed::<T>(Arc::clone(&erased)) else { return Answer::Again };
        let waited = || self.call.options.load_lock && self.call.has_waited_for_load_lock();
        let content = match (self.joined, pause) {
            (None, _) => true,
            (Some(_), StaleReason::Throttled) => self.may_have(&erased),
            (Some(_), StaleReason::Busy) => waited() && self.may_have(&erased),
            // The check was for the leader, and the entry may have been removed since.
            (Some(_), StaleReason::Unreachable) => {
                may_serve_unverified(self.node, self.call, &entry)
            }
        };
        let source = if pause == StaleReason::Unreachable { Source::L1 } else { Source::FailSafe };
        if content { stale(self.node, self.call, entry, None, source) } else { Answer::Again }
    }

    fn failed<T: Value>(&self, failure: Failure) -> Answer<T> {
        let Failure { error, stale: instead, cause } = failure;
        let options = &self.call.options;
        let continues = match cause {
            Cause::Load => self.is_more_patient_with_l2(),
            Cause::Deadline(limit) => options.factory_deadline > limit,
            Cause::Stopped | Cause::Abandoned | Cause::NoL2 | Cause::Lost => true,
        };
        if self.joined.is_some() && continues {
            return Answer::Again;
        }
        if let Some(answer) = self.continues_without_l2() {
            return answer;
        }
        if !error.is_of_a_load() {
            return Answer::Take(Err(error));
        }
        let has_time = || self.call.came.elapsed() < self.call.options.l2_hard_timeout;
        if self.joined.is_none() && self.is_more_patient_with_l2() && has_time() {
            return Answer::AskAgain(error);
        }
        // The leader's throttle is set by the load, because its factory may have changed it.
        let throttle = options.fail_safe.filter(|_| self.joined.is_some()).map(|f| f.throttle);
        match instead.filter(|erased| self.may_have(erased)).and_then(typed::<T>) {
            Some(entry) => stale(self.node, self.call, entry, throttle, Source::FailSafe),
            None => Answer::Take(Err(error)),
        }
    }

    /// Whether this caller may get this stale value.
    pub(super) fn may_have(&self, erased: &ErasedEntry) -> bool {
        let Self { node, flight, call, .. } = *self;
        // If L2 was not asked, the stale value comes from L1.
        let is_from_l1 = node.records().is_none() || flight.without_l2().is_some();
        let may_not_use_l1 = call.options.skip_l1_read || self.has_to_do_without_l2();
        if flight.removed.load(Ordering::Acquire) || (is_from_l1 && may_not_use_l1) {
            return false;
        }
        let verdict = judge_record(node, &call.key, erased.meta());
        if sabotaged!(LeaderDecides) && self.joined.is_some() && call.options.fail_safe.is_none() {
            let options = call.options.clone().fail_safe(crate::FailSafe::default());
            return may_serve_stale(erased.meta(), verdict, &options, node.now());
        }
        may_serve_stale(erased.meta(), verdict, &call.options, node.now())
    }

    /// Answers before the flight ends: with the fallback if this caller may have it, else an error.
    pub(super) fn give_up<T: Value>(&self, over: Over, fallback: Option<ErasedEntry>) -> Answer<T> {
        // Checked again: a removal may have hidden it while this caller waited.
        let fallback = fallback.filter(|erased| self.may_have(erased));
        give_up(self.node, self.call, over, fallback)
    }

    /// Whether the load continues without L2 although this caller requires it.
    pub(super) fn has_to_do_without_l2(&self) -> bool {
        self.call.options.require_l2 && self.flight.without_l2().is_some()
    }

    pub(super) fn l2_required<T>(&self) -> Answer<T> {
        Answer::Take(Err(self.node.l2_required(&self.call.key)))
    }

    /// Whether another caller gave up on L2 after a shorter limit than this caller's.
    pub(super) fn is_more_patient_with_l2(&self) -> bool {
        let longer = |limit: Duration| self.call.options.l2_hard_timeout > limit;
        let of_another = self.joined.is_some() || self.flight.given_up().is_some();
        of_another && self.flight.without_l2().is_some_and(longer)
    }

    /// Handles an L2 that did not answer within this caller's limit, as if this caller led.
    ///
    /// It returns an error if the caller requires L2, else the unverified copy in L1. Without a
    /// copy it makes the flight load without L2, for every caller that waits.
    pub(super) fn give_up_l2<T: Value>(&self, limit: Duration) -> Option<Answer<T>> {
        if self.call.options.require_l2 {
            return Some(self.l2_required());
        }
        let copy = self.unverified_copy();
        if copy.is_none() {
            self.flight.give_up_l2(limit);
        }
        copy
    }

    /// The unverified copy that this caller would get at once if it were alone.
    ///
    /// The load may continue without L2 because its leader accepts no unverified copy.
    pub(super) fn continues_without_l2<T: Value>(&self) -> Option<Answer<T>> {
        let of_another = self.joined.is_some() || self.flight.strict != self.call.options.strict;
        let without_l2 = self.flight.without_l2().is_some() && !self.is_more_patient_with_l2();
        if of_another && without_l2 { self.unverified_copy() } else { None }
    }

    /// The copy in L1, if this caller may get it unverified.
    fn unverified_copy<T: Value>(&self) -> Option<Answer<T>> {
        let Self { node, flight, call, .. } = *self;
        let Local::Candidate(entry, _) = lookup::<T>(node, call) else { return None };
        let may =
            !flight.removed.load(Ordering::Acquire) && may_serve_unverified(node, call, &entry);
        may.then(|| stale(node, call, entry, None, Source::L1))
    }
}

/// Answers a caller whose limit has passed: with the fallback if there is one, else an error.
pub(super) fn give_up<T: Value>(
    node: &Node,
    call: &Call,
    over: Over,
    fallback: Option<ErasedEntry>,
) -> Answer<T> {
    let fallback = fallback.and_then(typed::<T>);
    let kind = match over {
        Over::Flight | Over::LoadLockWait | Over::L2(_) => ErrorKind::WaitTimeout,
        Over::Soft | Over::Hard => ErrorKind::FactoryTimeout,
    };
    if kind == ErrorKind::FactoryTimeout {
        let stale = fallback.is_some();
        let event = |key| Event::FactoryTimeout { key, stale };
        node.note(&node.counters.factory_timeouts, &call.key, event);
    }
    let throttle =
        call.options.fail_safe.filter(|_| over != Over::LoadLockWait).map(|f| f.throttle);
    match fallback {
        Some(entry) => stale(node, call, entry, throttle, Source::FailSafe),
        None => Answer::Take(Err(node.error(kind, &call.key, "no stale value may be served"))),
    }
}

fn stale<T: Value>(
    node: &Node,
    call: &Call,
    entry: Arc<Entry<T>>,
    throttle: Option<Duration>,
    source: Source,
) -> Answer<T> {
    let now = node.now();
    if let Some(throttle) = throttle {
        entry.meta.throttle(now + throttle);
    }
    node.stale_hit(&call.key, source);
    Answer::Take(Ok(Cached::new(entry, now, source, true)))
}

impl Call {
    /// How long this call waits for another node's load, counted from its start.
    pub(super) fn load_lock_wait(&self) -> Duration {
        if self.options.load_lock { self.options.load_lock_wait } else { Duration::ZERO }
    }

    /// Whether that time has passed.
    pub(super) fn has_waited_for_load_lock(&self) -> bool {
        self.came.elapsed() >= self.load_lock_wait()
    }
}
