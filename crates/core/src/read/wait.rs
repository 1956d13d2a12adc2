//! Waits for a flight within the limits of the waiting caller.
//!
//! The limits count from the start of its call, even if it registers several times.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Call;
use super::caller::{Answer, Caller, Over, Ticket, give_up};
use super::lookup::serve_stale;
use crate::background::watch_runtime;
use crate::entry::Value;
use crate::flight::{Flight, Progress, Waiting};
use crate::node::Node;

/// The flight's stage, as far as limits depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Probing,
    Waiting { hurried: bool },
    Loading,
}

/// Waits as the leader, which takes any outcome of its flight.
pub(crate) async fn for_own<T: Value>(
    node: &Arc<Node>,
    flight: &Arc<Flight>,
    call: &Call,
    waiting: &mut Waiting,
) -> Answer<T> {
    let caller = Caller { node, flight, call, joined: None, since: Instant::now() };
    attended(node, wait(&caller, waiting)).await
}

/// Waits as a joined caller, which takes an outcome only if the rules of joining allow it.
pub(crate) async fn for_other<T: Value>(
    node: &Arc<Node>,
    flight: &Arc<Flight>,
    call: &Call,
    ticket: Ticket,
) -> Answer<T> {
    node.counters.joined.add();
    let since = Instant::now();
    let caller = Caller { node, flight, call, joined: Some(ticket), since };
    let answer = attended(node, wait(&caller, &mut Waiting::joined(flight))).await;
    if matches!(answer, Answer::Again) {
        node.counters.join_refused.add();
    }
    answer
}

/// Waits for the end of a flight that the caller may not join; the caller then registers again.
pub(crate) async fn for_end<T: Value>(node: &Arc<Node>, flight: &Flight, call: &Call) -> Answer<T> {
    let caller = Caller { node, flight, call, joined: None, since: Instant::now() };
    attended(node, wait_for_end(&caller)).await
}

async fn wait_for_end<T: Value>(caller: &Caller<'_>) -> Answer<T> {
    let Caller { node, flight, call, .. } = *caller;
    let mut progress = flight.progress.reader();
    let mut asking = flight.progress.reader();
    let mut end = pin!(progress.wait_for(|progress| matches!(progress, Progress::Done(_))));
    loop {
        let has_fallback = serve_stale::<T>(node, call).is_some();
        let soft = call.options.factory_soft_timeout.filter(|_| has_fallback);
        let limits = [
            (soft, Over::Soft),
            (call.options.factory_hard_timeout, Over::Hard),
            (call.options.wait_timeout, Over::Flight),
        ];
        let asks = !matches!(asking.read(), Progress::Loading(_) | Progress::Done(_));
        let l2 = caller.l2_limit(has_fallback).filter(|_| asks);
        let Some((at, over)) = first(earliest(call, limits), l2) else {
            end.await;
            return Answer::Again;
        };
        if timeout_at(at, end.as_mut()).await.is_ok() {
            return Answer::Again;
        }
        if let Over::L2(limit) = over {
            // The running load waits for L2. The caller's own load will send a new request.
            if caller.has_waited_for_l2(limit) {
                flight.give_up_l2(limit);
            }
            continue;
        }
        let fallback = serve_stale::<T>(node, call);
        if fallback.is_some() || over != Over::Soft {
            return give_up(node, call, over, fallback);
        }
    }
}

/// Waits for a load; the load ends even if its runtime has ended.
async fn attended<R>(node: &Arc<Node>, wait: impl Future<Output = R>) -> R {
    tokio::select! {
        biased;
        answer = wait => answer,
        () = watch_runtime(node) => unreachable!("it is attended until the wait ends"),
    }
}

/// The answer of a caller that would register again but has no time left.
pub(crate) fn too_late<T: Value>(node: &Node, call: &Call) -> Answer<T> {
    let limits = [(call.options.factory_hard_timeout, Over::Hard)];
    match earliest(call, limits).filter(|(at, _)| *at <= Instant::now()) {
        Some((_, over)) => give_up(node, call, over, serve_stale::<T>(node, call)),
        None => Answer::Again,
    }
}

