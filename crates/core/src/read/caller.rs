//! What a caller makes of a load. A load says what it brought; each caller applies its own options to that,
//! whether it leads or has joined: no caller is judged by another's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::probe::judge_record;
use super::verify::may_serve_unverified;
use super::wait::Over;
use super::{Call, Local, lookup};
use crate::cache::Inner;
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::fail_safe::may_serve_stale;
use crate::flight::{Cause, Completed, Failure, Flight, Outcome, Pause, Standing};
use crate::protocol::flight::FlightId;

/// What became of waiting.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// The answer.
    Take(Result<Cached<T>, Error>),
    /// That result is not for this caller: register again.
    Again,
    /// The load does without L2, which this caller requires and gives more time: ask L2, whatever L1 has. If
    /// this caller led, and L2 has nothing, the load is the answer.
    AskL2,
    /// The load has failed without L2, which this caller, who led, would have given more time: ask again. If
    /// there is nothing in L2, this is the answer.
    AskAgain(Error),
}

/// When a caller ticket, in the two orders that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    generation: u64,
    horizon: FlightId,
}

impl Ticket {
    pub(crate) fn now<C>(inner: &Inner<C>) -> Self {
        Self { generation: inner.node.generation(), horizon: inner.flights.horizon() }
    }

    /// Whether the flight began after the caller came.
    pub(crate) fn is_before(self, flight: &Flight) -> bool {
        flight.id >= self.horizon
    }

    /// Whether a result that was overtaken on its way is still for this caller (R4).
    fn may_take(self, flight: &Flight, standing: Standing) -> bool {
        let before_it_began = self.is_before(flight);
        match standing {
            _ if sabotaged!(UncheckedJoin) => true,
            Standing::Fresh => true,
            Standing::Refused => before_it_began,
            Standing::Overtaken => before_it_began || flight.stamp.generation == self.generation,
        }
    }
}

/// A caller that waits for a flight.
pub(super) struct Caller<'a, C> {
    pub(super) inner: &'a Inner<C>,
    pub(super) flight: &'a Flight,
    pub(super) call: &'a Call,
    /// When it came, if the flight is another caller's.
    pub(super) joined: Option<Ticket>,
    /// When it began to wait for this flight.
    pub(super) since: Instant,
}

