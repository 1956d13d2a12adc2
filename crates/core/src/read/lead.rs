//! Leads a flight: the caller or a task polls it, and one guard completes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{Instrument, Span};

use super::caller::Answer;
use super::get::get_since;
use super::load::Load;
use super::probe::{FillMode, Probe, probe};
use super::wait::{for_own, too_late};
use super::{Call, Job};
use crate::cache::{Coded, attend};
use crate::entry::{Cached, Entry, ErasedEntry, Source, Value};
use crate::error::{Error, ErrorKind};
use crate::events::{Event, MissReason};
use crate::factory::{Adaptive, FactoryContext, Made, NotModified};
use crate::flight::nesting::Run;
use crate::flight::{
    Cause, Completed, Drive, Failure, Flight, Leader, Outcome, Pause, Progress, Standing, Waiting,
};
use crate::node::Node;
use crate::protocol::flight::Received;
use crate::protocol::validity::Verdict;
use crate::runtime::Place;
use crate::sweep;

/// Polls the flight's leader while it asks L2, or until a task takes over, and waits for the
/// outcome.
pub(super) async fn lead<T: Value>(
    node: &Coded<T>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<Answer<T>, Error> {
    let waiting = Waiting::leading(flight, &call.options);
    let leader = leader(node, flight, call, job)?;
    let running = node.tasks.token(&leader.runtime);
    let drive = Drive::new(&flight.driver, leader);
    let answer = own(node, flight, call, waiting);
    let options = &call.options;
    if options.factory_hard_timeout.is_none() && options.factory_soft_timeout.is_none() {
        drive.await;
        drop(running);
        return Ok(answer.await);
    }
    // The caller's limits also hold while the leader asks L2. A dropped `Drive` continues in a
    // task.
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

/// Starts the flight's leader in a task.
pub(super) fn start<T: Value>(
    node: &Coded<T>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<(), Error> {
    leader(node, flight, call, job)?.spawn();
    Ok(())
}

/// Builds the flight's leader: it asks L2 and spawns a task for a load, within the caller's span.
fn leader<T: Value>(
    node: &Coded<T>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<Leader, Error> {
    let (coded, call) = (node.clone(), call.leading(flight));
    let guard = CompletionGuard::new(Arc::clone(node), Arc::clone(flight));
    let runtime = node.runtime()?;
    drop(flight.place.set(runtime.clone()));
    let own = runtime.clone();
    let work = Box::pin(async move {
        let probe = probe(&coded, &call, &guard.flight).await;
        if let Some(load) = settle(coded, guard, call, probe) {
            let load = Load { default: job.default, ..load };
            load.guard.node.counters.factory_calls.add();
            let tasks = load.guard.node.tasks.clone();
            let run = Run::of([&load.guard.flight]);
            tasks.spawn_on(run.scope(load.run(job.factory)).in_current_span(), &own);
        }
    });
    Ok(Leader { work, tasks: node.tasks.clone(), runtime, span: Span::current() })
}

/// Completes the flight with what the probe found, or returns the load to run.
pub(super) fn settle<T: Value>(
    coded: Coded<T>,
    guard: CompletionGuard,
    call: Arc<Call>,
    probe: Probe<T>,
) -> Option<Load<T>> {
    match probe {
        Probe::Hit(entry, source) => {
            guard.complete(entry, source);
            None
        }
        Probe::ServeStale(entry, pause) => {
            guard.complete_stale(entry, pause);
            None
        }
        Probe::ServeUnverified(entry) => {
            guard.complete_stale(entry, Pause::Unreachable);
            None
        }
        // If a caller gave up on L2, the load runs for that caller.
        Probe::Load(FillMode::Degraded, _)
            if call.options.require_l2 && guard.flight.given_up().is_none() =>
        {
            guard.flight.continues_without_l2();
            let error = guard.node.l2_required(&call.key);
            guard.fail(Failure { error, stale: None, cause: Cause::NoL2 }, None);
            None
        }
        Probe::Load(mode, known) => {
            if mode == FillMode::Degraded {
                guard.flight.continues_without_l2();
            }
            if call.refresh.is_none() {
                let reason = guard.flight.reason();
                let degraded = mode == FillMode::Degraded;
                guard.node.miss(&call.key, if degraded { MissReason::Unreachable } else { reason });
            }
            Some(Load { coded, guard, call, mode, known, default: None })
        }
        // The probe does not wait for another node; dropping the guard completes with an error.
        Probe::Locked => None,
    }
}

/// Waits for the outcome as the leader; asks L2 itself if the load continues without it.
///
/// It counts as a waiting caller all the time: the load may still be its answer.
pub(super) async fn own<T: Value>(
    node: &Coded<T>,
    flight: &Arc<Flight>,
    call: &Call,
    mut waiting: Waiting,
) -> Answer<T> {
    match for_own(node, flight, call, &mut waiting).await {
        Answer::AskL2 => ask_l2(node, flight, call, waiting).await,
        answer => answer,
    }
}

/// Asks L2 for a leader that requires it and allows more time than the caller that gave up.
///
/// If L2 has no value, the leader takes the load's outcome.
async fn ask_l2<T: Value>(
    node: &Coded<T>,
    flight: &Arc<Flight>,
    call: &Call,
    mut waiting: Waiting,
) -> Answer<T> {
    attend(node).await;
    sweep::ensure(node);
    let mut asking = Call::clone(&call.past_l1());
    let limits = &mut asking.options;
    (limits.allow_stale, limits.skip_l2_read) = (false, false);
    if let Some(hard) = limits.factory_hard_timeout {
        limits.l2_hard_timeout = limits.l2_hard_timeout.min(hard);
    }
    match get_since(node, &asking, call.came).await {
        Ok(Some(read)) if !call.options.skip_l2_read => return Answer::Take(Ok(read)),
        Err(error) if error.kind() != ErrorKind::TypeMismatch => {
            let answer = too_late(node, call);
            if matches!(answer, Answer::Take(_)) {
                // The caller's own limit passed before the limit for L2.
                waiting.give_up(call.options.background_completion);
                return answer;
            }
            return Answer::Take(Err(error));
        }
        _ => {}
    }
    // L2 has no usable value. A copy in L1 must not replace that answer.
    let mut content = Call::clone(&call.past_l1());
    content.options.require_l2 = false;
    for_own(node, flight, &content, &mut waiting).await
}

/// Fails a flight that could not be started.
pub(super) fn abandon(node: &Arc<Node>, flight: &Arc<Flight>, error: Error) {
    let failure = Failure { error, stale: None, cause: Cause::Load };
    CompletionGuard::new(Arc::clone(node), Arc::clone(flight)).fail(failure, None);
}

/// Runs the factory of one call in a disabled cache, and keeps nothing.
pub(super) async fn uncached<T: Value>(
    node: &Node,
    call: &Call,
    job: Job<T>,
) -> Result<Cached<T>, Error> {
    let adaptive = Adaptive::new(call.options.clone(), call.tags.clone());
    let context = FactoryContext::new(&call.key, None, adaptive);
    node.counters.factory_calls.add();
    let (place, began) = (node.place(Some(&call.key)), node.now());
    let made = crate::factory::run(job.factory, context, &place).await;
    node.factory_ended(&call.key, node.now().since(began), made.as_ref().err());
    match made? {
        Made::Value(value) => Ok(Cached::detached(&call.key, value, node.now(), Source::Factory)),
        Made::Confirmed => Err(Error::with_source(ErrorKind::Factory, place, "", NotModified)),
    }
}

/// Completes its flight exactly once (R3). If dropped first, it completes the flight with an error.
pub(super) struct CompletionGuard {
    pub(super) node: Arc<Node>,
    pub(super) flight: Arc<Flight>,
    completed: bool,
}

impl CompletionGuard {
    pub(super) fn new(node: Arc<Node>, flight: Arc<Flight>) -> Self {
        Self { node, flight, completed: false }
    }

    /// Completes with a value: inserts it into L1 if the fence allows and it is visible (R2), then
    /// answers every caller.
    ///
    /// True if L1 kept the value.
    pub(super) fn complete<T: Value>(self, entry: Arc<Entry<T>>, source: Source) -> bool {
        self.node.fresh_hit(&entry.meta, source, self.node.now());
        let erased: ErasedEntry = entry;
        let mut kept = false;
        let settle = |node: &Node, flight: &Flight, erased: &ErasedEntry, allowed: bool| {
            let allowed = allowed || sabotaged!(OvertakenIsKept);
            let now = node.now();
            let verdict = node.coherence.judge(erased.meta(), now);
            let standing = if allowed && verdict == Verdict::Fresh {
                Standing::Fresh
            } else {
                Standing::Overtaken
            };
            kept = allowed && !matches!(verdict, Verdict::Hidden(_));
            if kept {
                node.l1.insert(flight.hash, ErasedEntry::clone(erased));
            } else {
                node.counters.fence_hits.add();
            }
            standing
        };
        let (node, flight) = (Arc::clone(&self.node), Arc::clone(&self.flight));
        self.settle(erased, source, settle);
        if kept && source == Source::Factory {
            node.emit(&flight.key, |key| Event::Set { key, filled: true });
        }
        kept
    }

    /// Completes with a value that L2 refused: only the leader, and callers that came before the
    /// load began, may use it.
    pub(super) fn complete_refused<T: Value>(self, entry: Arc<Entry<T>>) {
        self.node.counters.fill_refused.add();
        self.settle(entry, Source::Factory, |_, _, _, _| Standing::Refused);
    }

    /// Completes with a valid value that the factory asked not to store.
    pub(super) fn complete_unstored<T: Value>(self, entry: Arc<Entry<T>>) {
        let settle = |node: &Node, _: &Flight, erased: &ErasedEntry, allowed| {
            let fresh =
                allowed && node.coherence.judge(erased.meta(), node.now()) == Verdict::Fresh;
            if fresh { Standing::Fresh } else { Standing::Overtaken }
        };
        self.settle(entry, Source::Factory, settle);
    }

    /// Completes with a stale value that the leader accepts.
    pub(super) fn complete_stale<T: Value>(mut self, entry: Arc<Entry<T>>, pause: Pause) {
        let erased: ErasedEntry = entry;
        self.end(|node, flight, received| {
            if received.allows(erased.meta().version) {
                keep_stale(node, flight, &erased);
            }
            Outcome::Stale(erased, pause)
        });
    }

    /// Completes with a failure. `kept` goes into L1, where it holds the throttle of the factory.
    pub(super) fn fail(mut self, failure: Failure, kept: Option<ErasedEntry>) {
        self.end(|node, flight, received| {
            let removed = flight.removed.load(Ordering::Acquire);
            let visible = |erased: &ErasedEntry| !removed && is_visible(node, erased);
            if let Some(kept) = kept.filter(visible)
                && received.allows(kept.meta().version)
            {
                keep_stale(node, flight, &kept);
            }
            let stale = failure.stale.filter(visible);
            Outcome::Failed(Failure { stale, ..failure })
        });
    }

    /// Completes with a value of the given standing.
    fn settle(
        mut self,
        erased: ErasedEntry,
        source: Source,
        standing: impl FnOnce(&Node, &Flight, &ErasedEntry, bool) -> Standing,
    ) {
        let version = erased.meta().version;
        self.end(move |node, flight, received| {
            let standing = standing(node, flight, &erased, received.allows(version));
            Outcome::Value(Completed { erased, source, standing })
        });
    }

    fn end(&mut self, outcome: impl FnOnce(&Node, &Flight, Received) -> Outcome) {
        let (node, flight) = (&self.node, &self.flight);
        let outcome =
            node.flights.end(flight.hash, flight.id, |received| outcome(node, flight, received));
        flight.progress.write(Progress::Done(outcome));
        // Set last: if dropping a value panics before this, the guard still completes the flight.
        self.completed = true;
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if !self.completed {
            let failure = lost(&self.node, &self.flight);
            self.end(|_, _, _| Outcome::Failed(failure));
        }
    }
}

/// Fails a flight whose task no longer runs.
pub(crate) fn lose(node: &Node, flight: &Flight) {
    if !matches!(flight.progress.read(), Progress::Done(_)) {
        let failure = lost(node, flight);
        node.flights.end(flight.hash, flight.id, |_| ());
        flight.progress.write(Progress::Done(Outcome::Failed(failure)));
    }
}

/// The failure of a load that did not finish: its task panicked, or its runtime has ended, which
/// makes timers panic.
fn lost(node: &Node, flight: &Flight) -> Failure {
    let ended = || flight.place.get().is_some_and(Place::has_ended);
    let (kind, what, cause) = if std::thread::panicking() && !ended() {
        (ErrorKind::Closed, "its load panicked", Cause::Load)
    } else if node.closing.is_cancelled() {
        (ErrorKind::Closed, "its load was abandoned because the cache closes", Cause::Load)
    } else {
        node.home.check();
        let what = "the runtime of its load has ended or is no longer driven; call again";
        (ErrorKind::NoRuntime, what, Cause::Lost)
    };
    Failure { error: node.error(kind, &flight.key, what), stale: None, cause }
}

/// Keeps a stale value in L1, unless L1 holds a fresh one that the call skipped.
fn keep_stale(node: &Node, flight: &Flight, erased: &ErasedEntry) {
    let fresh = |h: ErasedEntry| node.coherence.judge(h.meta(), node.now()) == Verdict::Fresh;
    let better = node.l1.get(flight.hash, &flight.key).is_some_and(fresh);
    if !better && is_visible(node, erased) {
        node.l1.insert(flight.hash, ErasedEntry::clone(erased));
    }
}

/// Whether no removal hides the entry.
fn is_visible(node: &Node, erased: &ErasedEntry) -> bool {
    let verdict = node.coherence.judge(erased.meta(), node.now());
    !matches!(verdict, Verdict::Hidden(_)) || sabotaged!(FailSafeIgnoresHard)
}
