//! Writes of one key.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::conclude::conclude;
use super::encode::encode;
use super::hidden::{is_hidden, set_again};
use super::pending::{Attended, PendingWrite};
use super::send::Write;
use crate::background::sweep;
use crate::backplane::message::KeyOp;
use crate::entry::{Entry, Shared, Value};
use crate::error::Error;
use crate::events::Event;
use crate::factory::Choices;
use crate::l2::change::Change;
use crate::l2::{L2Error, L2ErrorKind, Record};
use crate::node::{Coded, Fence, Node, Relayed};
use crate::options::EntryOptions;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Version};
use crate::read::catch_up::{AskLedger, LedgerPosition, beside};
use crate::read::{NewEntry, ledger_known};
use crate::receipt::{Receipt, WriteStatus};
use crate::recovery::WriteSlot;
use crate::telemetry::spans;

/// Stores a value, whatever the key holds.
pub(crate) async fn set<T: Value>(
    node: &Coded<T>,
    key: &str,
    value: T,
    options: EntryOptions,
    tags: Vec<String>,
) -> Result<Receipt, Error> {
    options.validate(&node.place(Some(key)))?;
    node.check_tags(key, &tags)?;
    sweep::ensure(node);
    let started = Instant::now();
    if node.l2.as_ref().is_some_and(|l2| !l2.is_open(key)) {
        // Wait for the ledger first: no node accepts a record that was stamped without it.
        ledger_known(node, options.l2_hard_timeout).await;
    }
    let propagation = Propagation::of(node, &options);
    let degraded = propagation != Propagation::Nothing && !node.coherence.is_synced();
    let stamp = node.coherence.stamp(node.now());
    // One hard timeout covers the whole call, so subtract the wait for the ledger.
    let limit = options.l2_hard_timeout.saturating_sub(started.elapsed());
    let new_entry = NewEntry {
        stamp,
        took: Duration::ZERO,
        degraded,
        shared: propagation == Propagation::Records,
    };
    let choices = Choices::new(options, tags);
    let (meta, deadlines) = new_entry.meta(node, key, &choices);
    let entry = Arc::new(Entry { meta, value: Shared::Own(value) });
    let options = choices.options;
    let record = match propagation {
        Propagation::Records => Some(encode(node, &entry, deadlines, new_entry.took, false)?),
        Propagation::Notices | Propagation::Nothing => None,
    };
    node.note(&node.counters.sets, key, |key| Event::Set { key, filled: false });
    if propagation != Propagation::Records {
        node.check_kept(key)?;
    }
    if propagation == Propagation::Nothing {
        store_here(node, entry);
        return Ok(Receipt::local());
    }
    node.relay(|| Relayed::Key(key.into(), Strength::Hard));
    if is_write_behind(node, &options) {
        let (pending, queue_slot) = PendingWrite::new(node, key, Strength::Hard, &options);
        store_here(node, Arc::clone(&entry));
        let coded = node.clone();
        return in_background(node, async move {
            drop(
                store(&coded, &pending.key, entry, record, &options, limit, Some(queue_slot)).await,
            );
        });
    }
    let queue_slot = node.recovery.queue_slot(key, Strength::Hard, options.skip_backplane);
    store(node, key, entry, record, &options, limit, queue_slot).await
}

/// Stores an entry in L1 only.
fn store_here<T: Value>(node: &Node, entry: Arc<Entry<T>>) {
    let (hash, version) = (KeyHash::of(&entry.meta.key), entry.meta.version);
    node.flights.receive(hash, version, || node.l1.insert(hash, entry));
}

