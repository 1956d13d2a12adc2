//! Reservations: a `set` that loses to every invalidation since its value was read.

use std::sync::Arc;
use std::time::Duration;

use super::conclude::{conclude, overtaken};
use super::encode::encode;
use super::hidden::is_hidden;
use super::key::Propagation;
use super::send::Write;
use crate::backplane::message::KeyOp;
use crate::entry::{Entry, Shared, Stamp, Value};
use crate::error::{Error, ErrorKind};
use crate::factory::Choices;
use crate::l2::change::Change;
use crate::node::{Coded, Node, Relayed};
use crate::options::EntryOptions;
use crate::protocol::flight::{FlightId, Received};
use crate::protocol::ledger::Strength;
use crate::protocol::record::{LoadLock, Put};
use crate::protocol::validity::Verdict;
use crate::protocol::{KeyHash, Version};
use crate::read::catch_up::{AskLedger, beside, catch_up};
use crate::read::{NewEntry, ledger_known};
use crate::receipt::{Receipt, WriteStatus};

/// Lets a `set` replace only what the key held when [`Cache::reserve`](crate::Cache::reserve) read
/// it.
///
/// A reservation also holds what this node knew at that time. Dropping it gives it up.
pub struct Reservation {
    node: Arc<Node>,
    key: Box<str>,
    hash: KeyHash,
    /// Receives the operations on the key since the reservation.
    fence: Option<FlightId>,
    stamp: Stamp,
    /// The version that the `set` may replace; `None` without records.
    expected: Option<Version>,
    /// The load lock, if this reservation holds it.
    load_lock: Option<Version>,
}

impl Reservation {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    fn end<R>(&mut self, settle: impl FnOnce(Received) -> R) -> Option<R> {
        self.fence.take().map(|id| self.node.flights.end(self.hash, id, settle))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(|_| ());
        let Some(load_lock) = self.load_lock.take() else { return };
        let (node, key) = (Arc::clone(&self.node), self.key.clone());
        let release = async move {
            if let Some(l2) = node.records() {
                // Best effort: the load lock expires by itself.
                let limit = node.l2_limit();
                let _ = l2.release(&key, load_lock, limit).await;
            }
        };
        let _ = self.node.spawn(release);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Reads what the key holds, before its caller reads the value from the source.
pub(crate) async fn reserve(
    node: &Arc<Node>,
    key: &str,
    limit: Duration,
) -> Result<Reservation, Error> {
    node.check_open(Some(key))?;
    let hash = KeyHash::of(key);
    let missed = |what: &str| Err(node.error(ErrorKind::L2, key, what));
    if let Some(l2) = &node.l2
        && (l2.is_open(key) || !ledger_known(node, limit).await)
    {
        return missed("`reserve` needs L2, and L2 is unavailable");
    }
    let id = node.flights.begin(hash, None, || ());
    let stamp = node.coherence.stamp(node.now());
    let mut reservation = Reservation {
        node: Arc::clone(node),
        key: key.into(),
        hash,
        fence: Some(id),
        stamp,
        expected: None,
        load_lock: None,
    };
    let Some(l2) = node.records() else { return Ok(reservation) };
    let id = node.entropy.version();
    let read = l2.read(key, Some(node.load_lock_request(id, None)), limit);
    let (read, mark) = beside(node, l2, AskLedger::Own, limit, read).await;
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            let place = node.place(Some(key));
            return Err(Error::with_source(ErrorKind::L2, place, "", error));
        }
    };
    // Stamp again before the caller reads the source: the node now knows every removal that
    // returned before the call.
    if catch_up(node, mark, limit).await {
        reservation.stamp = node.coherence.stamp(node.now());
    }
    let found = read.found.as_ref().and_then(|found| crate::l2::record::head(&found.bytes));
    reservation.load_lock = (read.load_lock == LoadLock::Granted).then_some(id);
    reservation.expected = match (found, read.load_lock) {
        (Some(head), _) => Some(head.version()),
        (None, LoadLock::HeldBy(by)) => Some(by),
        (None, _) => Some(id),
    };
    Ok(reservation)
}

