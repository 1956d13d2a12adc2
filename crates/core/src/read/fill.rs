//! The end of a load: metadata for what it brought, and the compare-and-put of it.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::lead::CompletionGuard;
use crate::backplane::message::KeyOp;
use crate::backplane::outgoing::Outgoing;
use crate::cache::Inner;
use crate::entry::{Entry, EntryFlags, Meta, RecordTtls, Source, Stamp, Value, deadlines};
use crate::factory::Choices;
use crate::l2::{L2Error, Record};
use crate::options::EntryOptions;
use crate::protocol::Version;
use crate::protocol::record::Put;

/// How an entry comes to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    /// What the node knew before.
    pub(crate) stamp: Stamp,
    /// How long its factory took.
    pub(crate) took: Duration,
    /// L2 does not answer: what is made stays fresh for one coherence TTL at most.
    pub(crate) degraded: bool,
    /// It is to be stored in L2.
    pub(crate) shared: bool,
}

impl NewEntry {
    /// The metadata of a new entry, and the deadlines of its record. They begin now; the stamp is older.
    pub(crate) fn meta<C>(
        self,
        inner: &Inner<C>,
        key: &str,
        choices: &Choices,
    ) -> (Meta, RecordTtls) {
        let (now, options) = (inner.now(), &choices.options);
        let shared = self.shared && !options.skip_l2_write;
        let jitter = match crate::clock::nanos(options.jitter) {
            0 => Duration::ZERO,
            most => Duration::from_nanos(inner.entropy.below(most.saturating_add(1))),
        };
        let (mut of_entry, of_record) =
            deadlines(options, inner.settings.max_lifetime, jitter, now, shared);
        let until = self.stamp.at + inner.settings.coherence_ttl;
        if self.degraded {
            of_entry.logical = of_entry.logical.min(until);
        }
        let own = inner.records().is_some() && options.skip_l2_write;
        let flags = EntryFlags::new(options, of_entry, self.took, own);
        let tags = inner.node.intern(choices.tags.iter().map(String::as_str));
        let version = inner.entropy.version();
        let (stamp, weight) = (self.stamp, options.weight);
        let mut meta = Meta::new(key, version, tags, stamp, of_entry, flags, weight);
        meta.validators = choices.validators.clone().boxed();
        if self.degraded {
            meta.shorten(until);
        }
        (meta, of_record)
    }
}

/// An entry on its way into L2, and to its callers.
pub(super) struct Fill<'a, T, C> {
    pub(super) inner: &'a Inner<C>,
    pub(super) call: &'a Call,
    pub(super) options: &'a EntryOptions,
    pub(super) entry: Arc<Entry<T>>,
}

impl<T: Value, C: Send + Sync> Fill<'_, T, C> {
    /// Compare-and-put, over exactly the version that was seen, and lands; true if L2 took it.
    pub(super) async fn put(
        self,
        guard: CompletionGuard<C>,
        expected: Version,
        record: Record,
    ) -> bool {
        let inner = self.inner;
        let (hash, version) = (self.call.hash, self.entry.meta.version);
        inner.flights.own(&guard.flight, version);
        let waiting = inner.recovery.get(&self.call.key);
        let entry = Arc::clone(&self.entry);
        let (mut guard, mut kept) = (Some(guard), false);
        if self.options.background_l2 {
            kept = guard.take().is_some_and(|l| l.complete(Arc::clone(&entry), Source::Factory));
        }
        let mut outgoing = self.outgoing();
        match self.send(&mut outgoing, expected, record).await {
            Ok(Put::Stored) => {
                // L2 holds this now: no copy of anything else may stay, whatever becomes of this one.
                inner.recovery.own.replaced(hash);
                inner.flights.receive(hash, version, || inner.l1.keep_only(hash, version));
                kept |= guard.is_some_and(|l| l.complete(entry, Source::Factory));
                if let Some(waiting) = waiting.filter(|_| kept) {
                    // This load began after the invalidation that waits, or it would not be kept.
                    inner.recovery.settle(&self.call.key, waiting.version, inner.now());
                }
                if let Some(outgoing) = &mut outgoing {
                    outgoing.confirm().await;
                }
                true
            }
            Ok(Put::Refused) => {
                match guard {
                    Some(guard) => guard.complete_refused(entry),
                    None => self.withdraw(),
                }
                false
            }
            Err(error) => {
                tracing::debug!(%error, "fill failed; the value stays here for a while");
                entry.meta.shorten_to_coherence_ttl(inner.settings.coherence_ttl);
                if let Some(guard) = guard {
                    guard.complete(entry, Source::Factory);
                }
                error.is_unknown()
            }
        }
    }

    async fn send(
        &self,
        outgoing: &mut Option<Outgoing<'_, C>>,
        expected: Version,
        record: Record,
    ) -> Result<Put, L2Error> {
        let Some(l2) = &self.inner.l2 else { return Ok(Put::Refused) };
        if l2.is_open(&self.call.key) {
            // Nothing is sent, so nothing may take a number in the sequence.
            return Err(L2Error::circuit_open());
        }
        let announce = outgoing.as_mut().and_then(Outgoing::announce);
        if let Some(outgoing) = outgoing {
            outgoing.before(false).await?;
        }
        let (key, limit) = (&self.call.key, self.options.l2_hard_timeout);
        let put = l2.on(key, limit, |store, key| store.put(key, expected, record, announce)).await;
        if let Some(outgoing) = outgoing {
            outgoing.answered(&put).await;
        }
        put
    }

    /// What the other nodes are told, if L2 does not emit them.
    fn outgoing(&self) -> Option<Outgoing<'_, C>> {
        let (version, limit) = (self.entry.meta.version, self.options.l2_hard_timeout);
        Outgoing::new(self.inner, KeyOp::Written, version, self.call.hash, limit)
            .filter(|_| !self.options.skip_backplane)
    }

    /// The callers have had their answer, but L2 holds something else: the copy goes.
    fn withdraw(&self) {
        let (inner, hash) = (self.inner, self.call.hash);
        inner.counters.fill_refused.add();
        let other = inner.entropy.version();
        inner.flights.receive(hash, other, || inner.l1.keep_only(hash, other));
    }
}
