//! Many keys at once: one pass over L1, one multi-read of L2, one factory call for what is left; and
//! still one flight per key, which others join and which may be joined.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::{join, join_all};
use tracing::Instrument;

use super::lead::{Landing, settle};
use super::load::Load;
use super::probe::{Asked, Prepared, Probe, Prober, prepare};
use super::verify::look;
use super::wait::{Answer, Arrived, for_end, for_other, for_own};
use super::{Call, lookup};
use crate::cache::Inner;
use crate::entry::{Cached, Value};
use crate::error::Error;
use crate::factory::{Loader, split};
use crate::flight::{Flight, Seat};
use crate::l2::Codec;

/// How many records one multi-read asks for.
pub(super) const PAGE: usize = 1000;

/// A flight that this batch leads.
type Led = (Arc<Flight>, Arc<Call>);

/// Answers many calls, in their order. A key that comes twice is loaded once.
pub(crate) async fn run_many<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    calls: Vec<Call>,
    load: Loader<T>,
) -> Result<Vec<Cached<T>>, Error> {
    for call in &calls {
        call.options.validate(&inner.place(Some(&call.key)))?;
        inner.check_tags(&call.key, &call.tags)?;
    }
    let calls: Vec<_> = calls.into_iter().map(Arc::new).collect();
    let arrived = Arrived::now(inner);
    // By the keys themselves: hashes may collide.
    let mut answers: HashMap<&str, Cached<T>> = HashMap::with_capacity(calls.len());
    let mut open: BTreeMap<&str, &Arc<Call>> = calls.iter().map(|c| (&*c.key, c)).collect();
    if !inner.enabled {
        return Ok(in_order(&calls, &uncached(inner, &open, load).await?));
    }
    loop {
        open.retain(|key, call| match lookup(inner, call).answer(inner) {
            Some(cached) => answers.insert(key, cached).is_some(),
            None => true,
        });
        if open.is_empty() {
            break;
        }
        for (call, answer) in round(inner, open.values().copied(), &load, arrived).await? {
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

/// Every open key arrives; those that lead are loaded together, and all are waited for.
async fn round<'a, T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    open: impl Iterator<Item = &'a Arc<Call>>,
    load: &Loader<T>,
    arrived: Arrived,
) -> Result<Vec<(Arc<Call>, Answer<T>)>, Error> {
    let seats: Vec<_> = open.map(|call| (call.arrive(inner, arrived), Arc::clone(call))).collect();
    let led = seats.iter().filter_map(|(seat, call)| match seat {
        Seat::Lead(flight) => Some((Arc::clone(flight), Arc::clone(call))),
        _ => None,
    });
    start(inner, led.collect(), Arc::clone(load))?;
    let answers = seats.into_iter().map(|(seat, call)| async move {
        let answer = match seat {
            Seat::Lead(flight) => for_own(inner, &flight, &call).await,
            Seat::Join(flight) => for_other(inner, &flight, &call, arrived).await,
            Seat::Wait(flight) => for_end(inner, &flight, &call).await,
        };
        (call, answer)
    });
    Ok(join_all(answers).await)
}

/// Starts the task of all flights that a batch leads.
fn start<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    led: Vec<Led>,
    load: Loader<T>,
) -> Result<(), Error> {
    if led.is_empty() {
        return Ok(());
    }
    // Whatever happens to the task, be it that it never runs, every flight ends.
    let landings =
        led.iter().map(|(flight, _)| Landing::new(Arc::clone(inner), Arc::clone(flight)));
    let landings: Vec<_> = landings.map(Some).collect();
    let owner = Arc::clone(inner);
    let task = async move { fly(&owner, led, landings, &load).await };
    inner.spawn(task.in_current_span())
}

/// Asks L2 for all keys at once. What is missing goes to the factory in one call; what another node is
/// loading is waited for meanwhile, and goes to the factory in a second one if that fails.
async fn fly<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    led: Vec<Led>,
    mut landings: Vec<Option<Landing<C>>>,
    load: &Loader<T>,
) {
    let mut loads = Vec::new();
    let mut probers = Vec::new();
    // All at the same time: what they wait for, if anything, is the same for all.
    let prepared = join_all(led.iter().map(|(flight, call)| prepare(inner, call, flight))).await;
    for (at, (prepared, (_, call))) in prepared.into_iter().zip(&led).enumerate() {
        match prepared {
            Prepared::Settled(probe) => {
                loads.extend(land(&mut landings, at, call, probe));
            }
            Prepared::Ask(prober) => probers.push((at, prober)),
        }
    }
    let looked = look_all(inner, &probers).await;
    let (mut asking, mut held) = (Vec::new(), Vec::new());
    for ((at, prober), probe) in probers.into_iter().zip(looked) {
        match probe {
            Some(probe) => loads.extend(land(&mut landings, at, &led[at].1, probe)),
            None => asking.push((at, prober)),
        }
    }
    let (probers, probes) = (&asking, ask_all(inner, &asking).await);
    for ((at, prober), probe) in probers.iter().zip(probes) {
        match probe {
            Probe::Held => held.push((*at, prober)),
            probe => loads.extend(land(&mut landings, *at, &led[*at].1, probe)),
        }
    }
    let waited = async {
        let probes = held.iter().map(|(_, prober)| prober.ask(None, true));
        let probes = join_all(probes).await;
        let of = |((at, _), probe): (&(usize, _), _)| land(&mut landings, *at, &led[*at].1, probe);
        let loads = held.iter().zip(probes).filter_map(of).collect();
        load_all(inner, loads, load).await;
    };
    join(load_all(inner, loads, load), waited).await;
}

