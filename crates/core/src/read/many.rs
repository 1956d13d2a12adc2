//! Reads many keys: one pass over L1, one multi-read of L2, one factory call for the rest.
//!
//! Each key still has its own flight, which other callers may join.

use std::collections::{BTreeMap, HashMap};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt, select_all};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::caller::{Answer, Ticket};
use super::completion::CompletionGuard;
use super::fetch::LONGEST_PAUSE;
use super::get::{PAGE, alike};
use super::judge::Asked;
use super::lead::{conclude_probe, own};
use super::load::Load;
use super::patience::{Led, Patience};
use super::probe::{Prepared, Probe, Prober, Sent, given_up, prepare, until_given_up};
use super::verify::check_many;
use super::wait::{for_end, for_other, too_late};
use super::{Call, lookup};
use crate::background::{ensure_runtime_runs, sweep};
use crate::entry::{Cached, Value};
use crate::error::Error;
use crate::factory::{Loader, split};
use crate::flight::nesting::{self, Run};
use crate::flight::{Role, StrictTurn, Waiting};
use crate::node::{Coded, Node};
use crate::protocol::Version;
use crate::read::catch_up::{AskLedger, beside};

/// How long a key waits at most for other keys of its batch, so that they share one factory call.
///
/// The check of a load lock that another node holds can be late by the same time.
const GATHERED_FOR: Duration = LONGEST_PAUSE;

/// The unanswered calls of a batch, by key.
type Open<'a> = BTreeMap<&'a str, Arc<Call>>;

/// Answers many calls in their order. It loads a repeated key once.
pub(crate) async fn run_many<T: Value>(
    node: &Coded<T>,
    calls: Vec<Call>,
    load: Loader<T>,
) -> Result<Vec<Cached<T>>, Error> {
    node.check_open(None)?;
    for call in &calls {
        call.options.validate(&node.place(Some(&call.key)))?;
        node.check_tags(&call.key, &call.tags)?;
    }
    ensure_runtime_runs(node).await;
    let calls: Vec<_> = calls.into_iter().map(Arc::new).collect();
    let ticket = Ticket::now(node);
    // Keyed by the keys themselves, because hashes may collide.
    let mut answers: HashMap<&str, Cached<T>> = HashMap::with_capacity(calls.len());
    let mut open: Open<'_> = calls.iter().map(|c| (&*c.key, Arc::clone(c))).collect();
    if !node.enabled {
        return Ok(in_order(&calls, &uncached(node, &open, load).await?));
    }
    sweep::ensure(node);
    let mut turns = BTreeMap::new();
    loop {
        open.retain(|key, call| match lookup(node, call).answer(node) {
            Some(cached) => answers.insert(key, cached).is_some(),
            None => true,
        });
        if open.is_empty() {
            break;
        }
        for (call, answer) in round(node, &open, &load, ticket, &mut turns).await? {
            if let (Answer::AskL2, Some(open)) = (&answer, open.get_mut(&*call.key)) {
                *open = call.past_l1();
            }
            let answer = match answer {
                Answer::Take(result) => Answer::Take(result),
                Answer::Again | Answer::AskAgain(_) | Answer::AskL2 => too_late(node, &call),
            };
            let Answer::Take(result) = answer else { continue };
            if let Some((key, _)) = open.remove_entry(&*call.key) {
                answers.insert(key, result?);
            }
        }
    }
    Ok(in_order(&calls, &answers))
}

fn in_order<T>(calls: &[Arc<Call>], answers: &HashMap<&str, Cached<T>>) -> Vec<Cached<T>> {
    calls.iter().filter_map(|call| answers.get(&*call.key).cloned()).collect()
}