/// Stores an entry in L1 and in L2.
async fn store<T: Value>(
    node: &Coded<T>,
    key: &str,
    entry: Arc<Entry<T>>,
    record: Option<Record>,
    options: &EntryOptions,
    limit: Duration,
    queue_slot: Option<WriteSlot>,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), entry.meta.version);
    let fence = match sabotaged!(NoFenceOnSet) {
        false => Fence::begin(node, hash, Some(version), || node.l1.keep_only(hash, version)),
        true => Fence::begin(node, hash, None, || ()),
    };
    let write = Write::new(node, key, version, KeyOp::Written, limit, options);
    let waiting = node.recovery.get(key);
    #[cfg(feature = "sabotage")]
    let replayed = record.clone();
    let (result, mark) = match write.queue_slot(queue_slot).await {
        Err(sent) => (sent, LedgerPosition::Unasked),
        Ok((write, _permit)) => match (record, node.records()) {
            (Some(record), Some(l2)) => match write.deadline(l2) {
                // Without a deadline it could run at any time, and the node could not vouch for it.
                None => (write.refuse(unmet(node)), LedgerPosition::Unasked),
                at => {
                    let set = write.send(l2, Change::Set(record, at));
                    beside(node, l2, AskLedger::own_if(l2.is_ledger_near(key)), limit, set).await
                }
            },
            _ => (write.notify().await, LedgerPosition::Unasked),
        },
    };
    let hidden = result.l2.is_ok() && is_hidden(node, &entry.meta, mark, limit).await;
    #[cfg(feature = "sabotage")]
    if sabotaged!(RecoveryReplaysValue) && result.l2.is_err() {
        replay(node, key, replayed);
    }
    // L2 ordered it among the writes received meanwhile: only L2 knows which was last.
    let kept = fence.end(|received| {
        if result.l2.is_err() {
            entry.meta.shorten_to_coherence_ttl(node.settings.coherence_ttl);
        }
        let keep = received.allows(version);
        if keep && !hidden {
            node.l1.insert(hash, Arc::<Entry<T>>::clone(&entry));
        } else {
            node.l1.keep_only(hash, version);
        }
        keep
    });
    if result.l2.is_ok() {
        node.recovery.local_only.replaced(hash);
    }
    let late = |error: &L2Error| error.kind() == L2ErrorKind::Late;
    if let (true, Some(waiting)) = (result.l2.as_ref().map_or_else(late, |_| true), waiting) {
        node.recovery.acknowledge(key, waiting.version, node.now());
    }
    match node.records().filter(|_| hidden && kept) {
        Some(l2) => set_again(node, l2, &entry, options, limit).await,
        None => conclude(node, key, result, hidden, options),
    }
}

/// The error for an L2 that has never answered, with the cause as far as it is known.
fn unmet(node: &Node) -> L2Error {
    let trouble = node.telemetry.trouble.lock();
    L2Error::unmet(node.link.read().l2_refused, trouble.l2.as_ref().map(|(last, _)| &**last))
}

/// Planted bug: sends a value again, which recovery must never do.
#[cfg(feature = "sabotage")]
fn replay(node: &Arc<Node>, key: &str, record: Option<Record>) {
    let (node, key) = (Arc::clone(node), key.to_owned());
    let owner = Arc::clone(&node);
    let _ = owner.spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let (Some(l2), Some(record)) = (&node.l2, record) {
            let change = Change::Set(record, None);
            let _ = l2.change(&key, change, None, Duration::from_secs(1)).await;
        }
    });
}

/// Removes a key, or makes it stale: then its value may still be served as a fallback.
pub(crate) async fn invalidate(
    node: &Arc<Node>,
    key: &str,
    strength: Strength,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    match strength {
        Strength::Hard => node.note(&node.counters.removes, key, |key| Event::Remove { key }),
        Strength::Soft => node.note(&node.counters.expires, key, |key| Event::Expire { key }),
    }
    let propagation = Propagation::of(node, options);
    if propagation != Propagation::Nothing {
        node.relay(|| Relayed::Key(key.into(), strength));
    }
    if propagation != Propagation::Nothing && !is_write_behind(node, options) {
        // Registered before the fence: a read that misses L1 and reads L2 must find the
        // invalidation.
        let (_attended, queue_slot) = Attended::begin(node, key, strength, options);
        return invalidate_everywhere(node, key, strength, options, queue_slot).await;
    }
    let pending = (propagation != Propagation::Nothing)
        .then(|| PendingWrite::new(node, key, strength, options));
    let (hash, mut known) = (KeyHash::of(key), None);
    node.flights.receive(hash, node.entropy.version(), || {
        known = node.l1.version(hash);
        node.l1.weaken(hash, strength);
    });
    if strength == Strength::Hard {
        node.flights.removed(hash);
    }
    let Some((pending, queue_slot)) = pending else {
        hide_here(node, hash, strength, known);
        return Ok(Receipt::local());
    };
    let options = options.clone();
    in_background(node, async move {
        let PendingWrite { node, key, .. } = &pending;
        drop(invalidate_everywhere(node, key, strength, &options, Some(queue_slot)).await);
    })
}

