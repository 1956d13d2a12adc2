//! Interned tags: every entry that carries a tag points at one state with the tag's levels.
//!
//! A barrier is raised in one place and seen by all its entries; nothing is scanned. Checking a
//! tagged hit reads these atomics, and only if the node's generation moved since the last check.
//! A state lives as long as some entry holds it; levels of tags without entries are in the ledger
//! replica alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::protocol::TagHash;
use crate::protocol::ledger::Levels;
use crate::protocol::validity::TagLevels;

/// One tag and what the node knows of it.
#[derive(Debug)]
pub(crate) struct TagState {
    name: Box<str>,
    soft: AtomicU64,
    hard: AtomicU64,
    pending_soft: AtomicU64,
    pending_hard: AtomicU64,
}

impl TagState {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn levels(&self) -> TagLevels {
        TagLevels {
            levels: Levels {
                soft: self.soft.load(Ordering::Relaxed),
                hard: self.hard.load(Ordering::Relaxed),
            },
            pending: Levels {
                soft: self.pending_soft.load(Ordering::Relaxed),
                hard: self.pending_hard.load(Ordering::Relaxed),
            },
        }
    }

    fn store(&self, known: TagLevels) {
        self.soft.store(known.levels.soft, Ordering::Relaxed);
        self.hard.store(known.levels.hard, Ordering::Relaxed);
        self.pending_soft.store(known.pending.soft, Ordering::Relaxed);
        self.pending_hard.store(known.pending.hard, Ordering::Relaxed);
    }
}

/// The tags that entries hold. Written only under the ledger's lock; the lock order is ledger, then
/// shard.
#[derive(Debug)]
pub(crate) struct Tags {
    states: DashMap<TagHash, Weak<TagState>, RandomState>,
    sweep_at: AtomicU64,
}

impl Tags {
    pub(crate) fn new() -> Self {
        Self { states: DashMap::default(), sweep_at: AtomicU64::new(4096) }
    }

    /// The state of a tag, if some entry holds it.
    pub(crate) fn held(&self, hash: TagHash) -> Option<Arc<TagState>> {
        self.states.get(&hash)?.upgrade()
    }

    /// The state of a tag, made from `known` if there is none. The ledger's lock is held.
    pub(crate) fn intern(&self, name: &str, hash: TagHash, known: TagLevels) -> Arc<TagState> {
        self.sweep();
        let mut slot = self.states.entry(hash).or_default();
        if let Some(state) = slot.upgrade() {
            return state;
        }
        let state = Arc::new(TagState {
            name: name.into(),
            soft: AtomicU64::new(0),
            hard: AtomicU64::new(0),
            pending_soft: AtomicU64::new(0),
            pending_hard: AtomicU64::new(0),
        });
        state.store(known);
        *slot = Arc::downgrade(&state);
        state
    }

    /// The ledger moved. Its lock is held.
    pub(crate) fn update(&self, hash: TagHash, known: TagLevels) {
        if let Some(state) = self.held(hash) {
            state.store(known);
        }
    }

    /// Forgets tags that no entry holds, when the table has doubled since the last time.
    fn sweep(&self) {
        let len = self.states.len() as u64;
        if len < self.sweep_at.load(Ordering::Relaxed) {
            return;
        }
        self.states.retain(|_, state| state.strong_count() > 0);
        let live = self.states.len() as u64;
        self.sweep_at.store((live * 2).max(4096), Ordering::Relaxed);
    }
}