/// Registers every open key, loads the led ones together, and waits for all.
async fn round<'a, T: Value>(
    node: &'a Coded<T>,
    open: &Open<'a>,
    load: &Loader<T>,
    ticket: Ticket,
    turns: &mut BTreeMap<&'a str, StrictTurn<'a>>,
) -> Result<Vec<(Arc<Call>, Answer<T>)>, Error> {
    let (mut roles, mut led, mut nested) = (Vec::new(), Vec::new(), Ok(Vec::new()));
    for (key, call) in open {
        let role = call.register(node, ticket);
        let mut waiting = None;
        if let Ok(all) = &mut nested {
            match nesting::wait_for(role.flight(), || node.place(Some(&role.flight().key))) {
                Ok(one) => all.extend(one),
                Err(error) => nested = Err(error),
            }
        }
        if let Role::Lead(flight) = &role {
            waiting = Some(Waiting::leading(flight, &call.options));
            led.push((Arc::clone(flight), call.leading(flight)));
        }
        if let (Role::Wait(_), true) = (&role, call.options.strict) {
            turns.entry(key).or_insert_with(|| node.flights.strict_turn(call.hash));
        }
        roles.push((role, Arc::clone(call), waiting));
    }
    start(node, led, Arc::clone(load))?;
    // The flights that this batch leads are started before this error: others may have joined them.
    let nested = nested?;
    let answers = roles.into_iter().map(|(role, call, waiting)| async move {
        let answer = match role {
            Role::Lead(flight) => {
                let waiting = waiting.unwrap_or_else(|| Waiting::leading(&flight, &call.options));
                own(node, &flight, &call, waiting).await
            }
            Role::Join(flight) => for_other(node, &flight, &call, ticket).await,
            Role::Wait(flight) => for_end(node, &flight, &call).await,
        };
        (call, answer)
    });
    let answers = join_all(answers).await;
    drop(nested);
    Ok(answers)
}

/// Starts one task for all flights that a batch leads.
fn start<T: Value>(node: &Coded<T>, led: Vec<Led>, load: Loader<T>) -> Result<(), Error> {
    if led.is_empty() {
        return Ok(());
    }
    // The guards complete every flight, even if the task never runs.
    let guards =
        led.iter().map(|(flight, _)| CompletionGuard::new(Arc::clone(node), Arc::clone(flight)));
    let guards: Vec<_> = guards.collect();
    let (owner, runtime) = (node.clone(), node.runtime()?);
    for (flight, _) in &led {
        drop(flight.place.set(runtime.clone()));
    }
    let task = async move { fly(&owner, led, guards, &load).await };
    node.tasks.spawn_on(task.in_current_span(), &runtime);
    Ok(())
}

/// The result of the first multi-read for one key: the requested lock's id and the reply, if any.
struct First {
    id: Version,
    sent: Option<Sent>,
    began: Instant,
}

/// A key of a batch that needs L2.
struct Asking<'a, T> {
    call: &'a Arc<Call>,
    guard: CompletionGuard,
    prober: Prober<'a, T>,
}

impl<T: Value> Asking<'_, T> {
    /// Completes the flight with what the probe found, or returns the load to run.
    fn conclude_probe(self, probe: Probe<T>) -> Option<Load<T>> {
        conclude_probe(self.prober.node.clone(), self.guard, Arc::clone(self.call), probe)
    }

    /// Continues from the multi-read's reply, or asks again within the rest of the limit.
    ///
    /// A key that another node is loading goes to `locked`.
    async fn ask(self, first: First, locked: UnboundedSender<Self>) -> Option<Load<T>> {
        let First { id, sent, began } = first;
        let left = self.prober.limit.saturating_sub(began.elapsed());
        let probe =
            self.until_given_up(pin!(self.prober.ask(Some(id), sent, Some(left), false))).await;
        match probe {
            Probe::Locked => {
                // If the batch has ended, the send fails and the dropped guard completes the
                // flight.
                drop(locked.send(self));
                None
            }
            probe => self.conclude_probe(probe),
        }
    }

    /// Waits for another node's load.
    async fn wait(self) -> Option<Load<T>> {
        let probe = self.until_given_up(pin!(self.prober.ask(None, None, None, true))).await;
        self.conclude_probe(probe)
    }

    async fn until_given_up(
        &self,
        asking: Pin<&mut (impl Future<Output = Probe<T>> + Send)>,
    ) -> Probe<T> {
        let Prober { node, call, flight, .. } = self.prober;
        until_given_up(node, call, flight, asking).await
    }

    /// Continues without L2, because a caller gave up on it.
    fn give_up(self) -> Option<Load<T>> {
        let probe = self.given_up();
        self.conclude_probe(probe)
    }

    fn given_up(&self) -> Probe<T> {
        given_up(self.prober.node, self.call)
    }
}

