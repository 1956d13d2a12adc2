//! Runs a factory under its limits and stores its result in L2 by compare-and-swap.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Call;
use super::completion::CompletionGuard;
use super::fill::{Fill, NewEntry};
use super::judge::judge_record;
use super::probe::FillMode;
use crate::entry::{Cached, Entry, ErasedEntry, Shared, Source, Stamp, Value};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::factory::{Adaptive, Choices, Factory, FactoryContext, Made};
use crate::flight::{Cause, Failure, Progress};
use crate::node::Coded;
use crate::options::SHORTEST;
use crate::protocol::validity::Verdict;
use crate::read::stale::may_serve_stale;
use crate::telemetry::TARGET;
use crate::write::encode::encode;

/// One run of a factory, and the rules for storing its result.
pub(super) struct Load<T> {
    pub(super) coded: Coded<T>,
    pub(super) guard: CompletionGuard,
    pub(super) call: Arc<Call>,
    pub(super) mode: FillMode,
    /// The entry to replace, if no removal hides it.
    pub(super) known: Option<Arc<Entry<T>>>,
    /// The caller's `fail_safe_default`.
    pub(super) default: Option<Arc<Entry<T>>>,
}

impl<T: Value> Load<T> {
    /// Runs the factory and completes the flight. Releases the load lock unless a fill consumed it.
    pub(super) async fn run(self, factory: Factory<T>) {
        let node = Arc::clone(&self.guard.node);
        let (mode, call, known) = (self.mode, Arc::clone(&self.call), self.known.clone());
        let adaptive = Adaptive::new(call.options.clone(), call.tags.clone());
        let began = node.now();
        // A new stamp, since the node may have synced the ledger while it asked L2 (R1).
        let stamp = node.coherence.stamp(began);
        let stale = known.clone().map(|e| Cached::new(e, began, Source::FailSafe, true));
        let context = FactoryContext::new(&call.key, stale, adaptive.clone());
        self.guard.flight.progress.write(Progress::Loading(self.candidate()));
        let made = self.make(factory, context).await;
        let stamp =
            if sabotaged!(StampAtCompletion) { node.coherence.stamp(node.now()) } else { stamp };
        let took = node.now().since(began);
        if !matches!(made, Err((_, Cause::Abandoned))) {
            node.factory_ended(&call.key, took, made.as_ref().err().map(|(error, _)| error));
        }
        let choices = adaptive.choices();
        let filled = match made {
            Ok(made) => self.store(made, choices, stamp, took).await,
            // The source did not fail, so no throttle applies.
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
            // If this entry is still in L1, the refresh did not replace it: wait for the throttle.
            let fail_safe = call.options.fail_safe.unwrap_or_default();
            entry.meta.rearm(node.now() + fail_safe.throttle);
        }
        if let (false, FillMode::Replace { load_lock: Some(load_lock), .. }, Some(l2)) =
            (filled, mode, &node.l2)
            && !sabotaged!(LoadLockNotReleased)
        {
            // Best effort: the load lock expires on its own.
            let limit = call.options.l2_hard_timeout;
            let _ = l2.release(&call.key, load_lock, limit).await;
        }
    }

    /// The stale value that callers may get if their own options allow it.
    fn candidate(&self) -> Option<ErasedEntry> {
        let (node, call) = (&self.guard.node, &self.call);
        // If L2 was not asked, the L1 copy may be served even if the leader skipped L1.
        let l2_not_asked = node.records().is_none() || self.mode == FillMode::Degraded;
        let local = || node.l1.get(call.hash, &call.key).filter(|_| l2_not_asked);
        let entry = self.known.clone().map_or_else(local, |entry| Some(entry as ErasedEntry))?;
        let verdict = judge_record(node, &call.key, entry.meta());
        let removed = matches!(verdict, Verdict::Hidden(_)) && !sabotaged!(FailSafeIgnoresHard);
        (!removed).then_some(entry)
    }

    /// The stale value that the leader's options allow now.
    fn fallback(&self) -> Option<Arc<Entry<T>>> {
        let (node, call) = (&self.guard.node, &self.call);
        let entry = self.known.as_ref()?;
        let verdict = judge_record(node, &call.key, &entry.meta);
        let may = may_serve_stale(&entry.meta, verdict, &call.options, node.now());
        may.then(|| Arc::clone(entry))
    }

