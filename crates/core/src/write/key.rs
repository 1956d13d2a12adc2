//! Writes of one key.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::encode::encode;
use super::{Reach, Receipt};
use crate::backplane::message::KeyOp;
use crate::cache::Inner;
use crate::entry::{Entry, Held, Value};
use crate::error::{Error, ErrorKind};
use crate::factory::Choices;
use crate::flight::Fence;
use crate::l2::access::{Access, Call};
use crate::l2::{Announce, Codec, L2, L2Error, L2ErrorKind};
use crate::options::EntryOptions;
use crate::protocol::ledger::{Strength, Target};
use crate::protocol::{KeyHash, Version};
use crate::read::{new_meta, synced};
use crate::recovery::Queued;

/// Stores a value, whatever is there.
pub(crate) async fn set<T: Value, C: Codec<T>>(
    inner: &Inner<C>,
    key: &str,
    value: T,
    options: EntryOptions,
    tags: Vec<String>,
) -> Result<Receipt, Error> {
    options.validate(&inner.place(Some(key)))?;
    inner.check_tags(key, &tags)?;
    let (hash, came) = (KeyHash::of(key), Instant::now());
    if inner.l2.as_ref().is_some_and(|l2| !l2.is_open()) {
        // A record stamped before the ledger was met would be valid nowhere.
        synced(inner, options.l2_hard_timeout).await;
    }
    let stamp = inner.node.stamp(inner.now());
    let choices = Choices { options, tags, skip_store: false };
    let meta = new_meta(inner, key, &choices, stamp, None);
    let entry = Arc::new(Entry { meta, value });
    let version = entry.meta.version;
    let Some(l2) = &inner.l2 else {
        let held: Held = entry;
        inner.flights.hear(hash, version, || inner.l1.insert(hash, held));
        return Ok(Receipt::local());
    };
    let record = encode(inner, &entry)?;
    let write = Write { inner, l2, key, hash, version, op: KeyOp::Written };
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.invalidate(hash));
    let waiting = inner.recovery.get(key);
    // What the wait for the ledger has cost comes off: one hard timeout for the call.
    let limit = choices.options.l2_hard_timeout.saturating_sub(came.elapsed());
    let result = {
        let latest = l2.latest(limit);
        write.send(limit, |store, key, announce| store.set(key, record, latest, announce)).await
    };
    let superseded = fence.end(|heard| {
        if result.l2.is_err() {
            entry.meta.shorten(inner.now() + inner.settings.coherence_lease);
        }
        let keep = heard.allows(version);
        if keep {
            inner.l1.insert(hash, entry);
        } else {
            inner.l1.keep_only(hash, version);
        }
        !keep
    });
    if let (Ok(()), Some(waiting)) = (&result.l2, waiting) {
        inner.recovery.settle(key, waiting.version);
    }
    write.conclude(result, Strength::Hard, superseded, &choices.options)
}

/// Removes a key, as a fallback too.
pub(crate) async fn remove<C: Sync>(
    inner: &Inner<C>,
    key: &str,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), inner.entropy.version());
    let Some(l2) = &inner.l2 else {
        inner.flights.hear(hash, version, || inner.l1.invalidate(hash));
        inner.flights.removed(hash);
        return Ok(Receipt::local());
    };
    let write = Write { inner, l2, key, hash, version, op: KeyOp::Removed };
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.invalidate(hash));
    inner.flights.removed(hash);
    let limit = options.l2_hard_timeout;
    let result = write.send(limit, |store, key, announce| store.remove(key, announce)).await;
    fence.end(|_| inner.l1.invalidate(hash));
    inner.flights.removed(hash);
    write.conclude(result, Strength::Hard, false, options)
}

/// Makes a key stale; it may still stand in.
pub(crate) async fn expire<C: Sync>(
    inner: &Inner<C>,
    key: &str,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), inner.entropy.version());
    let Some(l2) = &inner.l2 else {
        inner.flights.hear(hash, version, || inner.l1.expire(hash));
        return Ok(Receipt::local());
    };
    let write = Write { inner, l2, key, hash, version, op: KeyOp::Expired };
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.expire(hash));
    let limit = options.l2_hard_timeout;
    let result =
        write.send(limit, |store, key, announce| store.expire(key, version, announce)).await;
    fence.end(|_| inner.l1.expire(hash));
    write.conclude(result, Strength::Soft, false, options)
}

