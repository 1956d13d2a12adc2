//! Writes that go on though their callers have been answered. The writes of a key are sent in the
//! order of their calls: what was removed after it was set must not be there again.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::protocol::ledger::Strength;

/// The writes of one key that go on.
#[derive(Debug)]
pub(super) struct Going {
    strength: Strength,
    count: usize,
    /// How many writes there were that leave nothing of what was there before.
    replaced: u64,
    /// Held by the write that is being sent; the others wait in line.
    line: Arc<Mutex<()>>,
}

/// The place of a write among those of its key.
#[derive(Debug)]
pub(crate) struct Turn {
    replaced: u64,
    pub(crate) line: Arc<Mutex<()>>,
    /// Whether nobody waits for it.
    pub(crate) background: bool,
}

impl Default for Going {
    fn default() -> Self {
        Self { strength: Strength::Soft, count: 0, replaced: 0, line: Arc::default() }
    }
}

impl Going {
    pub(super) fn begin(&mut self, strength: Strength) -> Turn {
        self.strength = self.strength.max(strength);
        self.count += 1;
        self.turn(strength, true)
    }

    /// True if it was the last.
    pub(super) fn end(&mut self) -> bool {
        self.count -= 1;
        self.count == 0
    }

    pub(super) fn turn(&mut self, strength: Strength, background: bool) -> Turn {
        self.replaced += u64::from(strength == Strength::Hard);
        Turn { replaced: self.replaced, line: Arc::clone(&self.line), background }
    }

    pub(super) fn strength(&self) -> Strength {
        self.strength
    }

    pub(super) fn is_past(&self, turn: &Turn) -> bool {
        self.replaced > turn.replaced
    }
}