    /// Runs the factory until it ends, reaches its deadline, or is stopped.
    async fn make(
        &self,
        factory: Factory<T>,
        context: FactoryContext<T>,
    ) -> Result<Made<T>, (Error, Cause)> {
        let node = &*self.guard.node;
        let place = node.place(Some(&self.call.key));
        let deadline = self.call.options.factory_deadline;
        let too_long = |what: String| Error::new(ErrorKind::FactoryTimeout, place.clone(), what);
        tokio::select! {
            biased;
            () = self.guard.flight.stop.notified() => {
                if self.guard.flight.callers.have_abandoned() {
                    let what = "all callers left, and cancel_when_abandoned is on";
                    return Err((too_long(what.to_owned()), Cause::Abandoned));
                }
                let what = "its caller timed out, and background_completion is off";
                Err((too_long(what.to_owned()), Cause::Stopped))
            }
            result = crate::factory::run(factory, context, &place) => {
                result.map_err(|error| (error, Cause::Load))
            }
            () = sleep(deadline) => {
                let what = format!("it exceeded its deadline of {deadline:?}");
                Err((too_long(what), Cause::Deadline(deadline)))
            }
            never = self.renew_load_lock() => match never {},
        }
    }

    /// Renews the load lock after every third of its TTL, until the future is dropped.
    async fn renew_load_lock(&self) -> Infallible {
        let node = &*self.guard.node;
        if let (FillMode::Replace { load_lock: Some(load_lock), .. }, Some(l2)) =
            (self.mode, &node.l2)
        {
            let ttl = node.settings.load_lock_ttl;
            loop {
                sleep(ttl / 3).await;
                let limit = self.call.options.l2_hard_timeout;
                let ttl_ms = crate::clock::millis(ttl);
                let key = &self.call.key;
                let _ = l2.renew(key, load_lock, ttl_ms, limit).await;
            }
        }
        std::future::pending().await
    }

    /// Completes with a failure.
    ///
    /// The stale value that the leader gets holds the throttle of the factory; joined callers that
    /// get it may extend the throttle.
    fn fail(self, error: Error, cause: Cause, choices: &Choices) {
        let node = Arc::clone(&self.guard.node);
        let retry_at = choices.options.fail_safe.map(|f| node.now() + f.throttle);
        let (stale, fallback) = (self.candidate(), self.fallback());
        // Joined callers that get this value store their throttle in it as well.
        let mut kept = stale.clone().filter(|_| self.guard.flight.callers.are_many());
        if let (Some(entry), Some(retry_at)) = (fallback.or(self.default), retry_at) {
            tracing::warn!(target: TARGET, %error, "factory failed; serving a stale value");
            let fail_safe = &node.counters.fail_safe;
            node.note(fail_safe, &self.call.key, |key| Event::FailSafe { key });
            entry.meta.throttle(retry_at);
            kept = Some(entry);
        }
        self.guard.fail(Failure { error, stale, cause }, kept);
    }

    /// Stores the factory's result where the options allow; true if L2 stored it.
    async fn store(
        self,
        made: Made<T>,
        mut choices: Choices,
        stamp: Stamp,
        took: Duration,
    ) -> bool {
        let Self { coded, guard, call, mode, known, .. } = self;
        let node = Arc::clone(&guard.node);
        let (value, removed) = match (made, known) {
            (Made::Value(value), _) => (Shared::Own(value), false),
            (Made::Confirmed, Some(known)) => {
                choices.confirm(&known.meta);
                let verdict = judge_record(&node, &call.key, &known.meta);
                (Shared::of(&known), matches!(verdict, Verdict::Hidden(_)))
            }
            (Made::Confirmed, None) => return false,
        };
        if choices.options.duration < SHORTEST {
            // Only a factory can choose that: the call's own options are checked before it runs.
            choices.skip_store = true;
            choices.options.duration = SHORTEST;
        }
        let place = node.place(Some(&call.key));
        let wrong = choices.options.validate(&place).err();
        if let Some(error) = wrong.or_else(|| node.check_tags(&call.key, &choices.tags).err()) {
            guard.fail(Failure { error, stale: None, cause: Cause::Load }, None);
            return false;
        }
        let (degraded, shared) = (mode == FillMode::Degraded, mode.writes_l2());
        let new_entry = NewEntry { stamp, took, degraded, shared };
        let (mut meta, deadlines) = new_entry.meta(&node, &call.key, &choices);
        if let FillMode::Beside(version) = mode {
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
        let FillMode::Replace { expected, displaces, .. } = mode else {
            guard.complete(entry, Source::Factory);
            return false;
        };
        if options.skip_l2_write || node.flights.is_fenced(&guard.flight) {
            guard.complete(entry, Source::Factory);
            return false;
        }
        match encode(&coded, &entry, deadlines, took, displaces) {
            Ok(record) => {
                let fill = Fill { node: &node, call: &call, options, entry };
                fill.put(guard, expected, record).await
            }
            Err(error) => {
                node.unstored(&error);
                guard.complete(entry, Source::Factory);
                false
            }
        }
    }
}
