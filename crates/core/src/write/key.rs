//! Writes of one key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::encode::encode;
use super::send::{Sent, Write};
use super::{Reach, Receipt};
use crate::backplane::message::KeyOp;
use crate::cache::{Inner, Relayed};
use crate::entry::{Entry, Shared, Value};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::factory::Choices;
use crate::flight::Fence;
use crate::l2::{Codec, L2Error, Record};
use crate::options::EntryOptions;
use crate::protocol::KeyHash;
use crate::protocol::ledger::Strength;
use crate::read::{Make, synced};
use crate::recovery::Turn;
use crate::telemetry::spans;

/// Stores a value, whatever is there.
pub(crate) async fn set<T: Value, C: Codec<T>>(
    inner: &Arc<Inner<C>>,
    key: &str,
    value: T,
    options: EntryOptions,
    tags: Vec<String>,
) -> Result<Receipt, Error> {
    options.validate(&inner.place(Some(key)))?;
    inner.check_tags(key, &tags)?;
    let came = Instant::now();
    if inner.l2.as_ref().is_some_and(|l2| !l2.is_open()) {
        // A record stamped before the ledger was met would be valid nowhere.
        synced(inner, options.l2_hard_timeout).await;
    }
    let shares = Shares::of(inner, &options);
    let dark = shares != Shares::Nothing && !inner.node.is_synced();
    let stamp = inner.node.stamp(inner.now());
    // What the wait for the ledger has cost comes off: one hard timeout for the call.
    let limit = options.l2_hard_timeout.saturating_sub(came.elapsed());
    let make = Make { stamp, took: Duration::ZERO, dark, shared: shares == Shares::Records };
    let choices = Choices::new(options, tags);
    let (meta, lives) = make.meta(inner, key, &choices);
    let entry = Arc::new(Entry { meta, value: Shared::Own(value) });
    let options = choices.options;
    let record = match shares {
        Shares::Records => Some(encode(inner, &entry, lives, make.took)?),
        Shares::Notices | Shares::Nothing => None,
    };
    inner.note(&inner.counters.sets, key, |key| Event::Set { key, filled: false });
    if shares == Shares::Nothing {
        store_here(inner, entry);
        return Ok(Receipt::local());
    }
    inner.relay(|| Relayed::Key(key.into(), Strength::Hard));
    if goes_on(&options) {
        let (going, turn) = Going::new(inner, key, Strength::Hard);
        store_here(inner, Arc::clone(&entry));
        return in_background(inner, async move {
            let Going { inner, key } = &going;
            drop(store(inner, key, entry, record, &options, limit, Some(turn)).await);
        });
    }
    let turn = inner.recovery.turn(key, Strength::Hard);
    store(inner, key, entry, record, &options, limit, turn).await
}

/// The local part alone.
fn store_here<T: Value, C>(inner: &Inner<C>, entry: Arc<Entry<T>>) {
    let (hash, version) = (KeyHash::of(&entry.meta.key), entry.meta.version);
    inner.flights.hear(hash, version, || inner.l1.insert(hash, entry));
}

/// Stores an entry here and in L2.
async fn store<T: Value, C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    key: &str,
    entry: Arc<Entry<T>>,
    record: Option<Record>,
    options: &EntryOptions,
    limit: Duration,
    turn: Option<Turn>,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), entry.meta.version);
    let fence = match sabotaged!(NoFenceOnSet) {
        false => Fence::begin(inner, hash, Some(version), || inner.l1.keep_only(hash, version)),
        true => Fence::begin(inner, hash, None, || ()),
    };
    let write = Write::new(inner, key, version, KeyOp::Written, limit, options);
    let waiting = inner.recovery.get(key);
    #[cfg(feature = "sabotage")]
    let replayed = record.clone();
    let result = match write.turn(turn).await {
        Err(sent) => sent,
        Ok((write, _turn)) => match (record, inner.records()) {
            (Some(record), Some(l2)) => match write.latest(l2) {
                // Without a latest moment it could run at any time; nobody would vouch for it anyway.
                None => write.refuse(L2Error::unmet()),
                at => write.send(l2, |store, key, ann| store.set(key, record, at, ann)).await,
            },
            _ => write.notify().await,
        },
    };
    #[cfg(feature = "sabotage")]
    if sabotaged!(RecoveryReplaysValue) && result.l2.is_err() {
        replay(inner, key, replayed);
    }
    let superseded = fence.end(|heard| {
        if result.l2.is_err() {
            entry.meta.shorten_to_lease(inner.settings.coherence_lease);
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
    conclude(inner, key, result, superseded, options)
}

/// What recovery must never do: send a value again.
#[cfg(feature = "sabotage")]
fn replay<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>, key: &str, record: Option<Record>) {
    let (inner, key) = (Arc::clone(inner), key.to_owned());
    let owner = Arc::clone(&inner);
    let _ = owner.spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let (Some(l2), Some(record)) = (&inner.l2, record) {
            let set = l2
                .on(&key, Duration::from_secs(1), |store, key| store.set(key, record, None, None));
            let _ = set.await;
        }
    });
}

