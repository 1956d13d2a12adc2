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
use crate::l2::{Announce, Codec, L2, L2Error};
use crate::options::EntryOptions;
use crate::protocol::ledger::{Strength, Target};
use crate::protocol::{KeyHash, Version};
use crate::read::{new_meta, synced};
use crate::recovery::Queued;

/// How long, beyond the limit of its call, a `set` of unknown outcome may still run. Until then nothing
/// settles the invalidation that follows it.
const STRAGGLING: Duration = Duration::from_secs(2);

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
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.invalidate(hash));
    // What the wait for the ledger has cost comes off: one hard timeout for the call.
    let limit = choices.options.l2_hard_timeout.saturating_sub(came.elapsed());
    let op = KeyOp::Written;
    let write = Write { inner, l2, key, version, op, limit, answered: false };
    let waiting = inner.recovery.get(key);
    let result = match l2.latest(limit) {
        // Without a latest moment it could run at any time; nobody would vouch for it anyway.
        None => write.refuse(L2Error::unmet()),
        latest => write.send(|store, key, ann| store.set(key, record, latest, ann)).await,
    };
    let superseded = fence.end(|heard| {
        if result.l2.is_err() {
            entry.meta.shorten(stamp.at + inner.settings.coherence_lease);
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
        inner.recovery.settle(key, waiting.version, inner.now());
    }
    conclude(inner, key, result, superseded, &choices.options)
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
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.invalidate(hash));
    let (op, limit) = (KeyOp::Removed, options.l2_hard_timeout);
    let write = Write { inner, l2, key, version, op, limit, answered: false };
    inner.flights.removed(hash);
    let result = write.send(|store, key, announce| store.remove(key, announce)).await;
    fence.end(|_| inner.l1.invalidate(hash));
    inner.flights.removed(hash);
    conclude(inner, key, result, false, options)
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
    let fence = Fence::begin(inner, hash, Some(version), || inner.l1.expire(hash));
    let (op, limit) = (KeyOp::Expired, options.l2_hard_timeout);
    let write = Write { inner, l2, key, version, op, limit, answered: false };
    let result = write.send(|store, key, announce| store.expire(key, version, announce)).await;
    fence.end(|_| inner.l1.expire(hash));
    conclude(inner, key, result, false, options)
}

/// One write of one key. Dropped before L2 has answered, it is queued: what its caller began holds,
/// whether the caller waits or not (W2).
struct Write<'a, C> {
    inner: &'a Inner<C>,
    l2: &'a Access,
    key: &'a str,
    version: Version,
    op: KeyOp,
    limit: Duration,
    answered: bool,
}

struct Sent {
    l2: Result<(), L2Error>,
    reach: Reach,
    backplane: Reach,
}

impl<C: Sync> Write<'_, C> {
    /// Writes and announces: in one step if L2 can, else saying before and after. What L2 has not
    /// confirmed is queued when this returns, before any fence ends.
    async fn send(
        mut self,
        write: impl for<'x> FnOnce(&'x dyn L2, &'x str, Option<Announce>) -> Call<'x, ()> + Send,
    ) -> Sent {
        let (hash, left_alone) = (KeyHash::of(self.key), self.l2.is_open());
        let limit = self.limit;
        let Some(bus) = &self.inner.bus else {
            let l2 = self.l2.on(self.key, limit, |store, key| write(store, key, None)).await;
            let reach = self.answer(&l2, left_alone);
            return Sent { l2, reach, backplane: Reach::Skipped };
        };
        // While L2 is left alone nothing is sent, so nothing may take a number in the sequence.
        let announce = || bus.announce(self.op, self.version, hash);
        let (seq, announce) = if left_alone { None } else { announce() }.unzip();
        let before = bus.publish_key(KeyOp::Before, self.version, hash, limit).await;
        let l2 = self.l2.on(self.key, limit, |store, key| write(store, key, announce)).await;
        let reach = self.answer(&l2, left_alone);
        let after = match &l2 {
            Ok(()) => bus.publish_key(self.op, self.version, hash, limit).await,
            Err(_) => Ok(()),
        };
        if let (Err(error), Some(seq)) = (&l2, seq)
            && !error.is_unknown()
        {
            bus.void(seq, limit).await;
        }
        let backplane = match (&l2, before.and(after)) {
            (Err(_), _) => reach,
            (Ok(()), Ok(())) => Reach::Done,
            // The gap in this node's sequence tells the others that they missed something.
            (Ok(()), Err(_)) => Reach::Unknown,
        };
        Sent { l2, reach, backplane }
    }

    /// Sends nothing, and so tells the breaker nothing.
    fn refuse(mut self, error: L2Error) -> Sent {
        let l2 = Err(error);
        let reach = self.answer(&l2, false);
        Sent { l2, reach, backplane: self.inner.bus.as_ref().map_or(Reach::Skipped, |_| reach) }
    }

    /// L2 has answered, or will not: how far the write got (W3).
    fn answer(&mut self, l2: &Result<(), L2Error>, left_alone: bool) -> Reach {
        self.answered = true;
        let Err(error) = l2 else { return Reach::Done };
        self.inner.counters.l2_errors.add();
        let unknown = error.is_unknown() && !left_alone;
        self.queue(unknown);
        if unknown { Reach::Unknown } else { Reach::Queued }
    }
}

impl<C> Write<'_, C> {
    fn queue(&self, unknown: bool) {
        let now = self.inner.now();
        let strength = match self.op {
            KeyOp::Expired => Strength::Soft,
            _ => Strength::Hard,
        };
        let mut not_before = now;
        if unknown {
            self.inner.hearsay.straggle(now);
            if self.op == KeyOp::Written {
                not_before = now + self.limit + STRAGGLING;
            }
        }
        self.inner.queue(self.key, Queued { strength, version: self.version, not_before });
    }
}

impl<C> Drop for Write<'_, C> {
    fn drop(&mut self) {
        if !self.answered {
            self.queue(true);
        }
    }
}

/// Says how far a write got, or that it is not far enough for its caller.
fn conclude<C>(
    inner: &Inner<C>,
    key: &str,
    sent: Sent,
    superseded: bool,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let reach = if superseded && sent.l2.is_ok() { Reach::Superseded } else { sent.reach };
    let receipt = Receipt::new(reach, sent.backplane);
    if !options.require_propagation || receipt.is_propagated() {
        return Ok(receipt);
    }
    let place = inner.place(Some(key));
    let Err(error) = sent.l2 else {
        let what = "L2 has it, but its notification may be lost";
        return Err(Error::new(ErrorKind::NotPropagated, place, what));
    };
    let what = "it is queued as an invalidation and holds on this node";
    Err(Error::with_source(ErrorKind::NotPropagated, place, what, error))
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
