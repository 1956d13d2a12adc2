//! Reservations: a `set` that loses to every invalidation since its value was read.

use std::sync::Arc;
use std::time::Duration;

use super::encode::encode;
use super::hidden::is_hidden;
use super::key::{Propagation, conclude, overtaken};
use super::send::Write;
use super::{Receipt, WriteStatus};
use crate::backplane::message::KeyOp;
use crate::cache::{Coded, Inner, Relayed};
use crate::coherence::{beside, catch_up};
use crate::entry::{Entry, Shared, Stamp, Value};
use crate::error::{Error, ErrorKind};
use crate::factory::Choices;
use crate::options::EntryOptions;
use crate::protocol::flight::{FlightId, Received};
use crate::protocol::ledger::Strength;
use crate::protocol::record::{LoadLock, LoadLockRequest, Put};
use crate::protocol::validity::Verdict;
use crate::protocol::{KeyHash, Version};
use crate::read::{NewEntry, ledger_known};

/// Lets a `set` replace only what the key held when [`Cache::reserve`](crate::Cache::reserve) read
/// it.
///
/// A reservation also holds what this node knew at that time. Dropping it gives it up.
pub struct Reservation {
    inner: Arc<Inner>,
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
        self.fence.take().map(|id| self.inner.flights.end(self.hash, id, settle))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(|_| ());
        let Some(load_lock) = self.load_lock.take() else { return };
        let (inner, key) = (Arc::clone(&self.inner), self.key.clone());
        let release = async move {
            if let Some(l2) = inner.records() {
                // Best effort: the load lock expires by itself.
                let limit = inner.l2_limit();
                let _ = l2.on(&key, limit, |store, key| store.release(key, load_lock)).await;
            }
        };
        let _ = self.inner.spawn(release);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Reads what the key holds, before its caller reads the value from the source.
pub(crate) async fn reserve(inner: &Arc<Inner>, key: &str) -> Result<Reservation, Error> {
    inner.check_open(Some(key))?;
    let (hash, limit) = (KeyHash::of(key), inner.options_for(key).l2_hard_timeout);
    let missed = |what: &str| Err(inner.error(ErrorKind::L2, key, what));
    if let Some(l2) = &inner.l2
        && (l2.is_open(key) || !ledger_known(inner, limit).await)
    {
        return missed("`reserve` needs L2, and L2 is unavailable");
    }
    let id = inner.flights.begin(hash, None, || ());
    let stamp = inner.node.stamp(inner.now());
    let mut reservation = Reservation {
        inner: Arc::clone(inner),
        key: key.into(),
        hash,
        fence: Some(id),
        stamp,
        expected: None,
        load_lock: None,
    };
    let Some(l2) = inner.records() else { return Ok(reservation) };
    let id = inner.entropy.version();
    let ttl_ms = crate::clock::millis(inner.settings.load_lock_ttl);
    let ask = LoadLockRequest { id, ttl_ms, replace: None, hidden: None };
    let read = l2.on(key, limit, |store, key| store.read(key, Some(ask)));
    let (read, mark) = beside(inner, l2, true, limit, read).await;
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            let place = inner.place(Some(key));
            return Err(Error::with_source(ErrorKind::L2, place, "", error));
        }
    };
    // Stamp again before the caller reads the source: the node now knows every removal that
    // returned before the call.
    if catch_up(inner, mark, limit).await {
        reservation.stamp = inner.node.stamp(inner.now());
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
    let inner = Arc::clone(coded);
    if !Arc::ptr_eq(&inner, &reservation.inner) {
        let what = format!("the reservation is for cache {:?}", reservation.inner.name);
        return Err(inner.error(ErrorKind::InvalidOptions, key, what));
    }
    options.validate(&inner.place(Some(key)))?;
    inner.check_tags(key, &tags)?;
    if *reservation.key != *key {
        let what = format!("the reservation is for key {:?}", reservation.key);
        return Err(inner.error(ErrorKind::InvalidOptions, key, what));
    }
    let propagation = Propagation::of(&inner, &options);
    let shared = propagation == Propagation::Records && reservation.expected.is_some();
    let new = NewEntry { stamp: reservation.stamp, took: Duration::ZERO, degraded: false, shared };
    let choices = Choices::new(options, tags);
    let (meta, deadlines) = new.meta(&inner, key, &choices);
    let entry = Arc::new(Entry { meta, value: Shared::Own(value) });
    let (version, limit) = (entry.meta.version, choices.options.l2_hard_timeout);
    let not_stored = Receipt::new(WriteStatus::Superseded, WriteStatus::Skipped);
    let (Some(l2), Some(expected), true) = (inner.records(), reservation.expected, shared) else {
        inner.check_kept(key)?;
        let kept = keep(&mut reservation, entry);
        return match propagation {
            _ if !kept => overtaken(&inner, key, not_stored, &choices.options),
            Propagation::Notices => {
                inner.relay(|| Relayed::Key(key.into(), Strength::Hard));
                let write =
                    Write::new(&inner, key, version, KeyOp::Written, limit, &choices.options);
                conclude(&inner, key, write.notify().await, false, &choices.options)
            }
            _ => Ok(Receipt::local()),
        };
    };
    if inner.node.judge(&entry.meta, inner.now()) != Verdict::Fresh {
        return overtaken(&inner, key, not_stored, &choices.options);
    }
    let record = encode(coded, &entry, deadlines, new.took, false)?;
    inner.relay(|| Relayed::Key(key.into(), Strength::Hard));
    let write = Write::new(&inner, key, version, KeyOp::Written, limit, &choices.options);
    let waiting = inner.recovery.get(key);
    let put = write.send(l2, |store, key, ann| store.put(key, expected, record, ann));
    let (sent, mark) = beside(&inner, l2, true, limit, put).await;
    let stored = matches!(sent.l2, Ok(Put::Stored));
    let mut superseded = false;
    if stored {
        reservation.load_lock = None;
        // L2 holds this version now: drop every other copy, whether this one is kept or not.
        let hash = reservation.hash;
        inner.recovery.own.replaced(hash);
        inner.flights.receive(hash, version, || inner.l1.keep_only(hash, version));
        let hidden = is_hidden(&inner, &entry.meta, mark, limit).await;
        superseded = !keep(&mut reservation, entry) || hidden;
        if let Some(waiting) = waiting.filter(|_| !superseded) {
            inner.recovery.settle(key, waiting.version, inner.now());
        }
    }
    conclude(&inner, key, sent, superseded, &choices.options)
}

/// Inserts the entry into L1, unless the key has received something else or the entry is invalid by
/// now.
fn keep<T: Value>(reservation: &mut Reservation, entry: Arc<Entry<T>>) -> bool {
    let (inner, hash) = (Arc::clone(&reservation.inner), reservation.hash);
    let version = entry.meta.version;
    let kept = reservation.end(|received| {
        let valid = inner.node.judge(&entry.meta, inner.now()) == Verdict::Fresh;
        let keep = valid && received.allows(version);
        if keep {
            inner.l1.insert(hash, entry);
        }
        keep
    });
    kept.unwrap_or(false)
}