impl<C> Caller<'_, C> {
    /// The answer to this caller.
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
        let left_out = match completed.source {
            Source::L1 => options.skip_l1_read,
            Source::L2 => options.skip_l2_read,
            _ => false,
        };
        let may = |ticket: Ticket| !left_out && ticket.may_take(self.flight, completed.standing);
        if !self.joined.is_none_or(may) {
            return Answer::Again;
        }
        // A value of another type is none.
        let Some(entry) = typed(completed.erased) else { return Answer::Again };
        let stale = completed.standing != Standing::Fresh;
        if stale {
            self.inner.stale_hit(&entry.meta.key, completed.source);
        }
        Answer::Take(Ok(Cached::new(entry, self.inner.now(), completed.source, stale)))
    }

    /// The caller that led is content with a stale value; others may want to load.
    fn paused<T: Value>(&self, erased: ErasedEntry, pause: Pause) -> Answer<T> {
        let Some(entry) = typed::<T>(Arc::clone(&erased)) else { return Answer::Again };
        let waited = || self.call.options.load_lock && self.call.has_waited_for_load_lock();
        let content = match (self.joined, pause) {
            (None, _) => true,
            (Some(_), Pause::Throttled) => self.may_have(&erased),
            (Some(_), Pause::Busy) => waited() && self.may_have(&erased),
            // It was judged for the caller that led, and may have been removed since.
            (Some(_), Pause::Unreachable) => may_serve_unverified(self.inner, self.call, &entry),
        };
        let source = if pause == Pause::Unreachable { Source::L1 } else { Source::FailSafe };
        if content { stale(self.inner, self.call, entry, None, source) } else { Answer::Again }
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
        // The caller that led has let the load decide on a throttle, since its factory may have.
        let throttle = options.fail_safe.filter(|_| self.joined.is_some()).map(|f| f.throttle);
        match instead.filter(|erased| self.may_have(erased)).and_then(typed::<T>) {
            Some(entry) => stale(self.inner, self.call, entry, throttle, Source::FailSafe),
            None => Answer::Take(Err(error)),
        }
    }

    /// Whether this caller may be answered with a stale value.
    pub(super) fn may_have(&self, erased: &ErasedEntry) -> bool {
        let Self { inner, flight, call, .. } = *self;
        // What L2 has not been asked for is from L1.
        let of_l1 = inner.records().is_none() || flight.without_l2().is_some();
        let not_of_l1 = call.options.skip_l1_read || self.has_to_do_without_l2();
        if flight.removed.load(Ordering::Acquire) || (of_l1 && not_of_l1) {
            return false;
        }
        let verdict = judge_record(inner, &call.key, erased.meta());
        if sabotaged!(LeaderDecides) && self.joined.is_some() && call.options.fail_safe.is_none() {
            let options = call.options.clone().fail_safe(crate::FailSafe::default());
            return may_serve_stale(erased.meta(), verdict, &options, inner.now());
        }
        may_serve_stale(erased.meta(), verdict, &call.options, inner.now())
    }

    /// Answers before the flight has ended: stale if this caller may be, else with an error.
    pub(super) fn give_up<T: Value>(&self, over: Over, fallback: Option<ErasedEntry>) -> Answer<T> {
        // Once more: it may have been removed while this caller waited.
        let fallback = fallback.filter(|erased| self.may_have(erased));
        give_up(self.inner, self.call, over, fallback)
    }

    /// Whether the load does without L2, and this caller may not.
    pub(super) fn has_to_do_without_l2(&self) -> bool {
        self.call.options.require_l2 && self.flight.without_l2().is_some()
    }

    pub(super) fn l2_required<T>(&self) -> Answer<T> {
        Answer::Take(Err(self.inner.l2_required(&self.call.key)))
    }

    /// Whether L2 did not answer another caller, within a limit that is shorter than this one's.
    pub(super) fn is_more_patient_with_l2(&self) -> bool {
        let longer = |limit: Duration| self.call.options.l2_hard_timeout > limit;
        let of_another = self.joined.is_some() || self.flight.given_up().is_some();
        of_another && self.flight.without_l2().is_some_and(longer)
    }

    /// L2 has not answered within this caller's limit. What it would do if it led: an error if it requires
    /// L2, else what it has in L1, else a load without L2, which then is for all who wait.
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

    /// What this caller would be answered at once if it had come alone, where the load does without L2 for a
    /// caller that takes no copy in resync.
    pub(super) fn continues_without_l2<T: Value>(&self) -> Option<Answer<T>> {
        let of_another = self.joined.is_some() || self.flight.strict != self.call.options.strict;
        let without_l2 = self.flight.without_l2().is_some() && !self.is_more_patient_with_l2();
        if of_another && without_l2 { self.unverified_copy() } else { None }
    }

    /// The copy in L1, if it may be answered though L2 has not said that it is right.
    fn unverified_copy<T: Value>(&self) -> Option<Answer<T>> {
        let Self { inner, flight, call, .. } = *self;
        let Local::Candidate(entry, _) = lookup::<T, C>(inner, call) else { return None };
        let may =
            !flight.removed.load(Ordering::Acquire) && may_serve_unverified(inner, call, &entry);
        may.then(|| stale(inner, call, entry, None, Source::L1))
    }
}

/// Answers a caller whose time is over: stale with this if there is anything, else with an error.
pub(super) fn give_up<T: Value, C>(
    inner: &Inner<C>,
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
        inner.note(&inner.counters.factory_timeouts, &call.key, event);
    }
    let throttle =
        call.options.fail_safe.filter(|_| over != Over::LoadLockWait).map(|f| f.throttle);
    match fallback {
        Some(entry) => stale(inner, call, entry, throttle, Source::FailSafe),
        None => Answer::Take(Err(inner.error(kind, &call.key, "nothing could stand in"))),
    }
}

fn stale<T: Value, C>(
    inner: &Inner<C>,
    call: &Call,
    entry: Arc<Entry<T>>,
    throttle: Option<Duration>,
    source: Source,
) -> Answer<T> {
    let now = inner.now();
    if let Some(throttle) = throttle {
        entry.meta.throttle(now + throttle);
    }
    inner.stale_hit(&call.key, source);
    Answer::Take(Ok(Cached::new(entry, now, source, true)))
}

impl Call {
    /// How long this call waits for another node's load, from its start.
    pub(super) fn load_lock_wait(&self) -> Duration {
        if self.options.load_lock { self.options.load_lock_wait } else { Duration::ZERO }
    }

    /// Whether it has waited for so long.
    pub(super) fn has_waited_for_load_lock(&self) -> bool {
        self.came.elapsed() >= self.load_lock_wait()
    }
}