/// Removes a key, as a fallback too.
pub(crate) async fn remove<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    key: &str,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    inner.note(&inner.counters.removes, key, |key| Event::Remove { key });
    invalidate(inner, key, Strength::Hard, options).await
}

/// Makes a key stale; it may still stand in.
pub(crate) async fn expire<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    key: &str,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    inner.note(&inner.counters.expires, key, |key| Event::Expire { key });
    invalidate(inner, key, Strength::Soft, options).await
}

async fn invalidate<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    key: &str,
    strength: Strength,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let shares = Shares::of(inner, options);
    if shares != Shares::Nothing {
        inner.relay(|| Relayed::Key(key.into(), strength));
    }
    if shares != Shares::Nothing && !goes_on(options) {
        let turn = inner.recovery.turn(key, strength);
        return invalidate_everywhere(inner, key, strength, options, turn).await;
    }
    let going = (shares != Shares::Nothing).then(|| Going::new(inner, key, strength));
    let hash = KeyHash::of(key);
    inner.flights.hear(hash, inner.entropy.version(), || inner.l1.weaken(hash, strength));
    if strength == Strength::Hard {
        inner.flights.removed(hash);
    }
    let Some((going, turn)) = going else { return Ok(Receipt::local()) };
    let options = options.clone();
    in_background(inner, async move {
        let Going { inner, key } = &going;
        drop(invalidate_everywhere(inner, key, strength, &options, Some(turn)).await);
    })
}

async fn invalidate_everywhere<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    key: &str,
    strength: Strength,
    options: &EntryOptions,
    turn: Option<Turn>,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), inner.entropy.version());
    let weaken = || {
        inner.l1.weaken(hash, strength);
    };
    let fence = Fence::begin(inner, hash, Some(version), weaken);
    let op = if strength == Strength::Hard { KeyOp::Removed } else { KeyOp::Expired };
    let write = Write::new(inner, key, version, op, options.l2_hard_timeout, options);
    if strength == Strength::Hard {
        inner.flights.removed(hash);
    }
    let result = match write.turn(turn).await {
        Err(sent) => sent,
        Ok((write, _turn)) => match (inner.records(), strength) {
            (None, _) => write.notify().await,
            (Some(l2), Strength::Hard) => {
                write.send(l2, |store, key, ann| store.remove(key, ann)).await
            }
            (Some(l2), Strength::Soft) => {
                write.send(l2, |store, key, ann| store.expire(key, version, ann)).await
            }
        },
    };
    fence.end(|_| weaken());
    if strength == Strength::Hard {
        inner.flights.removed(hash);
    }
    conclude(inner, key, result, false, options)
}

/// What other nodes get of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shares {
    /// The record, and notice of it.
    Records,
    /// Notice alone: L2 holds the ledger and no values.
    Notices,
    /// Nothing: there is nobody, or the call leaves them out.
    Nothing,
}

impl Shares {
    pub(super) fn of<C>(inner: &Inner<C>, options: &EntryOptions) -> Self {
        match (inner.records(), &inner.bus) {
            _ if options.skip_l2_write => Self::Nothing,
            (Some(_), _) => Self::Records,
            (None, Some(_)) if !options.skip_backplane => Self::Notices,
            (None, _) => Self::Nothing,
        }
    }
}

/// Whether the caller is not to wait for L2.
fn goes_on(options: &EntryOptions) -> bool {
    options.background_l2 && !options.require_propagation
}

/// A write on its way: while it is, what L2 holds of the key does not count on this node.
struct Going<C> {
    inner: Arc<Inner<C>>,
    key: String,
}

impl<C> Going<C> {
    fn new(inner: &Arc<Inner<C>>, key: &str, strength: Strength) -> (Self, Turn) {
        let turn = inner.recovery.begin(key, strength);
        (Self { inner: Arc::clone(inner), key: key.to_owned() }, turn)
    }
}

impl<C> Drop for Going<C> {
    fn drop(&mut self) {
        self.inner.recovery.end(&self.key);
    }
}

/// Goes on with a write that holds here already. It begins before the call returns: it is in line, and
/// its fence hears what is called after it.
fn in_background<C>(
    inner: &Inner<C>,
    write: impl Future<Output = ()> + Send + 'static,
) -> Result<Receipt, Error> {
    let _ = inner.runtime()?;
    let mut write = Box::pin(write.instrument(spans::write_behind(&inner.name)));
    if (&mut write).now_or_never().is_none() {
        inner.spawn(write)?;
    }
    let backplane = if inner.bus.is_some() { Reach::Queued } else { Reach::Skipped };
    Ok(Receipt::new(Reach::Queued, backplane))
}

/// Says how far a write got, or that it is not far enough for its caller.
pub(super) fn conclude<C, R>(
    inner: &Inner<C>,
    key: &str,
    sent: Sent<R>,
    superseded: bool,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let reach = if superseded && sent.l2.is_ok() { Reach::Superseded } else { sent.reach };
    let receipt = Receipt::new(reach, sent.backplane);
    if !receipt.is_propagated() && inner.closing.is_cancelled() {
        let what = "the write holds here, but nobody is left to tell L2";
        return Err(inner.error(ErrorKind::Closed, key, what));
    }
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
