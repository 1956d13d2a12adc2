//! Leading a flight, in its caller's hands or a task's, and its one guard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{Instrument, Span};

use super::caller::Answer;
use super::get::get_since;
use super::load::Load;
use super::probe::{FillMode, Probe, probe};
use super::wait::{for_own, too_late};
use super::{Call, Job};
use crate::cache::{Inner, attend};
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value};
use crate::error::{Error, ErrorKind};
use crate::events::{Event, MissReason};
use crate::factory::{Adaptive, FactoryContext, Made, NotModified};
use crate::flight::nesting::Run;
use crate::flight::{
    Cause, Completed, Drive, Failure, Flight, Leader, Outcome, Pause, Progress, Standing, Waiting,
};
use crate::l2::Codec;
use crate::protocol::validity::Verdict;
use crate::sweep;

/// Leads a flight as far as L2 goes, or until a task does, and waits for what it brings.
pub(super) async fn lead<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<Answer<T>, Error> {
    let waiting = Waiting::leading(flight, &call.options);
    let leader = leader(inner, flight, call, job)?;
    let running = inner.tasks.token(&leader.runtime);
    let drive = Drive::new(&flight.driver, leader);
    let answer = own(inner, flight, call, waiting);
    let options = &call.options;
    if options.factory_hard_timeout.is_none() && options.factory_soft_timeout.is_none() {
        drive.await;
        drop(running);
        return Ok(answer.await);
    }
    // Its limits hold while L2 is asked, too. A drive that is dropped goes on in a task.
    tokio::pin!(answer);
    Ok(tokio::select! {
        biased;
        () = drive => {
            drop(running);
            answer.await
        }
        answer = &mut answer => answer,
    })
}

/// Has a task lead a flight.
pub(super) fn start<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<(), Error> {
    leader(inner, flight, call, job)?.spawn();
    Ok(())
}

/// The leader of a flight: asks L2, and leaves a load to a task. The caller's tracing span goes with it.
fn leader<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<Leader, Error> {
    let guard = CompletionGuard::new(Arc::clone(inner), Arc::clone(flight));
    let call = call.leading(flight);
    let runtime = inner.runtime()?;
    drop(flight.place.set(runtime.clone()));
    let own = runtime.clone();
    let work = Box::pin(async move {
        let probe = probe::<T, C>(&guard.inner, &call, &guard.flight).await;
        if let Some(load) = settle(guard, call, probe) {
            let load = Load { default: job.default, ..load };
            load.guard.inner.counters.factory_calls.add();
            let tasks = load.guard.inner.tasks.clone();
            let run = Run::of([&load.guard.flight]);
            tasks.spawn_on(run.scope(load.run(job.factory)).in_current_span(), &own);
        }
    });
    Ok(Leader { work, tasks: inner.tasks.clone(), runtime, span: Span::current() })
}

/// Lands what a probe found, or says what is to be loaded.
pub(super) fn settle<T: Value, C: Codec<T>>(
    guard: CompletionGuard<C>,
    call: Arc<Call>,
    probe: Probe<T>,
) -> Option<Load<T, C>> {
    match probe {
        Probe::Hit(entry, source) => {
            guard.complete(entry, source);
            None
        }
        Probe::ServeStale(entry, pause) => {
            guard.complete_stale(entry, pause);
            None
        }
        Probe::GoOn(entry) => {
            guard.complete_stale(entry, Pause::Unreachable);
            None
        }
        // If a caller has given up on L2, the load is for that one.
        Probe::Load(FillMode::Degraded, _)
            if call.options.require_l2 && guard.flight.given_up().is_none() =>
        {
            guard.flight.continues_without_l2();
            let error = guard.inner.l2_required(&call.key);
            guard.fail(Failure { error, stale: None, cause: Cause::NoL2 }, None);
            None
        }
        Probe::Load(base, known) => {
            if base == FillMode::Degraded {
                guard.flight.continues_without_l2();
            }
            if call.refresh.is_none() {
                let reason = guard.flight.reason();
                let degraded = base == FillMode::Degraded;
                guard
                    .inner
                    .miss(&call.key, if degraded { MissReason::Unreachable } else { reason });
            }
            Some(Load { guard, call, base, known, default: None })
        }
        // Asked without patience; dropping the guard says that nothing came of it.
        Probe::ErasedEntry => None,
    }
}

/// The caller that leads takes what its flight brings, unless it has to ask L2 itself. It waits all the while: the
/// load may be its answer after all.
pub(super) async fn own<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Call,
    mut waiting: Waiting,
) -> Answer<T> {
    match for_own(inner, flight, call, &mut waiting).await {
        Answer::AskL2 => ask_l2(inner, flight, call, waiting).await,
        answer => answer,
    }
}

