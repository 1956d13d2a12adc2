//! Interned tags: every entry that carries a tag points at one state with the tag's levels.
//!
//! A barrier rises in one place and all its entries see it, without a scan. A tagged hit reads
//! these atomics only if the node's generation moved since the last check. A state exists as long
//! as an entry holds it; only the ledger replica has the levels of tags without entries.
//!
//! `cells` holds the levels of one tag.

mod cells;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use foldhash::fast::RandomState;

pub(crate) use self::cells::Cells;
use crate::protocol::TagHash;
use crate::protocol::validity::TagLevels;
use crate::sync::{AtomicU64, DashMap};

/// One tag and its levels on this node.
#[derive(Debug)]
pub(crate) struct TagState {
    name: Box<str>,
    register: u16,
    own: Cells,
}

impl TagState {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The tags that entries hold.
///
/// Written only under the ledger's lock; the lock order is ledger, then shard.
#[derive(Debug)]
pub(crate) struct Tags {
    states: DashMap<TagHash, Weak<TagState>, RandomState>,
    /// The registers of old removals, 2 MiB; none until a ledger has folded some.
    ///
    /// Entries read their register by tag, so a rise reaches all of them without a scan.
    sketch: OnceLock<Box<[Cells]>>,
    sweep_at: AtomicU64,
}

impl Tags {
    pub(crate) fn new() -> Self {
        Self { states: DashMap::default(), sketch: OnceLock::new(), sweep_at: AtomicU64::new(4096) }
    }

    /// The levels that hide the entries of a tag: its own barriers, and its register's.
    pub(crate) fn levels(&self, tag: &TagState) -> [TagLevels; 2] {
        let register = self.sketch.get().map(|cells| cells[usize::from(tag.register)].load());
        [tag.own.load(), register.unwrap_or_default()]
    }

    /// The state of a tag, if some entry holds it.
    pub(crate) fn held(&self, hash: TagHash) -> Option<Arc<TagState>> {
        self.states.get(&hash)?.upgrade()
    }

    /// The state of a tag, created from `known` if there is none. The caller holds the ledger's
    /// lock.
    pub(crate) fn intern(&self, name: &str, hash: TagHash, known: TagLevels) -> Arc<TagState> {
        self.sweep();
        let mut slot = self.states.entry(hash).or_default();
        if let Some(state) = slot.upgrade() {
            return state;
        }
        let state =
            Arc::new(TagState { name: name.into(), register: hash.register(), own: known.into() });
        *slot = Arc::downgrade(&state);
        state
    }

    /// Updates a tag after a change of the ledger. The caller holds the ledger's lock.
    pub(crate) fn update(&self, hash: TagHash, known: impl FnOnce() -> TagLevels) {
        if let Some(state) = self.held(hash) {
            state.own.store(known());
        }
    }

    /// Updates a register after a change of the ledger. The caller holds the ledger's lock.
    pub(crate) fn update_register(&self, register: u16, known: TagLevels) {
        let all = || (0..=u16::MAX).map(|_| Cells::default()).collect();
        self.sketch.get_or_init(all)[usize::from(register)].store(known);
    }

    /// Removes tags that no entry holds, if the table has doubled since the last sweep.
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
