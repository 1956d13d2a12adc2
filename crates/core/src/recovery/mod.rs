//! Invalidations that L2 has not received yet.
//!
//! | file | holds |
//! |---|---|
//! | here | the queue of invalidations that L2 has not received |
//! | `write_order` | the order in which the background writes of one key are sent |
//! | `recent_writes` | the last writes, which a failover may have lost |
//! | `local_only` | invalidations that skip L2 and apply on this node only |
//!
//! `background::recovery` sends the queue after each poll that was answered.
//!
//! The queue holds only *invalidations*, never values: a failed `set` becomes one, so recovery can
//! make nothing older visible (S10). Each key keeps its latest invalidation, and hard wins over
//! soft. While a key is queued, this node treats its record in L2 as hidden. A full queue becomes a
//! clear, which is hard if the queue held a hard invalidation.

mod local_only;
mod recent_writes;
mod write_order;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::clock::Moment;
use crate::protocol::ledger::Strength;
use crate::protocol::{TagHash, Version};
use crate::sync::{AtomicUsize, DashMap, Mutex};
use local_only::LocalInvalidations;
pub(crate) use recent_writes::KeyWrites;
use recent_writes::RecentWrites;
use write_order::PendingWrites;
pub(crate) use write_order::WriteSlot;

/// How many tag names are remembered for messages.
const MAX_TAG_NAMES: usize = 64;

/// The recovery queue. A removal of tags waits in the ledger replica instead.
#[derive(Debug)]
pub(crate) struct Recovery {
    keys: Mutex<BTreeMap<Box<str>, Queued>>,
    len: AtomicUsize,
    cap: usize,
    /// Pending writes to L2, by key.
    pending: DashMap<Box<str>, PendingWrites>,
    /// The number of pending writes. It is mostly zero, which saves the lookup.
    pending_count: AtomicUsize,
    pub(crate) recent_writes: RecentWrites,
    /// The names of tags whose removals wait, for messages.
    tag_names: Mutex<BTreeMap<TagHash, Box<str>>>,
    /// Invalidations that calls did not send to L2.
    pub(crate) local_only: LocalInvalidations,
}

/// A queued invalidation of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) strength: Strength,
    pub(crate) version: Version,
    /// Until then the failed write may still run, so nothing settles this.
    pub(crate) not_before: Moment,
}

impl Recovery {
    pub(crate) fn new(cap: usize) -> Self {
        let (keys, len) = (Mutex::default(), AtomicUsize::new(0));
        let pending_count = AtomicUsize::new(0);
        let (recent_writes, local_only) = (RecentWrites::new(), LocalInvalidations::default());
        let (pending, tag_names) = (DashMap::new(), Mutex::default());
        Self { keys, len, cap, pending, pending_count, recent_writes, tag_names, local_only }
    }

    /// Queues an invalidation. `Some` if the queue was full and is now empty: the strength of the
    /// clear that must replace it.
    pub(crate) fn queue(&self, key: &str, queued: Queued) -> Option<Strength> {
        let mut keys = self.keys.lock();
        let before = keys.get(key).copied().unwrap_or(queued);
        let strength = before.strength.max(queued.strength);
        let not_before = before.not_before.max(queued.not_before);
        keys.insert(key.into(), Queued { strength, not_before, ..queued });
        let overflow = (keys.len() > self.cap).then(|| {
            let hardest = keys.values().map(|q| q.strength).max();
            keys.clear();
            hardest.unwrap_or(Strength::Hard)
        });
        self.len.store(keys.len(), Ordering::Release);
        overflow
    }