/// One write of one key.
struct Write<'a, C> {
    inner: &'a Inner<C>,
    l2: &'a Access,
    key: &'a str,
    hash: KeyHash,
    version: Version,
    op: KeyOp,
}

struct Sent {
    l2: Result<(), L2Error>,
    backplane: Reach,
}

impl<C: Sync> Write<'_, C> {
    /// Writes and announces: in one step if L2 can, else saying before and after.
    async fn send(
        &self,
        limit: Duration,
        write: impl for<'x> FnOnce(&'x dyn L2, &'x str, Option<Announce>) -> Call<'x, ()> + Send,
    ) -> Sent {
        let Some(bus) = &self.inner.bus else {
            let l2 = self.l2.on(self.key, limit, |store, key| write(store, key, None)).await;
            return Sent { l2, backplane: Reach::Skipped };
        };
        // While L2 is left alone nothing is sent, so nothing may take a number in the sequence.
        let announce = || bus.announce(self.op, self.version, self.hash);
        let (seq, announce) = if self.l2.is_open() { None } else { announce() }.unzip();
        let before = bus.publish_key(KeyOp::Before, self.version, self.hash, limit).await;
        let l2 = self.l2.on(self.key, limit, |store, key| write(store, key, announce)).await;
        let after = match &l2 {
            Ok(()) => bus.publish_key(self.op, self.version, self.hash, limit).await,
            Err(_) => Ok(()),
        };
        if let (Err(error), Some(seq)) = (&l2, seq)
            && !error.is_unknown()
        {
            bus.void(seq, limit).await;
        }
        let backplane = match (&l2, before.and(after)) {
            (Err(_), _) => reach_of(&l2, self.l2),
            (Ok(()), Ok(())) => Reach::Done,
            // The gap in this node's sequence tells the others that they missed something.
            (Ok(()), Err(_)) => Reach::Unknown,
        };
        Sent { l2, backplane }
    }

    /// Queues what L2 has not confirmed (W2), and says how far the write got (W3).
    fn conclude(
        &self,
        sent: Sent,
        strength: Strength,
        superseded: bool,
        options: &EntryOptions,
    ) -> Result<Receipt, Error> {
        let mut reach = reach_of(&sent.l2, self.l2);
        if let Err(error) = &sent.l2 {
            self.inner.counters.l2_errors.add();
            if error.is_unknown() {
                self.inner.hearsay.straggle(self.inner.now());
            }
            self.inner.queue(self.key, Queued { strength, version: self.version });
            if options.require_propagation {
                let place = self.inner.place(Some(self.key));
                let what = "it is queued as an invalidation and holds on this node";
                let source = error.clone();
                return Err(Error::with_source(ErrorKind::NotPropagated, place, what, source));
            }
        } else if superseded {
            reach = Reach::Superseded;
        }
        let receipt = Receipt::new(reach, sent.backplane);
        if options.require_propagation && !receipt.is_propagated() {
            let what = "L2 has it, but its notification may be lost";
            return Err(self.inner.error(ErrorKind::NotPropagated, self.key, what));
        }
        Ok(receipt)
    }
}

fn reach_of(result: &Result<(), L2Error>, l2: &Access) -> Reach {
    match result {
        Ok(()) => Reach::Done,
        Err(error) if !error.is_unknown() => Reach::Queued,
        Err(error) if error.kind() == L2ErrorKind::Disconnected && l2.is_open() => Reach::Queued,
        Err(_) => Reach::Unknown,
    }
}

impl<C> Inner<C> {
    /// Queues an invalidation that L2 has not heard of; a full queue becomes a clear.
    pub(crate) fn queue(&self, key: &str, queued: Queued) {
        self.counters.queued.add();
        if let Some(strength) = self.recovery.queue(key, queued) {
            self.counters.recovery_overflows.add();
            tracing::warn!("the recovery queue is full; it becomes a clear of this cache");
            self.node.begin(super::removal::new(self, strength, vec![Target::Everything]));
        }
    }
}
