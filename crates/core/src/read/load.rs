//! Loading: the factory under its limits, and the compare-and-put of what it brings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Call;
use super::lead::Landing;
use super::probe::Base;
use crate::backplane::message::KeyOp;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{Cached, Entry, Held, Lives, Meta, Source, Stamp, Value};
use crate::error::{Error, ErrorKind};
use crate::factory::{Adaptive, Choices, Factory, FactoryContext};
use crate::flight::Progress;
use crate::l2::{Codec, Record};
use crate::protocol::Version;
use crate::protocol::record::Put;
use crate::write::encode::encode;

/// One run of a factory, with what its result may overwrite.
pub(super) struct Load<T, C> {
    pub(super) landing: Landing<C>,
    pub(super) call: Arc<Call>,
    pub(super) base: Base,
    pub(super) fallback: Option<Arc<Entry<T>>>,
}

impl<T: Value, C: Codec<T>> Load<T, C> {
    /// Runs the factory and lands what comes of it. A lease that is not used is given back.
    pub(super) async fn run(self, factory: Factory<T>) {
        let inner = Arc::clone(&self.landing.inner);
        let (base, call) = (self.base, Arc::clone(&self.call));
        let adaptive = Adaptive::new(call.options.clone(), call.tags.clone());
        let now = inner.now();
        // Again, since the ledger may have been met, or repaired, while L2 was asked (R1).
        let stamp = inner.node.stamp(now);
        let stale = self.fallback.clone().map(|e| Cached::new(e, now, Source::FailSafe, true));
        let context = FactoryContext::new(&call.key, stale, adaptive.clone());
        let stand_in = self.fallback.clone().map(|entry| entry as Held);
        self.landing.flight.progress.send_replace(Progress::Loading(stand_in));
        inner.counters.factory_calls.add();
        let filled = match self.make(factory, context).await {
            Ok(value) => self.store(value, adaptive.choices(), stamp).await,
            Err(error) => {
                self.fail(error);
                false
            }
        };
        if let (false, Base::Over { lease: Some(lease), .. }, Some(l2)) = (filled, base, &inner.l2)
        {
            // Best effort: the lease ends by itself.
            let limit = call.options.l2_hard_timeout;
            let _ = l2.on(&call.key, limit, |store, key| store.release(key, lease)).await;
        }
    }

    /// The factory, until it ends, runs into its deadline, or is stopped.
    async fn make(&self, factory: Factory<T>, context: FactoryContext<T>) -> Result<T, Error> {
        let inner = &*self.landing.inner;
        let place = inner.place(Some(&self.call.key));
        let deadline = self.call.options.factory_deadline;
        tokio::select! {
            biased;
            result = crate::factory::run(factory, context, &place) => result,
            () = sleep(deadline) => {
                let what = format!("it ran into its deadline of {deadline:?}");
                Err(Error::new(ErrorKind::FactoryTimeout, place, what))
            }
            () = self.landing.flight.stop.notified() => {
                let what = "its caller gave up and background completion is off";
                Err(Error::new(ErrorKind::FactoryTimeout, place, what))
            }
            never = self.keep_lease() => match never {},
        }
    }

    /// Renews the lease every third of its life, for ever.
    async fn keep_lease(&self) -> Infallible {
        let inner = &*self.landing.inner;
        if let (Base::Over { lease: Some(lease), .. }, Some(l2)) = (self.base, &inner.l2) {
            let ttl = inner.settings.lease;
            loop {
                sleep(ttl / 3).await;
                let limit = self.call.options.l2_hard_timeout;
                let ttl_ms = crate::clock::millis(ttl);
                let key = &self.call.key;
                let _ = l2.on(key, limit, |store, key| store.renew(key, lease, ttl_ms)).await;
            }
        }
        std::future::pending().await
    }

    /// Fail-safe, or the error.
    fn fail(self, error: Error) {
        self.landing.inner.counters.factory_failures.add();
        match (self.fallback, self.call.options.fail_safe) {
            (Some(entry), Some(fail_safe)) => {
                tracing::warn!(%error, "factory failed; answering with a stale value");
                entry.meta.throttle(self.landing.inner.now() + fail_safe.throttle);
                self.landing.stand(entry, Some(error));
            }
            _ => self.landing.fail(error),
        }
    }