/// Stores a value that was read after the reservation, if nothing has touched the key since.
pub(crate) async fn set_reserved<T: Value>(
    coded: &Coded<T>,
    mut reservation: Reservation,
    key: &str,
    value: T,
    options: EntryOptions,
    tags: Vec<String>,
) -> Result<Receipt, Error> {
    let node = Arc::clone(coded);
    if !Arc::ptr_eq(&node, &reservation.node) {
        let what = format!("the reservation is for cache {:?}", reservation.node.name);
        return Err(node.error(ErrorKind::InvalidOptions, key, what));
    }
    options.validate(&node.place(Some(key)))?;
    node.check_tags(key, &tags)?;
    if *reservation.key != *key {
        let what = format!("the reservation is for key {:?}", reservation.key);
        return Err(node.error(ErrorKind::InvalidOptions, key, what));
    }
    let propagation = Propagation::of(&node, &options);
    let shared = propagation == Propagation::Records && reservation.expected.is_some();
    let new = NewEntry { stamp: reservation.stamp, took: Duration::ZERO, degraded: false, shared };
    let choices = Choices::new(options, tags);
    let (meta, deadlines) = new.meta(&node, key, &choices);
    let entry = Arc::new(Entry { meta, value: Shared::Own(value) });
    let (version, limit) = (entry.meta.version, choices.options.l2_hard_timeout);
    let not_stored = Receipt::new(WriteStatus::Superseded, WriteStatus::Skipped);
    let (Some(l2), Some(expected), true) = (node.records(), reservation.expected, shared) else {
        node.check_kept(key)?;
        let kept = keep(&mut reservation, entry);
        return match propagation {
            _ if !kept => overtaken(&node, key, not_stored, &choices.options),
            Propagation::Notices => {
                node.relay(|| Relayed::Key(key.into(), Strength::Hard));
                let write =
                    Write::new(&node, key, version, KeyOp::Written, limit, &choices.options);
                conclude(&node, key, write.notify().await, false, &choices.options)
            }
            _ => Ok(Receipt::local()),
        };
    };
    if node.coherence.judge(&entry.meta, node.now()) != Verdict::Fresh {
        return overtaken(&node, key, not_stored, &choices.options);
    }
    let record = encode(coded, &entry, deadlines, new.took, false)?;
    node.relay(|| Relayed::Key(key.into(), Strength::Hard));
    let write = Write::new(&node, key, version, KeyOp::Written, limit, &choices.options);
    let waiting = node.recovery.get(key);
    let put = write.send(l2, Change::Put(expected, record));
    let (sent, mark) = beside(&node, l2, AskLedger::Own, limit, put).await;
    let stored = matches!(sent.l2, Ok(Put::Stored));
    let mut superseded = false;
    if stored {
        reservation.load_lock = None;
        // L2 holds this version now: drop every other copy, whether this one is kept or not.
        let hash = reservation.hash;
        node.recovery.local_only.replaced(hash);
        node.flights.receive(hash, version, || node.l1.keep_only(hash, version));
        let hidden = is_hidden(&node, &entry.meta, mark, limit).await;
        superseded = !keep(&mut reservation, entry) || hidden;
        if let Some(waiting) = waiting.filter(|_| !superseded) {
            node.recovery.acknowledge(key, waiting.version, node.now());
        }
    }
    conclude(&node, key, sent, superseded, &choices.options)
}

/// Inserts the entry into L1, unless the key has received something else or the entry is invalid by
/// now.
fn keep<T: Value>(reservation: &mut Reservation, entry: Arc<Entry<T>>) -> bool {
    let (node, hash) = (Arc::clone(&reservation.node), reservation.hash);
    let version = entry.meta.version;
    let kept = reservation.end(|received| {
        let valid = node.coherence.judge(&entry.meta, node.now()) == Verdict::Fresh;
        let keep = valid && received.allows(version);
        if keep {
            node.l1.insert(hash, entry);
        }
        keep
    });
    kept.unwrap_or(false)
}
