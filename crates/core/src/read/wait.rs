//! Waiting for a flight, and the law of joining at its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Call;
use super::lookup::stand_in;
use crate::cache::Inner;
use crate::entry::{Cached, Held, Source, Value, typed};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::fail_safe::may_stand_in;
use crate::flight::{Flight, Landed, Progress, Standing};
use crate::protocol::flight::FlightId;

/// What became of waiting.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// The answer.
    Take(Result<Cached<T>, Error>),
    /// That result is not for this caller: arrive again.
    Again,
}

/// When a caller arrived, in the two orders that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    generation: u64,
    horizon: FlightId,
}

impl Arrived {
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
            Standing::Fresh | Standing::Fallback => true,
            Standing::Refused => before_it_began,
            Standing::Overtaken => before_it_began || flight.stamp.generation == self.generation,
        }
    }
}

/// Why waiting ended before the flight did.
enum Over {
    Soft,
    Hard,
    Flight,
}

/// The caller that leads takes whatever its flight brings.
pub(crate) async fn for_own<T: Value, C: Sync>(
    inner: &Inner<C>,
    flight: &Flight,
    call: &Call,
) -> Answer<T> {
    wait(inner, flight, call, true, |_| true).await
}

/// A caller that joined takes what the law of joining allows.
pub(crate) async fn for_other<T: Value, C: Sync>(
    inner: &Inner<C>,
    flight: &Flight,
    call: &Call,
    arrived: Arrived,
) -> Answer<T> {
    inner.counters.joined.add();
    let answer = wait(inner, flight, call, false, |s| arrived.may_take(flight, s)).await;
    if matches!(answer, Answer::Again) {
        inner.counters.join_refused.add();
    }
    answer
}

/// A caller that may not join waits for the flight's end and arrives again.
pub(crate) async fn for_end<T: Value, C: Sync>(
    inner: &Inner<C>,
    flight: &Flight,
    call: &Call,
) -> Answer<T> {
    let mut progress = flight.progress.reader();
    let end = progress.wait_for(|progress| matches!(progress, Progress::Done(_)));
    let options = &call.options;
    let limits =
        [options.flight_timeout, options.factory_soft_timeout, options.factory_hard_timeout];
    let limit = limits.into_iter().flatten().min().unwrap_or(Duration::MAX);
    match timeout(limit, end).await {
        Ok(()) => Answer::Again,
        Err(_) => {
            let fallback = stand_in::<T, C>(inner, call);
            give_up(inner, flight, call, Over::Flight, false, fallback)
        }
    }
}

async fn wait<T: Value, C: Sync>(
    inner: &Inner<C>,
    flight: &Flight,
    call: &Call,
    own: bool,
    may_take: impl Fn(Standing) -> bool + Send,
) -> Answer<T> {
    let mut progress = flight.progress.reader();
    let came = Instant::now();
    let flight_timeout = call.options.flight_timeout.filter(|_| !own);
    let patience = flight_timeout.and_then(|limit| came.checked_add(limit));
    let mut loading_since = None;
    loop {
        let now = progress.read();
        let (fallback, limit) = match now {
            Progress::Done(Ok(landed)) if may_take(landed.standing) => {
                return take(inner, landed);
            }
            Progress::Done(Ok(_)) => return Answer::Again,
            Progress::Done(Err(error)) => return Answer::Take(Err(error)),
            Progress::Probing => (stand_in::<T, C>(inner, call), None),
            Progress::Loading(fallback) => {
                let since = *loading_since.get_or_insert_with(Instant::now);
                let fallback = fallback.filter(|held| stands(inner, flight, held, call));
                let limit = factory_limit(call, since, fallback.is_some());
                (fallback, limit)
            }
        };
        let limit = earliest(limit, patience.map(|at| (at, Over::Flight)));
        let Some((at, over)) = limit else {
            progress.changed().await;
            continue;
        };
        tokio::select! {
            biased;
            () = progress.changed() => {}
            () = sleep_until(at) => return give_up(inner, flight, call, over, own, fallback),
        }
    }
}

/// When waiting for the factory ends, and how.
fn factory_limit(call: &Call, since: Instant, has_fallback: bool) -> Option<(Instant, Over)> {
    let options = &call.options;
    let soft = options.factory_soft_timeout.filter(|_| has_fallback);
    let at = |limit: Duration| since.checked_add(limit);
    let soft = soft.and_then(at).map(|at| (at, Over::Soft));
    earliest(soft, options.factory_hard_timeout.and_then(at).map(|at| (at, Over::Hard)))
}

fn earliest(a: Option<(Instant, Over)>, b: Option<(Instant, Over)>) -> Option<(Instant, Over)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Answers before the flight has ended: stale if something stands in, else with an error.
fn give_up<T: Value, C>(
    inner: &Inner<C>,
    flight: &Flight,
    call: &Call,
    over: Over,
    own: bool,
    fallback: Option<Held>,
) -> Answer<T> {
    let kind = match over {
        Over::Flight => ErrorKind::LockTimeout,
        Over::Soft | Over::Hard => {
            // Only the caller whose factory runs may stop it.
            if own && !call.options.background_completion {
                flight.stop.notify_one();
            }
            ErrorKind::FactoryTimeout
        }
    };
    // Once more: it may have been removed while this caller waited.
    let fallback = fallback.filter(|held| stands(inner, flight, held, call));
    if kind == ErrorKind::FactoryTimeout {
        let stale = fallback.is_some();
        let event = |key| Event::FactoryTimeout { key, stale };
        inner.note(&inner.counters.factory_timeouts, &call.key, event);
    }
    let Some(entry) = fallback.and_then(typed::<T>) else {
        return Answer::Take(Err(inner.error(kind, &call.key, "nothing could stand in")));
    };
    let now = inner.now();
    if let Some(fail_safe) = call.options.fail_safe {
        entry.meta.throttle(now + fail_safe.throttle);
    }
    inner.stale_hit(&call.key, Source::FailSafe);
    Answer::Take(Ok(Cached::new(entry, now, Source::FailSafe, true)))
}

/// Turns what a flight brought into an answer; a value of another type is none.
fn take<T: Value, C>(inner: &Inner<C>, landed: Landed) -> Answer<T> {
    let Some(entry) = typed(landed.held) else { return Answer::Again };
    let stale = landed.standing != Standing::Fresh;
    if stale {
        inner.stale_hit(&entry.meta.key, landed.source);
    }
    Answer::Take(Ok(Cached::new(entry, inner.now(), landed.source, stale)))
}

fn stands<C>(inner: &Inner<C>, flight: &Flight, held: &Held, call: &Call) -> bool {
    let now = inner.now();
    !flight.removed.load(Ordering::Acquire)
        && may_stand_in(held.meta(), inner.node.judge(held.meta(), now), &call.options, now)
}
