//! Leading a flight, in its caller's hands or a task's, and its one landing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{Instrument, Span};

use super::load::Load;
use super::probe::{Base, Probe, probe};
use super::{Call, Job};
use crate::cache::Inner;
use crate::entry::{Cached, Entry, Held, Source, Value};
use crate::error::{Error, ErrorKind};
use crate::events::{Event, MissReason};
use crate::factory::{Adaptive, FactoryContext, Made, NotModified};
use crate::flight::{Drive, Flight, Landed, Leader, Progress, Standing};
use crate::l2::Codec;
use crate::protocol::validity::Verdict;

/// Leads a flight as far as L2 goes, or until a task does.
pub(super) async fn lead<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    flight: &Arc<Flight>,
    call: &Arc<Call>,
    job: Job<T>,
) -> Result<(), Error> {
    let leader = leader(inner, flight, call, job)?;
    let _running = inner.tasks.token();
    Drive::new(&flight.helm, leader).await;
    Ok(())
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
    let landing = Landing::new(Arc::clone(inner), Arc::clone(flight));
    let call = Arc::clone(call);
    let runtime = inner.runtime()?;
    let own = runtime.clone();
    let work = Box::pin(async move {
        let probe = probe::<T, C>(&landing.inner, &call, &landing.flight).await;
        if let Some(load) = settle(landing, call, probe) {
            let load = Load { default: job.default, ..load };
            load.landing.inner.counters.factory_calls.add();
            let tasks = load.landing.inner.tasks.clone();
            tasks.spawn_on(load.run(job.factory).in_current_span(), &own);
        }
    });
    Ok(Leader { work, tasks: inner.tasks.clone(), runtime, span: Span::current() })
}

/// Lands what a probe found, or says what is to be loaded.
pub(super) fn settle<T: Value, C: Codec<T>>(
    landing: Landing<C>,
    call: Arc<Call>,
    probe: Probe<T>,
) -> Option<Load<T, C>> {
    match probe {
        Probe::Hit(entry, source) => {
            landing.land(entry, source);
            None
        }
        Probe::Stand(entry) => {
            landing.stand(entry, Source::FailSafe, None);
            None
        }
        Probe::Load(Base::Dark, _) if call.options.require_l2 => {
            let error = landing.inner.l2_required(&call.key);
            landing.fail(error);
            None
        }
        Probe::Load(base, known) => {
            if call.refresh.is_none() {
                let reason = landing.flight.reason();
                let dark = base == Base::Dark;
                landing.inner.miss(&call.key, if dark { MissReason::Unreachable } else { reason });
            }
            Some(Load { landing, call, base, known, default: None })
        }
        // Asked without patience; dropping the landing says that nothing came of it.
        Probe::Held => None,
    }
}