/// Asks L2 for all keys at once and loads the missing ones in one factory call.
///
/// Meanwhile it waits for keys that another node is loading. If such a load fails, the key goes to
/// a later factory call. Each key completes as soon as its own answer is known: callers that joined
/// one key do not wait for others.
async fn fly<T: Value>(
    node: &Coded<T>,
    led: Vec<Led>,
    guards: Vec<CompletionGuard>,
    load: &Loader<T>,
) {
    let (mut loads, mut asking) = (Vec::new(), Vec::new());
    let patience = Patience::of(node, &led);
    // Concurrent, because all keys wait for the same thing, if for anything.
    let preparing = join_all(led.iter().map(|(flight, call)| prepare(node, call, flight)));
    let prepared = patience.lasts(preparing).await.unwrap_or_else(|| {
        led.iter().map(|(_, call)| Prepared::Settled(given_up(node, call))).collect()
    });
    for ((prepared, guard), (_, call)) in prepared.into_iter().zip(guards).zip(&led) {
        match prepared {
            Prepared::Settled(probe) => {
                loads.extend(conclude_probe(node.clone(), guard, Arc::clone(call), probe));
            }
            Prepared::Ask(prober) => asking.push(Asking { call, guard, prober }),
        }
    }
    let (locked, waiting) = unbounded_channel();
    let kind = |key: &Asking<'_, T>| {
        (key.prober.unverified().is_some(), key.call.options.strict, key.prober.limit)
    };
    let asked = alike(asking, kind).map(|keys| ask_alike(node, &patience, keys, locked.clone()));
    let asked = select_all(asked.map(|asked| stream::once(asked).flatten().boxed()));
    drop(locked);
    let waited = wait_all(waiting);
    join(load_found(node, loads, asked, load), load_found(node, Vec::new(), waited, load)).await;
}

/// Asks L2 for a group: verifies its unverified copies in one request, then reads the other keys.
async fn ask_alike<'a, T: Value>(
    node: &Coded<T>,
    patience: &Patience<'_>,
    keys: Vec<Asking<'a, T>>,
    locked: UnboundedSender<Asking<'a, T>>,
) -> impl Stream<Item = Option<Load<T>>> + use<'a, T> {
    let looked = patience
        .lasts(check_all(node, &keys))
        .await
        .unwrap_or_else(|| keys.iter().map(|key| Some(key.given_up())).collect());
    let (mut settled, mut unanswered) = (Vec::new(), Vec::with_capacity(keys.len()));
    for (key, probe) in keys.into_iter().zip(looked) {
        match probe {
            Some(probe) => settled.push(key.conclude_probe(probe)),
            None => unanswered.push(key),
        }
    }
    let firsts = patience.lasts(read_all(node, &unanswered)).await.unwrap_or_else(|| {
        settled.extend(unanswered.drain(..).map(Asking::give_up));
        Vec::new()
    });
    let each = unanswered.into_iter().zip(firsts);
    let asked: FuturesUnordered<_> =
        each.map(|(key, first)| key.ask(first, locked.clone())).collect();
    stream::iter(settled).chain(asked)
}

/// Waits for other nodes' loads; each key counts from when the channel delivers it.
fn wait_all<'a, T: Value>(
    mut keys: UnboundedReceiver<Asking<'a, T>>,
) -> impl Stream<Item = Option<Load<T>>> + use<'a, T> {
    let (mut waiting, mut more) = (FuturesUnordered::new(), true);
    stream::poll_fn(move |cx| {
        while more && let Poll::Ready(key) = keys.poll_recv(cx) {
            more = key.is_some();
            waiting.extend(key.map(Asking::wait));
        }
        match waiting.poll_next_unpin(cx) {
            Poll::Ready(None) if more => Poll::Pending,
            found => found,
        }
    })
}