    /// The queued invalidation of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Queued> {
        if self.len() == 0 {
            return None;
        }
        self.keys.lock().get(key).copied()
    }

    /// The first queued keys, in key order.
    pub(crate) fn first(&self, most: usize) -> Vec<Box<str>> {
        self.keys.lock().keys().take(most).cloned().collect()
    }

    /// Remembers the name of a tag whose removal waits.
    pub(crate) fn name_tag(&self, hash: TagHash, name: &str) {
        let mut names = self.tag_names.lock();
        if names.len() < MAX_TAG_NAMES {
            names.insert(hash, name.into());
        }
    }

    /// The name of a tag, if it is remembered.
    pub(crate) fn tag_name(&self, hash: TagHash) -> Option<Box<str>> {
        self.tag_names.lock().get(&hash).cloned()
    }

    /// Forgets all tag names: no removal waits any more.
    pub(crate) fn forget_tag_names(&self) {
        self.tag_names.lock().clear();
    }

    /// Registers a background write of the key, and returns its queue slot. Until it ends, the
    /// record in L2 is not what the caller's receipt says. `quiet`: the write is not announced.
    pub(crate) fn begin(&self, key: &str, strength: Strength, quiet: bool) -> WriteSlot {
        // Count first and uncount last, so that a reader of zero misses no write.
        self.pending_count.fetch_add(1, Ordering::AcqRel);
        self.pending.entry(key.into()).or_default().begin(strength, quiet)
    }

    /// Ends a background write: L2 has it, or it is queued.
    pub(crate) fn end(&self, key: &str, strength: Strength) {
        self.pending.remove_if_mut(key, |_, pending| pending.end(strength));
        self.pending_count.fetch_sub(1, Ordering::AcqRel);
    }

    /// Registers an invalidation whose caller waits: it applies on this node until it ends. No
    /// later write has to wait for it, because no caller has its receipt yet.
    pub(crate) fn attend(&self, key: &str, strength: Strength) {
        self.pending_count.fetch_add(1, Ordering::AcqRel);
        self.pending.entry(key.into()).or_default().attend(strength);
    }

    /// The same for one that is sent now. Returns its [queue slot](Self::queue_slot).
    pub(crate) fn attend_in_queue(
        &self,
        key: &str,
        strength: Strength,
        quiet: bool,
    ) -> Option<WriteSlot> {
        self.pending_count.fetch_add(1, Ordering::AcqRel);
        let mut pending = self.pending.entry(key.into()).or_default();
        pending.attend(strength);
        pending.is_unattended().then(|| pending.queue_slot(strength, quiet, false))
    }

    /// Ends an invalidation whose caller waits: L2 has it, or it is queued.
    pub(crate) fn leave(&self, key: &str, strength: Strength) {
        self.pending.remove_if_mut(key, |_, pending| pending.leave(strength));
        self.pending_count.fetch_sub(1, Ordering::AcqRel);
    }

    /// The queue slot of a write whose caller waits; `None` if no background write of the key is
    /// pending.
    pub(crate) fn queue_slot(
        &self,
        key: &str,
        strength: Strength,
        quiet: bool,
    ) -> Option<WriteSlot> {
        if self.pending_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut pending = self.pending.get_mut(key).filter(|pending| pending.is_unattended())?;
        Some(pending.queue_slot(strength, quiet, false))
    }

    /// Whether a later write leaves nothing of this one's effect.
    pub(crate) fn is_overtaken(&self, key: &str, queue_slot: &WriteSlot) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.is_past(queue_slot))
    }

    /// How pending and queued writes weaken the key's record in L2.
    pub(crate) fn strength(&self, key: &str) -> Option<Strength> {
        let any = self.pending_count.load(Ordering::Acquire) != 0;
        let pending =
            any.then(|| self.pending.get(key).map(|pending| pending.strength())).flatten();
        pending.max(self.get(key).map(|queued| queued.strength))
    }

    /// Removes exactly this invalidation: L2 has it, or the record has been replaced since.
    pub(crate) fn acknowledge(&self, key: &str, version: Version, now: Moment) {
        let mut keys = self.keys.lock();
        let settled = |q: &Queued| q.version == version && q.not_before <= now;
        if keys.get(key).is_some_and(settled) || sabotaged!(SettleWithoutCompare) {
            keys.remove(key);
        }
        if misordered!(LengthUnlocked) {
            let len = keys.len();
            drop(keys);
            return self.len.store(len, Ordering::Release);
        }
        self.len.store(keys.len(), Ordering::Release);
    }

    /// Every queued invalidation that is due and has no pending background write before it.
    pub(crate) fn due(&self, now: Moment) -> Vec<(Box<str>, Queued)> {
        let keys = self.keys.lock();
        let free =
            |key: &str| !self.pending.get(key).is_some_and(|pending| pending.is_unattended());
        let due = keys.iter().filter(|(key, queued)| queued.not_before <= now && free(key));
        due.map(|(key, queued)| (key.clone(), *queued)).collect()
    }

    /// How many more keys may be queued that can also be queued later. The last quarter is for
    /// writes that fail, since a full queue clears the cache.
    pub(crate) fn room(&self) -> usize {
        (self.cap - self.cap / 4).max(1).saturating_sub(self.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
}