    /// Keeps what the factory made, where it may be kept; true if L2 took it.
    async fn store(self, value: T, choices: Choices, stamp: Stamp) -> bool {
        let Self { landing, call, base, .. } = self;
        let inner = Arc::clone(&landing.inner);
        let place = inner.place(Some(&call.key));
        let wrong = choices.options.validate(&place).err();
        if let Some(error) = wrong.or_else(|| inner.check_tags(&call.key, &choices.tags).err()) {
            landing.fail(error);
            return false;
        }
        let dark_until = (base == Base::Dark).then(|| stamp.at + inner.settings.coherence_lease);
        let entry = |until| {
            let meta = new_meta(&inner, &call.key, &choices, stamp, until);
            move |value| Arc::new(Entry { meta, value })
        };
        if choices.skip_store {
            landing.land_unstored(entry(dark_until)(value));
            return false;
        }
        if inner.flights.is_fenced(&landing.flight) {
            landing.land(entry(dark_until)(value), Source::Factory);
            return false;
        }
        let Base::Over { expected, .. } = base else {
            landing.land(entry(dark_until)(value), Source::Factory);
            return false;
        };
        let entry = entry(None)(value);
        match encode(&inner, &entry) {
            Ok(record) => put(landing, &call, entry, expected, record).await,
            Err(error) => {
                inner.counters.l2_unencodable.add();
                tracing::warn!(%error, "value stays in L1");
                landing.land(entry, Source::Factory);
                false
            }
        }
    }
}

/// Compare-and-put: over exactly the version that was seen.
async fn put<T: Value, C: Send + Sync>(
    landing: Landing<C>,
    call: &Call,
    entry: Arc<Entry<T>>,
    expected: Version,
    record: Record,
) -> bool {
    let inner = Arc::clone(&landing.inner);
    let Some(l2) = &inner.l2 else { return false };
    let (version, limit) = (entry.meta.version, call.options.l2_hard_timeout);
    inner.flights.own(&landing.flight, version);
    let announced =
        inner.bus.as_ref().and_then(|bus| bus.announce(KeyOp::Written, version, call.hash));
    let (seq, announce) = announced.unzip();
    let waiting = inner.recovery.get(&call.key);
    let put = l2.on(&call.key, limit, |store, key| store.put(key, expected, record, announce));
    match put.await {
        Ok(Put::Stored) => {
            // L2 holds this now: no copy of anything else may stay, whatever becomes of this one.
            let keep_only = || inner.l1.keep_only(call.hash, version);
            inner.flights.hear(call.hash, version, keep_only);
            let kept = landing.land(entry, Source::Factory);
            if let Some(waiting) = waiting.filter(|_| kept) {
                // This load began after the invalidation that waits, or it would not be kept.
                inner.recovery.settle(&call.key, waiting.version, inner.now());
            }
            if let Some(bus) = &inner.bus {
                let _ = bus.publish_key(KeyOp::Written, version, call.hash, limit).await;
            }
            true
        }
        Ok(Put::Refused) => {
            landing.land_refused(entry);
            if let (Some(bus), Some(seq)) = (&inner.bus, seq) {
                bus.void(seq, limit).await;
            }
            false
        }
        Err(error) => {
            inner.counters.l2_errors.add();
            tracing::debug!(%error, "fill failed; the value stays here for a while");
            let until = entry.meta.stamp.at + inner.settings.coherence_lease;
            entry.meta.shorten(until);
            landing.land(entry, Source::Factory);
            error.is_unknown()
        }
    }
}

/// The metadata of a new entry: its lives begin now, its stamp is the flight's.
pub(crate) fn new_meta<C>(
    inner: &Inner<C>,
    key: &str,
    choices: &Choices,
    stamp: Stamp,
    until: Option<Moment>,
) -> Meta {
    let (now, options) = (inner.now(), &choices.options);
    let longest = inner.settings.max_lifetime;
    let fresh = options.duration.min(longest);
    let kept = options.fail_safe.map_or(Duration::ZERO, |f| f.max_duration.min(longest));
    let logical = until.map_or(now + fresh, |until| until.min(now + fresh));
    let lives = Lives { created: now, logical, physical: now + fresh.max(kept) };
    let tags = inner.node.intern(choices.tags.iter().map(String::as_str));
    Meta::new(key, inner.entropy.version(), tags, stamp, lives, options.weight)
}