/// Hides the record in L2 on this node only, until a write replaces it. L2 does not change.
pub(super) fn hide_here(node: &Node, hash: KeyHash, strength: Strength, version: Option<Version>) {
    if node.records().is_some() {
        let bounds = (node.settings.max_lifetime, node.settings.recovery_keys);
        node.recovery.local_only.hide(hash, strength, version, node.now(), bounds);
    }
}

async fn invalidate_everywhere(
    node: &Arc<Node>,
    key: &str,
    strength: Strength,
    options: &EntryOptions,
    queue_slot: Option<WriteSlot>,
) -> Result<Receipt, Error> {
    let (hash, version) = (KeyHash::of(key), node.entropy.version());
    let weaken = || {
        node.l1.weaken(hash, strength);
    };
    let fence = Fence::begin(node, hash, Some(version), weaken);
    let op = if strength == Strength::Hard { KeyOp::Removed } else { KeyOp::Expired };
    let write = Write::new(node, key, version, op, options.l2_hard_timeout, options);
    if strength == Strength::Hard {
        node.flights.removed(hash);
    }
    let result = match write.queue_slot(queue_slot).await {
        Err(sent) => sent,
        Ok((write, _permit)) => match (node.records(), strength) {
            (None, _) => write.notify().await,
            (Some(l2), Strength::Hard) => write.send(l2, Change::Remove).await,
            (Some(l2), Strength::Soft) => write.send(l2, Change::Expire(version)).await,
        },
    };
    fence.end(|_| weaken());
    if strength == Strength::Hard {
        node.flights.removed(hash);
    }
    conclude(node, key, result, false, options)
}

/// What other nodes receive of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    /// The record and its notification.
    Records,
    /// The notification only: L2 holds the ledger and no values.
    Notices,
    /// Nothing: there are no other nodes, or the call skips them.
    Nothing,
}

impl Propagation {
    pub(super) fn of(node: &Node, options: &EntryOptions) -> Self {
        match (node.records(), &node.bus) {
            _ if options.skip_l2_write => Self::Nothing,
            (Some(_), _) => Self::Records,
            (None, Some(_)) if !options.skip_backplane => Self::Notices,
            (None, _) => Self::Nothing,
        }
    }
}

/// Whether the caller does not wait for L2. While the cache closes every caller waits, because no
/// background task remains to do so.
pub(super) fn is_write_behind(node: &Node, options: &EntryOptions) -> bool {
    options.background_l2 && !options.require_propagation && !node.closing.is_cancelled()
}

/// Continues a write in the background that is already applied locally. The first poll happens
/// before the call returns, so the write has its queue slot, and its fence receives later calls.
pub(super) fn in_background(
    node: &Node,
    write: impl Future<Output = ()> + Send + 'static,
) -> Result<Receipt, Error> {
    let runtime = node.runtime()?;
    let mut write = Box::pin(write.instrument(spans::write_behind(&node.name)));
    let mut cx = Context::from_waker(Waker::noop());
    if runtime.poll(write.as_mut(), &mut cx).is_pending() {
        node.tasks.spawn_behind(write, &runtime);
    }
    let backplane = if node.bus.is_some() { WriteStatus::Queued } else { WriteStatus::Skipped };
    Ok(Receipt::new(WriteStatus::Queued, backplane))
}