/// A flight that cannot be flown.
pub(super) fn abandon<C>(inner: &Arc<Inner<C>>, flight: &Arc<Flight>, error: Error) {
    Landing::new(Arc::clone(inner), Arc::clone(flight)).fail(error);
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

/// The right, and the duty, to end a flight (R3). Dropped without landing, it lands an error.
pub(super) struct Landing<C> {
    pub(super) inner: Arc<Inner<C>>,
    pub(super) flight: Arc<Flight>,
    landed: bool,
}

impl<C> Landing<C> {
    pub(super) fn new(inner: Arc<Inner<C>>, flight: Arc<Flight>) -> Self {
        Self { inner, flight, landed: false }
    }

    /// Lands a value: into L1 if the fence allows and it is valid now (R2), then to every caller.
    /// True if it was kept.
    pub(super) fn land<T: Value>(self, entry: Arc<Entry<T>>, source: Source) -> bool {
        self.inner.fresh_hit(&entry.meta, source, self.inner.now());
        let held: Held = entry;
        let mut kept = false;
        let settle = |inner: &Inner<C>, flight: &Flight, held: &Held, allowed: bool| {
            let allowed = allowed || sabotaged!(OvertakenIsKept);
            let now = inner.now();
            let verdict = inner.node.judge(held.meta(), now);
            let standing = if allowed && verdict == Verdict::Fresh {
                Standing::Fresh
            } else {
                Standing::Overtaken
            };
            kept = allowed && !matches!(verdict, Verdict::Hidden(_));
            if kept {
                inner.l1.insert(flight.hash, Held::clone(held));
            } else {
                inner.counters.fence_hits.add();
            }
            Some(standing)
        };
        let (inner, flight) = (Arc::clone(&self.inner), Arc::clone(&self.flight));
        self.settle(held, source, settle, None);
        if kept && source == Source::Factory {
            inner.tell(&flight.key, |key| Event::Set { key, filled: true });
        }
        kept
    }

    /// Lands a value that L2 refused: for the caller that started the load, and nowhere else.
    pub(super) fn land_refused<T: Value>(self, entry: Arc<Entry<T>>) {
        self.inner.counters.fill_refused.add();
        let settle = |_: &Inner<C>, _: &Flight, _: &Held, _| Some(Standing::Refused);
        self.settle(entry, Source::Factory, settle, None);
    }

    /// Lands a value that is kept nowhere, though nothing is wrong with it.
    pub(super) fn land_unstored<T: Value>(self, entry: Arc<Entry<T>>) {
        let settle = |inner: &Inner<C>, _: &Flight, held: &Held, allowed| {
            let fresh = allowed && inner.node.judge(held.meta(), inner.now()) == Verdict::Fresh;
            Some(if fresh { Standing::Fresh } else { Standing::Overtaken })
        };
        self.settle(entry, Source::Factory, settle, None);
    }

    /// Lands a stale value in place of a failure, or of another node's load.
    pub(super) fn stand<T: Value>(
        self,
        entry: Arc<Entry<T>>,
        source: Source,
        failure: Option<Error>,
    ) {
        let failed = failure.is_some();
        let settle = |inner: &Inner<C>, flight: &Flight, held: &Held, allowed: bool| match inner
            .node
            .judge(held.meta(), inner.now())
        {
            Verdict::Hidden(_) if failed && !sabotaged!(FailSafeIgnoresHard) => None,
            _ if failed && flight.removed.load(Ordering::Acquire) => None,
            Verdict::Hidden(_) => Some(Standing::Overtaken),
            _ => {
                // Of a call that has not looked in L1, there may be something better.
                let fresh = |h: Held| inner.node.judge(h.meta(), inner.now()) == Verdict::Fresh;
                if allowed && !inner.l1.get(flight.hash, &flight.key).is_some_and(fresh) {
                    inner.l1.insert(flight.hash, Held::clone(held));
                }
                Some(Standing::Fallback)
            }
        };
        self.settle(entry, source, settle, failure);
    }

    /// Lands an error, for every caller of this flight.
    pub(super) fn fail(mut self, error: Error) {
        self.end(|_, _, _| Err(error));
    }

    /// Ends the flight with a value, or with `otherwise` if its standing is `None`.
    fn settle(
        mut self,
        held: Held,
        source: Source,
        standing: impl FnOnce(&Inner<C>, &Flight, &Held, bool) -> Option<Standing>,
        otherwise: Option<Error>,
    ) {
        let version = held.meta().version;
        self.end(move |inner, flight, heard| {
            match (standing(inner, flight, &held, heard.allows(version)), otherwise) {
                (None, Some(error)) => Err(error),
                (standing, _) => {
                    let standing = standing.unwrap_or(Standing::Overtaken);
                    Ok(Landed { held, source, standing })
                }
            }
        });
    }

    fn end(
        &mut self,
        result: impl FnOnce(&Inner<C>, &Flight, crate::protocol::flight::Heard) -> Result<Landed, Error>,
    ) {
        let (inner, flight) = (&self.inner, &self.flight);
        let result =
            inner.flights.end(flight.hash, flight.id, |heard| result(inner, flight, heard));
        flight.progress.write(Progress::Done(result));
        // Last: if a value's own drop panics before, the guard still ends the flight.
        self.landed = true;
    }
}

impl<C> Drop for Landing<C> {
    fn drop(&mut self) {
        if !self.landed {
            let what = "its load was abandoned; the cache is closed or its runtime shuts down";
            let error = self.inner.error(ErrorKind::Closed, &self.flight.key, what);
            self.end(|_, _, _| Err(error));
        }
    }
}
