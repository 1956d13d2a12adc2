//! Loading: the factory under its limits, and the compare-and-put of what it brings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Call;
use super::fill::{Fill, NewEntry};
use super::lead::CompletionGuard;
use super::probe::{FillMode, judge_record};
use crate::entry::{Cached, Entry, ErasedEntry, Shared, Source, Stamp, Value};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::factory::{Adaptive, Choices, Factory, FactoryContext, Made};
use crate::fail_safe::may_serve_stale;
use crate::flight::{Cause, Failure, Progress};
use crate::l2::Codec;
use crate::protocol::validity::Verdict;
use crate::telemetry::TARGET;
use crate::write::encode::encode;

/// One run of a factory, with what its result may overwrite.
pub(super) struct Load<T, C> {
    pub(super) guard: CompletionGuard<C>,
    pub(super) call: Arc<Call>,
    pub(super) base: FillMode,
    /// What is replaced, if it was not removed.
    pub(super) known: Option<Arc<Entry<T>>>,
    /// The last default_value.
    pub(super) default: Option<Arc<Entry<T>>>,
}

impl<T: Value, C: Codec<T>> Load<T, C> {
    /// Runs the factory and lands what comes of it. A load lock that is not used is given back.
    pub(super) async fn run(self, factory: Factory<T>) {
        let inner = Arc::clone(&self.guard.inner);
        let (base, call, known) = (self.base, Arc::clone(&self.call), self.known.clone());
        let adaptive = Adaptive::new(call.options.clone(), call.tags.clone());
        let began = inner.now();
        // Again, since the ledger may have been met, or repaired, while L2 was asked (R1).
        let stamp = inner.node.stamp(began);
        let stale = known.clone().map(|e| Cached::new(e, began, Source::FailSafe, true));
        let context = FactoryContext::new(&call.key, stale, adaptive.clone());
        self.guard.flight.progress.write(Progress::Loading(self.candidate()));
        let made = self.make(factory, context).await;
        let stamp =
            if sabotaged!(StampAtCompletion) { inner.node.stamp(inner.now()) } else { stamp };
        let took = inner.now().since(began);
        if !matches!(made, Err((_, Cause::Abandoned))) {
            inner.factory_ended(&call.key, took, made.as_ref().err().map(|(error, _)| error));
        }
        let choices = adaptive.choices();
        let filled = match made {
            Ok(made) => self.store(made, choices, stamp, took).await,
            // The source is not to blame: it is not left alone for a throttle.
            Err((error, cause @ Cause::Abandoned)) => {
                let stale = self.candidate();
                self.guard.fail(Failure { error, stale, cause }, None);
                false
            }
            Err((error, cause)) => {
                self.fail(error, cause, &choices);
                false
            }
        };
        if let (Some(_), Some(entry)) = (call.refresh, known) {
            // If it is still there, it was not replaced: leave it alone for a while.
            let fail_safe = call.options.fail_safe.unwrap_or_default();
            entry.meta.rearm(inner.now() + fail_safe.throttle);
        }
        if let (false, FillMode::Replace { load_lock: Some(load_lock), .. }, Some(l2)) =
            (filled, base, &inner.l2)
            && !sabotaged!(LoadLockNotReleased)
        {
            // Best effort: the load lock ends by itself.
            let limit = call.options.l2_hard_timeout;
            let _ = l2.on(&call.key, limit, |store, key| store.release(key, load_lock)).await;
        }
    }

    /// What may be served stale in place of the factory, to callers that allow it.
    fn candidate(&self) -> Option<ErasedEntry> {
        let (inner, call) = (&self.guard.inner, &self.call);
        // What L2 says nothing of may be served even if this caller has not looked in L1.
        let unasked = inner.records().is_none() || self.base == FillMode::Degraded;
        let local = || inner.l1.get(call.hash, &call.key).filter(|_| unasked);
        let entry = self.known.clone().map_or_else(local, |entry| Some(entry as ErasedEntry))?;
        let verdict = judge_record(inner, &call.key, entry.meta());
        let removed = matches!(verdict, Verdict::Hidden(_)) && !sabotaged!(FailSafeIgnoresHard);
        (!removed).then_some(entry)
    }

    /// What may be served stale to the caller that led, now.
    fn fallback(&self) -> Option<Arc<Entry<T>>> {
        let (inner, call) = (&self.guard.inner, &self.call);
        let entry = self.known.as_ref()?;
        let verdict = judge_record(inner, &call.key, &entry.meta);
        let may = may_serve_stale(&entry.meta, verdict, &call.options, inner.now());
        may.then(|| Arc::clone(entry))
    }