/// A caller that led requires L2, and gives it more time than another for which the load does without: it asks
/// L2 itself. If that has nothing, what is loaded is its answer.
async fn ask_l2<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Call,
    mut waiting: Waiting,
) -> Answer<T> {
    attend(inner).await;
    sweep::ensure(inner);
    let mut asking = Call::clone(&call.past_l1());
    let limits = &mut asking.options;
    (limits.allow_stale, limits.skip_l2_read) = (false, false);
    if let Some(hard) = limits.factory_hard_timeout {
        limits.l2_hard_timeout = limits.l2_hard_timeout.min(hard);
    }
    match get_since(inner, &asking, call.came).await {
        Ok(Some(read)) if !call.options.skip_l2_read => return Answer::Take(Ok(read)),
        Err(error) if error.kind() != ErrorKind::TypeMismatch => {
            let answer = too_late(inner, call);
            if matches!(answer, Answer::Take(_)) {
                // Its own time was over before that of L2.
                waiting.give_up(call.options.background_completion);
                return answer;
            }
            return Answer::Take(Err(error));
        }
        _ => {}
    }
    // L2 has nothing of use: what L1 has must not stand in for that.
    let mut content = Call::clone(&call.past_l1());
    content.options.require_l2 = false;
    for_own(inner, flight, &content, &mut waiting).await
}

/// A flight that cannot be flown.
pub(super) fn abandon<C>(inner: &Arc<Inner<C>>, flight: &Arc<Flight>, error: Error) {
    let failure = Failure { error, stale: None, cause: Cause::Load };
    CompletionGuard::new(Arc::clone(inner), Arc::clone(flight)).fail(failure, None);
}

/// A cache that is disabled: every call runs its own factory and keeps nothing.
pub(super) async fn uncached<T: Value, C: Sync>(
    inner: &Inner<C>,
    call: &Call,
    job: Job<T>,
) -> Result<Cached<T>, Error> {
    let adaptive = Adaptive::new(call.options.clone(), call.tags.clone());
    let context = FactoryContext::new(&call.key, None, adaptive);
    inner.counters.factory_calls.add();
    let (place, began) = (inner.place(Some(&call.key)), inner.now());
    let made = crate::factory::run(job.factory, context, &place).await;
    inner.factory_ended(&call.key, inner.now().since(began), made.as_ref().err());
    match made? {
        Made::Value(value) => Ok(Cached::detached(&call.key, value, inner.now(), Source::Factory)),
        Made::Confirmed => Err(Error::with_source(ErrorKind::Factory, place, "", NotModified)),
    }
}

/// The right, and the duty, to end a flight (R3). Dropped without guard, it lands an error.
pub(super) struct CompletionGuard<C> {
    pub(super) inner: Arc<Inner<C>>,
    pub(super) flight: Arc<Flight>,
    completed: bool,
}

impl<C> CompletionGuard<C> {
    pub(super) fn new(inner: Arc<Inner<C>>, flight: Arc<Flight>) -> Self {
        Self { inner, flight, completed: false }
    }

    /// Lands a value: into L1 if the fence allows and it is valid now (R2), then to every caller.
    /// True if it was kept.
    pub(super) fn complete<T: Value>(self, entry: Arc<Entry<T>>, source: Source) -> bool {
        self.inner.fresh_hit(&entry.meta, source, self.inner.now());
        let erased: ErasedEntry = entry;
        let mut kept = false;
        let settle = |inner: &Inner<C>, flight: &Flight, erased: &ErasedEntry, allowed: bool| {
            let allowed = allowed || sabotaged!(OvertakenIsKept);
            let now = inner.now();
            let verdict = inner.node.judge(erased.meta(), now);
            let standing = if allowed && verdict == Verdict::Fresh {
                Standing::Fresh
            } else {
                Standing::Overtaken
            };
            kept = allowed && !matches!(verdict, Verdict::Hidden(_));
            if kept {
                inner.l1.insert(flight.hash, ErasedEntry::clone(erased));
            } else {
                inner.counters.fence_hits.add();
            }
            standing
        };
        let (inner, flight) = (Arc::clone(&self.inner), Arc::clone(&self.flight));
        self.settle(erased, source, settle);
        if kept && source == Source::Factory {
            inner.emit(&flight.key, |key| Event::Set { key, filled: true });
        }
        kept
    }

    /// Lands a value that L2 refused: for the caller that started the load, and nowhere else.
    pub(super) fn complete_refused<T: Value>(self, entry: Arc<Entry<T>>) {
        self.inner.counters.fill_refused.add();
        self.settle(entry, Source::Factory, |_, _, _, _| Standing::Refused);
    }