/// Verifies the unverified copies of a group in one request.
async fn check_all<T: Value>(node: &Coded<T>, asking: &[Asking<'_, T>]) -> Vec<Option<Probe<T>>> {
    let erased: Vec<_> = asking.iter().map(|key| key.prober.unverified()).collect();
    let to_verify: Vec<_> = erased.iter().flatten().cloned().collect();
    let first = asking.first().map(|key| (key.prober.limit, key.call.options.strict));
    let (limit, strict) = first.unwrap_or_default();
    let mut checked = check_many(node, &to_verify, limit, strict).await.into_iter();
    let each = asking.iter().zip(erased);
    each.map(|(key, erased)| key.prober.confirmed(erased.and_then(|_| checked.next())?)).collect()
}

/// Reads a group in one multi-read per page.
async fn read_all<T: Value>(node: &Coded<T>, asking: &[Asking<'_, T>]) -> Vec<First> {
    let mut firsts = Vec::with_capacity(asking.len());
    for page in asking.chunks(PAGE) {
        let asked: Vec<_> = page.iter().map(|key| Asked::now(node, &key.call.key)).collect();
        let ids: Vec<_> = page.iter().map(|_| node.entropy.version()).collect();
        let asks = page.iter().zip(&ids);
        let asks = asks.map(|(key, id)| (&*key.call.key, key.prober.first_ask(*id)));
        let (limit, began) = (page[0].prober.limit, Instant::now());
        // Every key waits for this page, even if it is on another.
        for key in asking {
            key.prober.asks_again_for();
        }
        let (l2, asks_ledger) = (
            page[0].prober.l2,
            AskLedger::own_if(page.iter().any(|key| key.prober.asks_ledger() != AskLedger::No)),
        );
        let (reads, mark) = beside(node, l2, asks_ledger, limit, l2.read_many(asks, limit)).await;
        // A key without a reply asks again on its own, with a new load lock id. One key alone may
        // have caused the failure.
        let each = asked.into_iter().zip(reads);
        let reads = each.map(|(asked, read)| Some((asked, read.ok()?, mark)));
        let each = ids.into_iter().zip(reads.chain(std::iter::repeat_with(|| None)));
        firsts.extend(each.map(|(id, sent)| First { id, sent, began }));
    }
    firsts
}

/// Calls the factory for the keys to load, as soon as all are known.
///
/// It waits for undecided keys at most [`GATHERED_FOR`].
async fn load_found<T: Value>(
    node: &Coded<T>,
    mut loads: Vec<Load<T>>,
    found: impl Stream<Item = Option<Load<T>>>,
    load: &Loader<T>,
) {
    tokio::pin!(found);
    let (mut running, mut is_open, mut due) = (FuturesUnordered::new(), true, None);
    loop {
        if !loads.is_empty() && (!is_open || due.is_some_and(|due| due <= Instant::now())) {
            running.push(load_all(node, std::mem::take(&mut loads), load));
        }
        if !is_open && running.is_empty() {
            return;
        }
        due = (!loads.is_empty()).then(|| due.unwrap_or_else(|| Instant::now() + GATHERED_FOR));
        tokio::select! {
            biased;
            next = found.next(), if is_open => match next {
                Some(next) => loads.extend(next),
                None => is_open = false,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// Runs one factory call for these loads; each completes like a single load.
async fn load_all<T: Value>(node: &Coded<T>, loads: Vec<Load<T>>, load: &Loader<T>) {
    if loads.is_empty() {
        return;
    }
    let keys = loads.iter().map(|load| load.call.key.to_string()).collect();
    let redact = node.settings.redact_keys;
    let (factories, run) = split(Arc::clone(load), keys, node.place(None), redact);
    let run = Run::of(loads.iter().map(|load| &load.guard.flight)).scope(run);
    node.counters.factory_calls.add();
    let loads = join_all(loads.into_iter().zip(factories).map(|(load, f)| load.run(f)));
    tokio::pin!(loads);
    tokio::select! {
        biased;
        () = run => { loads.await; }
        // All loads have ended: the factory call is dropped.
        _ = &mut loads => {}
    }
}

/// Runs one factory call in a disabled cache, and keeps nothing.
async fn uncached<'a, T: Value>(
    node: &Node,
    calls: &Open<'a>,
    load: Loader<T>,
) -> Result<HashMap<&'a str, Cached<T>>, Error> {
    let keys = calls.values().map(|call| call.key.to_string()).collect();
    let (factories, run) = split(load, keys, node.place(None), node.settings.redact_keys);
    let each = calls.iter().zip(factories).map(|((key, call), factory)| async move {
        let job = super::Job { factory, default: None };
        Ok((*key, super::lead::uncached(node, call, job).await?))
    });
    let ((), cached) = join(run, join_all(each)).await;
    cached.into_iter().collect()
}