    /// The factory, until it ends, runs into its deadline, or is stopped.
    async fn make(
        &self,
        factory: Factory<T>,
        context: FactoryContext<T>,
    ) -> Result<Made<T>, (Error, Cause)> {
        let inner = &*self.guard.inner;
        let place = inner.place(Some(&self.call.key));
        let deadline = self.call.options.factory_deadline;
        let too_long = |what: String| Error::new(ErrorKind::FactoryTimeout, place.clone(), what);
        tokio::select! {
            biased;
            () = self.guard.flight.stop.notified() => {
                if self.guard.flight.callers.have_abandoned() {
                    let what = "nobody waited for it any more, and cancel_when_abandoned is on";
                    return Err((too_long(what.to_owned()), Cause::Abandoned));
                }
                let what = "its caller gave up and background completion is off";
                Err((too_long(what.to_owned()), Cause::Stopped))
            }
            result = crate::factory::run(factory, context, &place) => {
                result.map_err(|error| (error, Cause::Load))
            }
            () = sleep(deadline) => {
                let what = format!("it ran into its deadline of {deadline:?}");
                Err((too_long(what), Cause::Deadline(deadline)))
            }
            never = self.renew_load_lock() => match never {},
        }
    }

    /// Renews the load lock every third of its life, for ever.
    async fn renew_load_lock(&self) -> Infallible {
        let inner = &*self.guard.inner;
        if let (FillMode::Replace { load_lock: Some(load_lock), .. }, Some(l2)) =
            (self.base, &inner.l2)
        {
            let ttl = inner.settings.load_lock_ttl;
            loop {
                sleep(ttl / 3).await;
                let limit = self.call.options.l2_hard_timeout;
                let ttl_ms = crate::clock::millis(ttl);
                let key = &self.call.key;
                let _ = l2.on(key, limit, |store, key| store.renew(key, load_lock, ttl_ms)).await;
            }
        }
        std::future::pending().await
    }

    /// Lands the failure. How long the factory is left alone is said by what the caller that led is
    /// answered in its place; others that are answered with it may say longer.
    fn fail(self, error: Error, cause: Cause, choices: &Choices) {
        let inner = Arc::clone(&self.guard.inner);
        let retry_at = choices.options.fail_safe.map(|f| inner.now() + f.throttle);
        let (stale, fallback) = (self.candidate(), self.fallback());
        // For callers that have joined and are answered with it: their throttle is kept, too.
        let mut kept = stale.clone().filter(|_| self.guard.flight.callers.are_many());
        if let (Some(entry), Some(retry_at)) = (fallback.or(self.default), retry_at) {
            tracing::warn!(target: TARGET, %error, "factory failed; answering with a stale value");
            let fail_safe = &inner.counters.fail_safe;
            inner.note(fail_safe, &self.call.key, |key| Event::FailSafe { key });
            entry.meta.throttle(retry_at);
            kept = Some(entry);
        }
        self.guard.fail(Failure { error, stale, cause }, kept);
    }

    /// Keeps what the factory made, where it may be kept; true if L2 took it.
    async fn store(
        self,
        made: Made<T>,
        mut choices: Choices,
        stamp: Stamp,
        took: Duration,
    ) -> bool {
        let Self { guard, call, base, known, .. } = self;
        let inner = Arc::clone(&guard.inner);
        let (value, removed) = match (made, known) {
            (Made::Value(value), _) => (Shared::Own(value), false),
            (Made::Confirmed, Some(known)) => {
                choices.confirm(&known.meta);
                let verdict = judge_record(&inner, &call.key, &known.meta);
                (Shared::of(&known), matches!(verdict, Verdict::Hidden(_)))
            }
            (Made::Confirmed, None) => return false,
        };
        let place = inner.place(Some(&call.key));
        let wrong = choices.options.validate(&place).err();
        if let Some(error) = wrong.or_else(|| inner.check_tags(&call.key, &choices.tags).err()) {
            guard.fail(Failure { error, stale: None, cause: Cause::Load }, None);
            return false;
        }
        let make =
            NewEntry { stamp, took, degraded: base == FillMode::Degraded, shared: base.is_over() };
        let (mut meta, deadlines) = make.meta(&inner, &call.key, &choices);
        if let FillMode::Beside(version) = base {
            meta.put_beside(version);
        }
        let entry = Arc::new(Entry { meta, value });
        let options = &choices.options;
        if removed {
            guard.complete_refused(entry);
            return false;
        }
        if choices.skip_store {
            guard.complete_unstored(entry);
            return false;
        }
        let FillMode::Replace { expected, displaces, .. } = base else {
            guard.complete(entry, Source::Factory);
            return false;
        };
        if options.skip_l2_write || inner.flights.is_fenced(&guard.flight) {
            guard.complete(entry, Source::Factory);
            return false;
        }
        match encode(&inner, &entry, deadlines, took, displaces) {
            Ok(record) => {
                let fill = Fill { inner: &inner, call: &call, options, entry };
                fill.put(guard, expected, record).await
            }
            Err(error) => {
                inner.unstored(&error);
                guard.complete(entry, Source::Factory);
                false
            }
        }
    }
}