async fn wait<T: Value>(caller: &Caller<'_>, waiting: &mut Waiting) -> Answer<T> {
    let Caller { node, flight, call, .. } = *caller;
    let mut progress = flight.progress.reader();
    let mut hurried = false;
    loop {
        let (fallback, stage) = match progress.read() {
            Progress::Done(outcome) => return caller.answer(outcome),
            Progress::Probing => (serve_stale::<T>(node, call), Stage::Probing),
            Progress::Waiting(stale) => (stale, Stage::Waiting { hurried }),
            Progress::Loading(_)
                if caller.has_to_do_without_l2() && !caller.is_more_patient_with_l2() =>
            {
                return caller.l2_required();
            }
            // The load runs for another caller, which gave up on L2.
            Progress::Loading(_) if caller.has_to_do_without_l2() && caller.joined.is_none() => {
                return Answer::AskL2;
            }
            Progress::Loading(stale) => match caller.continues_without_l2() {
                Some(answer) => return answer,
                None => (stale, Stage::Loading),
            },
        };
        let fallback = fallback.filter(|erased| caller.may_have(erased));
        let Some((at, over)) = limit(caller, stage, fallback.is_some()) else {
            progress.changed().await;
            continue;
        };
        tokio::select! {
            biased;
            () = progress.changed() => {}
            () = sleep_until(at) => {
                let may_have = fallback.as_ref().is_some_and(|erased| caller.may_have(erased));
                if fallback.is_some() && !may_have && matches!(over, Over::Soft | Over::LoadLockWait) {
                    // The fallback was removed while this caller waited, so its shorter limits no
                    // longer apply.
                    continue;
                }
                if let Over::L2(limit) = over {
                    if caller.has_waited_for_l2(limit)
                        && let Some(answer) = caller.give_up_l2(limit)
                    {
                        return answer;
                    }
                    continue;
                }
                if over == Over::LoadLockWait && (fallback.is_none() || !call.options.load_lock) {
                    flight.hurry();
                    hurried = true;
                    continue;
                }
                if matches!(over, Over::Soft | Over::Hard) {
                    waiting.give_up(call.options.background_completion);
                }
                return caller.give_up(over, fallback);
            }
        }
    }
}

/// When this caller stops waiting, and why.
fn limit(caller: &Caller<'_>, stage: Stage, has_fallback: bool) -> Option<(Instant, Over)> {
    let options = &caller.call.options;
    let joined = caller.joined.is_some();
    let soft = has_fallback && stage != Stage::Probing;
    // The load itself applies this limit for the leader.
    let load_lock = joined && stage == (Stage::Waiting { hurried: false });
    let limits = [
        (options.factory_soft_timeout.filter(|_| soft), Over::Soft),
        (options.factory_hard_timeout, Over::Hard),
        (load_lock.then(|| caller.call.load_lock_wait()), Over::LoadLockWait),
        (options.wait_timeout.filter(|_| joined), Over::Flight),
    ];
    let l2 = match stage {
        Stage::Probing | Stage::Waiting { .. } if joined => caller.l2_limit(has_fallback),
        _ => None,
    };
    first(earliest(caller.call, limits), l2)
}

/// How long a caller that does not lead waits for L2 in another caller's flight.
///
/// Each request gets as long as if this caller sent it itself.
impl Caller<'_> {
    /// When the limit for L2 passes. While no request is running, this is when to check again.
    fn l2_limit(&self, has_fallback: bool) -> Option<(Instant, Over)> {
        let options = &self.call.options;
        let limit = if has_fallback { options.l2_soft_timeout } else { options.l2_hard_timeout };
        let from = self.asked_l2().unwrap_or_else(Instant::now);
        // If another caller has given up already, this caller need not.
        let waits = self.flight.given_up().is_none();
        from.checked_add(limit).filter(|_| waits).map(|at| (at, Over::L2(limit)))
    }

    fn has_waited_for_l2(&self, limit: Duration) -> bool {
        self.asked_l2().is_some_and(|asked| asked.elapsed() >= limit)
    }

    /// When the running request to L2 started for this caller: not before it began to wait.
    fn asked_l2(&self) -> Option<Instant> {
        self.flight.asked_l2().map(|asked| asked.max(self.since))
    }
}

type Limit = Option<(Instant, Over)>;

fn first(one: Limit, other: Limit) -> Limit {
    one.into_iter().chain(other).min_by_key(|(at, _)| *at)
}

/// The earliest of these limits, counted from the start of the call.
fn earliest<const N: usize>(
    call: &Call,
    limits: [(Option<Duration>, Over); N],
) -> Option<(Instant, Over)> {
    let at = |(limit, over): (Option<Duration>, Over)| Some((call.came.checked_add(limit?)?, over));
    limits.into_iter().filter_map(at).min_by_key(|(at, _)| *at)
}