fn land<T: Value, C: Codec<T>>(
    landings: &mut [Option<Landing<C>>],
    at: usize,
    call: &Arc<Call>,
    probe: Probe<T>,
) -> Option<Load<T, C>> {
    settle(landings[at].take()?, Arc::clone(call), probe)
}

/// One look at all copies that are in doubt.
async fn look_all<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    probers: &[(usize, Prober<'_, T, C>)],
) -> Vec<Option<Probe<T>>> {
    let held: Vec<_> = probers.iter().map(|(_, prober)| prober.doubted()).collect();
    let looked: Vec<_> = held.iter().flatten().cloned().collect();
    let limit = probers.iter().map(|(_, prober)| prober.limit()).min().unwrap_or_default();
    let mut checked = look(inner, &looked, limit).await.into_iter();
    let each = probers.iter().zip(held);
    each.map(|((_, prober), held)| prober.confirmed(held.and_then(|_| checked.next())?)).collect()
}

/// One multi-read per page, then whatever a key needs beyond that, all at the same time.
async fn ask_all<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    probers: &[(usize, Prober<'_, T, C>)],
) -> Vec<Probe<T>> {
    let mut sent = Vec::with_capacity(probers.len());
    for page in probers.chunks(PAGE) {
        let asked: Vec<_> =
            page.iter().map(|(_, prober)| Asked::now(inner, prober.key())).collect();
        let asks = page.iter().map(|(_, prober)| (prober.key(), prober.first_ask()));
        let limit = page.iter().map(|(_, prober)| prober.limit()).min().unwrap_or_default();
        let reads = match &inner.l2 {
            Some(l2) => l2.read_many(asks, limit).await.ok(),
            None => None,
        };
        match reads {
            Some(reads) => sent.extend(asked.into_iter().zip(reads).map(Some)),
            // Perhaps because of one key alone: each finds out for itself.
            None => sent.extend(page.iter().map(|_| None)),
        }
    }
    join_all(probers.iter().zip(sent).map(|((_, prober), sent)| prober.ask(sent, false))).await
}

/// One call of the factory for all of them; each ends like a load of its own.
async fn load_all<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    loads: Vec<Load<T, C>>,
    load: &Loader<T>,
) {
    if loads.is_empty() {
        return;
    }
    let keys = loads.iter().map(|load| load.call.key.to_string()).collect();
    let redact = inner.settings.redact_keys;
    let (factories, run) = split(Arc::clone(load), keys, inner.place(None), redact);
    inner.counters.factory_calls.add();
    let loads = join_all(loads.into_iter().zip(factories).map(|(load, f)| load.run(f)));
    tokio::pin!(loads);
    tokio::select! {
        biased;
        () = run => { loads.await; }
        // Nobody waits for the factory any more.
        _ = &mut loads => {}
    }
}

/// A cache that is disabled: one call of the factory, and nothing is kept.
async fn uncached<'a, T: Value, C: Sync>(
    inner: &Inner<C>,
    calls: &BTreeMap<&'a str, &Arc<Call>>,
    load: Loader<T>,
) -> Result<HashMap<&'a str, Cached<T>>, Error> {
    let keys = calls.values().map(|call| call.key.to_string()).collect();
    let (factories, run) = split(load, keys, inner.place(None), inner.settings.redact_keys);
    let each = calls.iter().zip(factories).map(|((key, call), factory)| async move {
        let job = super::Job { factory, default: None };
        Ok((*key, super::lead::uncached(inner, call, job).await?))
    });
    let ((), cached) = join(run, join_all(each)).await;
    cached.into_iter().collect()
}
