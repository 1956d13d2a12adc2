//! Invalidations that L2 has not heard of yet.
//!
//! What is queued is always an *invalidation*, never a value: a failed `set` becomes one, so that
//! recovery can make nothing older visible (S10). Per key the latest stands, hard over soft. While a
//! key waits, its record in L2 counts as hidden on this node. A queue that is full becomes a clear,
//! of the kind of what it held.

mod own;
pub(crate) mod reassert;
mod recent_writes;
mod write_queue;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::clock::Moment;
use crate::protocol::ledger::Strength;
use crate::protocol::{TagHash, Version};
use crate::sync::{AtomicUsize, DashMap, Mutex};
use own::Own;
use recent_writes::RecentWrites;
use write_queue::PendingWrites;
pub(crate) use write_queue::QueueSlot;

/// How many names of tags are remembered for messages.
const MAX_TAG_NAMES: usize = 64;

/// The queue. A removal of tags waits in the ledger replica instead.
#[derive(Debug)]
pub(crate) struct Recovery {
    keys: Mutex<BTreeMap<Box<str>, Queued>>,
    len: AtomicUsize,
    cap: usize,
    /// Writes on their way to L2, by key.
    pending: DashMap<Box<str>, PendingWrites>,
    /// How many writes that is: mostly none, and then nobody looks.
    under_way: AtomicUsize,
    pub(crate) recent_writes: RecentWrites,
    /// The names of tags whose removals wait, for messages.
    tag_names: Mutex<BTreeMap<TagHash, Box<str>>>,
    /// What calls have kept from L2.
    pub(crate) own: Own,
}

/// One key that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) strength: Strength,
    pub(crate) version: Version,
    /// Until then the write that failed may still run, so nothing settles this.
    pub(crate) not_before: Moment,
}

impl Recovery {
    pub(crate) fn new(cap: usize) -> Self {
        let (keys, len) = (Mutex::default(), AtomicUsize::new(0));
        let under_way = AtomicUsize::new(0);
        let (recent_writes, own) = (RecentWrites::new(), Own::default());
        let (pending, tag_names) = (DashMap::new(), Mutex::default());
        Self { keys, len, cap, pending, under_way, recent_writes, tag_names, own }
    }

    /// Queues an invalidation. `Some` if the queue was full and has been emptied: the strength of the
    /// clear that must take its place.
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

    /// What waits for a key.
    pub(crate) fn get(&self, key: &str) -> Option<Queued> {
        if self.len() == 0 {
            return None;
        }
        self.keys.lock().get(key).copied()
    }

    /// The first keys that wait, in the order of their names.
    pub(crate) fn first(&self, most: usize) -> Vec<Box<str>> {
        self.keys.lock().keys().take(most).cloned().collect()
    }

    /// Remembers what a tag is called whose removal waits.
    pub(crate) fn name_tag(&self, hash: TagHash, name: &str) {
        let mut names = self.tag_names.lock();
        if names.len() < MAX_TAG_NAMES {
            names.insert(hash, name.into());
        }
    }

    /// What it is called, if that is remembered.
    pub(crate) fn tag_name(&self, hash: TagHash) -> Option<Box<str>> {
        self.tag_names.lock().get(&hash).cloned()
    }

    /// No removal waits any more.
    pub(crate) fn forget_tag_names(&self) {
        self.tag_names.lock().clear();
    }

    /// A write of the key goes on in the background: until it ends, the record in L2 is not what the
    /// caller was told. Answers its queue_slot. `quiet`: no other node is told.
    pub(crate) fn begin(&self, key: &str, strength: Strength, quiet: bool) -> QueueSlot {
        // Before it is there for those who look, and gone after it is not.
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.pending.entry(key.into()).or_default().begin(strength, quiet)
    }

    /// It has ended: L2 has it, or it waits.
    pub(crate) fn end(&self, key: &str, strength: Strength) {
        self.pending.remove_if_mut(key, |_, pending| pending.end(strength));
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// An invalidation whose caller waits begins: it holds here until it ends. Nothing waits for its queue_slot
    /// behind it, as nobody was told that it is done.
    pub(crate) fn attend(&self, key: &str, strength: Strength) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.pending.entry(key.into()).or_default().attend(strength);
    }

    /// The same for one that is sent now. Answers its [queue_slot](Self::queue_slot).
    pub(crate) fn attend_in_queue(
        &self,
        key: &str,
        strength: Strength,
        quiet: bool,
    ) -> Option<QueueSlot> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let mut pending = self.pending.entry(key.into()).or_default();
        pending.attend(strength);
        pending.is_unattended().then(|| pending.queue_slot(strength, quiet, false))
    }

    /// It has ended: L2 has it, or it waits.
    pub(crate) fn leave(&self, key: &str, strength: Strength) {
        self.pending.remove_if_mut(key, |_, pending| pending.leave(strength));
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// The queue_slot of a write whose caller waits; `None` if no write of the key goes on in the background.
    pub(crate) fn queue_slot(
        &self,
        key: &str,
        strength: Strength,
        quiet: bool,
    ) -> Option<QueueSlot> {
        if self.under_way.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut pending = self.pending.get_mut(key).filter(|pending| pending.is_unattended())?;
        Some(pending.queue_slot(strength, quiet, false))
    }

    /// Whether a later write leaves nothing of what this one would.
    pub(crate) fn is_overtaken(&self, key: &str, queue_slot: &QueueSlot) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.is_past(queue_slot))
    }

    /// What L2 may not have heard of yet makes of the key's record.
    pub(crate) fn strength(&self, key: &str) -> Option<Strength> {
        let any = self.under_way.load(Ordering::Acquire) != 0;
        let pending =
            any.then(|| self.pending.get(key).map(|pending| pending.strength())).flatten();
        pending.max(self.get(key).map(|queued| queued.strength))
    }

    /// L2 knows of exactly this invalidation: by it, or because the record was replaced since.
    pub(crate) fn settle(&self, key: &str, version: Version, now: Moment) {
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

    /// Everything that waits and is due, and not behind a write that goes on.
    pub(crate) fn due(&self, now: Moment) -> Vec<(Box<str>, Queued)> {
        let keys = self.keys.lock();
        let free =
            |key: &str| !self.pending.get(key).is_some_and(|pending| pending.is_unattended());
        let due = keys.iter().filter(|(key, queued)| queued.not_before <= now && free(key));
        due.map(|(key, queued)| (key.clone(), *queued)).collect()
    }

    /// How many keys may be queued that can be queued later as well: the last quarter is for writes that
    /// fail, since a queue that is full clears the cache.
    fn room(&self) -> usize {
        (self.cap - self.cap / 4).max(1).saturating_sub(self.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
}
