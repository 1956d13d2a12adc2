//! Leads a flight: the caller or a task polls it, and one guard completes it.

use std::sync::Arc;

use tracing::{Instrument, Span};

use super::caller::Answer;
use super::completion::CompletionGuard;
use super::get::get_since;
use super::load::Load;
use super::probe::{FillMode, Probe, probe};
use super::wait::{for_own, too_late};
use super::{Call, Job};
use crate::background::{ensure_runtime_runs, sweep};
use crate::entry::{Cached, Source, Value};
use crate::error::{Error, ErrorKind};
use crate::events::MissReason;
use crate::factory::{Adaptive, FactoryContext, Made, NotModified};
use crate::flight::nesting::Run;
use crate::flight::{Cause, Drive, Failure, Flight, Leader, Waiting};
use crate::node::{Coded, Node};

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

/// Builds the flight's leader: it asks L2 and spawns a task for a load, within the caller's span.
pub(super) fn leader<T: Value>(
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
        if let Some(load) = conclude_probe(coded, guard, call, probe) {
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
pub(super) fn conclude_probe<T: Value>(
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
    ensure_runtime_runs(node).await;
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