    /// Lands a value that is kept nowhere, though nothing is wrong with it.
    pub(super) fn complete_unstored<T: Value>(self, entry: Arc<Entry<T>>) {
        let settle = |inner: &Inner<C>, _: &Flight, erased: &ErasedEntry, allowed| {
            let fresh = allowed && inner.node.judge(erased.meta(), inner.now()) == Verdict::Fresh;
            if fresh { Standing::Fresh } else { Standing::Overtaken }
        };
        self.settle(entry, Source::Factory, settle);
    }

    /// Lands a stale value: the caller that led is content with it.
    pub(super) fn complete_stale<T: Value>(mut self, entry: Arc<Entry<T>>, pause: Pause) {
        let erased: ErasedEntry = entry;
        self.end(|inner, flight, received| {
            if received.allows(erased.meta().version) {
                keep_stale(inner, flight, &erased);
            }
            Outcome::Stale(erased, pause)
        });
    }

    /// Lands a failure. What is to be `kept` goes into L1: there it says until when the factory is left
    /// alone.
    pub(super) fn fail(mut self, failure: Failure, kept: Option<ErasedEntry>) {
        self.end(|inner, flight, received| {
            let removed = flight.removed.load(Ordering::Acquire);
            let visible = |erased: &ErasedEntry| !removed && is_visible(inner, erased);
            if let Some(kept) = kept.filter(visible)
                && received.allows(kept.meta().version)
            {
                keep_stale(inner, flight, &kept);
            }
            let stale = failure.stale.filter(visible);
            Outcome::Failed(Failure { stale, ..failure })
        });
    }

    /// Ends the flight with a value.
    fn settle(
        mut self,
        erased: ErasedEntry,
        source: Source,
        standing: impl FnOnce(&Inner<C>, &Flight, &ErasedEntry, bool) -> Standing,
    ) {
        let version = erased.meta().version;
        self.end(move |inner, flight, received| {
            let standing = standing(inner, flight, &erased, received.allows(version));
            Outcome::Value(Completed { erased, source, standing })
        });
    }

    fn end(
        &mut self,
        outcome: impl FnOnce(&Inner<C>, &Flight, crate::protocol::flight::Received) -> Outcome,
    ) {
        let (inner, flight) = (&self.inner, &self.flight);
        let outcome =
            inner.flights.end(flight.hash, flight.id, |received| outcome(inner, flight, received));
        flight.progress.write(Progress::Done(outcome));
        // Last: if a value's own drop panics before, the guard still ends the flight.
        self.completed = true;
    }
}

impl<C> Drop for CompletionGuard<C> {
    fn drop(&mut self) {
        if !self.completed {
            let failure = lost(&self.inner, &self.flight);
            self.end(|_, _, _| Outcome::Failed(failure));
        }
    }
}

/// Ends a flight whose task does not run any more.
pub(crate) fn lose<C>(inner: &Inner<C>, flight: &Flight) {
    if !matches!(flight.progress.read(), Progress::Done(_)) {
        let failure = lost(inner, flight);
        inner.flights.end(flight.hash, flight.id, |_| ());
        flight.progress.write(Progress::Done(Outcome::Failed(failure)));
    }
}

/// A load that has not come to its end: its task panicked, or its runtime has ended.
fn lost<C>(inner: &Inner<C>, flight: &Flight) -> Failure {
    let (kind, what, cause) = if std::thread::panicking() {
        (ErrorKind::Closed, "its load was abandoned", Cause::Load)
    } else if inner.closing.is_cancelled() {
        (ErrorKind::Closed, "its load was abandoned; its runtime shuts down", Cause::Load)
    } else {
        inner.home.check();
        let what =
            "the one on which it was being loaded has ended, or nobody drives it; call again";
        (ErrorKind::NoRuntime, what, Cause::Lost)
    };
    Failure { error: inner.error(kind, &flight.key, what), stale: None, cause }
}

/// Keeps a stale value in L1, unless there is something better: of a call that has not looked there.
fn keep_stale<C>(inner: &Inner<C>, flight: &Flight, erased: &ErasedEntry) {
    let fresh = |h: ErasedEntry| inner.node.judge(h.meta(), inner.now()) == Verdict::Fresh;
    let better = inner.l1.get(flight.hash, &flight.key).is_some_and(fresh);
    if !better && is_visible(inner, erased) {
        inner.l1.insert(flight.hash, ErasedEntry::clone(erased));
    }
}

/// Whether nothing has removed it.
fn is_visible<C>(inner: &Inner<C>, erased: &ErasedEntry) -> bool {
    let verdict = inner.node.judge(erased.meta(), inner.now());
    !matches!(verdict, Verdict::Hidden(_)) || sabotaged!(FailSafeIgnoresHard)
}
