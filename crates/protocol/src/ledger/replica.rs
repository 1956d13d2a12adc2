use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::pending::{Pending, Unnumbered};
use super::sync::Cycle;
use super::{
    Advanced, Item, Levels, MAX_AHEAD, MAX_BARRIERS, MAX_PENDING, RECENT_IDS, Removal, Strength,
    Target,
};
use crate::{Epoch, Nonce, TagHash};

/// The effect of a received item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiveResult {
    /// The next one: the frontier moved.
    InOrder,
    /// Known already; nothing changed.
    Known,
    /// An item before it is missing: applied, but the frontier stays; needs a `SYNC`.
    Gap,
    /// An unknown number at or below the frontier: suspect until a full `SYNC`.
    Anomaly,
    /// An epoch that this node does not know: suspect until a `SYNC`.
    Foreign,
}

/// What the node must do after a page of a `SYNC`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Synced {
    /// Another page, or another `SYNC`, is needed at once.
    pub again: bool,
    /// The node has adopted another epoch.
    pub new_epoch: bool,
    /// The authority lost history and issued numbers below this node's frontier (after a failover).
    pub forked: bool,
    /// What only this node knows; the node issues it again under new nonces (B6).
    pub reissue: Vec<(Strength, Target)>,
}

/// One node's copy of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(super) epoch: Option<Epoch>,
    pub(super) frontier: u64,
    pub(super) last: Option<Nonce>,
    /// The highest number ever applied in this epoch, even if the authority has lost it.
    pub(super) highest: u64,
    /// Ids at or below the frontier. Complete above `remembers_above`.
    pub(super) recent: VecDeque<(u64, Nonce)>,
    pub(super) remembers_above: u64,
    pub(super) levels: BTreeMap<TagHash, Levels>,
    pub(super) sketch: BTreeMap<u16, Levels>,
    pub(super) floor: Levels,
    pub(super) ahead: BTreeMap<Nonce, Item>,
    pub(super) pending: Unnumbered,
    pub(super) suspect: bool,
    pub(super) trimmed: u64,
    pub(super) folded: u64,
    /// A `SYNC` returned a removal at or below the frontier that this node did not know.
    pub(super) overtaken: bool,
    /// Epochs this node has left, newest last.
    pub(super) former: VecDeque<Epoch>,
    pub(super) cycle: Option<Cycle>,
    pub(super) changed: BTreeSet<Target>,
}

impl Replica {
    /// The epoch adopted by the first `SYNC`; `None` before it.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Whether it has left this epoch for another.
    #[must_use]
    pub fn has_left(&self, epoch: Epoch) -> bool {
        self.epoch != Some(epoch) && self.former.contains(&epoch)
    }

    /// The number at or below which every removal is known (B1). Stamps take this value.
    #[must_use]
    #[inline]
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The highest number this node has received, contiguous or not. An `ADVANCE` carries it, so
    /// that a removal issued again after a failover outranks what it replaces.
    #[must_use]
    #[inline]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The number at or below which barriers of tags are in registers (B7).
    #[must_use]
    #[inline]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Whether nothing counts as fresh until a `SYNC` (B5). A node that has never met a ledger is
    /// not suspect: it has no epoch, so nothing of the ledger's epoch is valid there.
    #[must_use]
    #[inline]
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// The levels that hide entries of a tag: the newer of its own and its register's barriers.
    #[must_use]
    pub fn levels(&self, tag: TagHash) -> Levels {
        let mut levels = self.barriers(Target::Tag(tag));
        let old = self.barriers(Target::Register(tag.register()));
        levels.raise(Strength::Soft, old.soft);
        levels.raise(Strength::Hard, old.hard);
        levels
    }

    /// The barriers of this target alone; zero if it was never removed.
    #[must_use]
    pub fn barriers(&self, target: Target) -> Levels {
        let found = match target {
            Target::Everything => Some(&self.floor),
            Target::Register(register) => self.sketch.get(&register),
            Target::Tag(tag) => self.levels.get(&tag),
        };
        found.copied().unwrap_or_default()
    }

    /// The floors raised by `expire_all` and `remove_all`.
    #[must_use]
    #[inline]
    pub fn floor(&self) -> Levels {
        self.floor
    }

    /// How many tags and registers have a barrier.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len() + self.sketch.len()
    }

    /// Whether no tag and no register has a barrier.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removals of this node that wait for a number, oldest first.
    #[must_use]
    pub fn pending(&self) -> impl ExactSizeIterator<Item = &Pending> + '_ {
        self.pending.iter()
    }

    /// For each strength, the youngest pending removal of a target, as its `born` generation.
    #[must_use]
    pub fn pending_levels(&self, target: Target) -> Levels {
        if sabotaged!(PendingIgnored) {
            return Levels::default();
        }
        self.pending.born(target)
    }

    /// Returns the targets whose levels, floors or pending removals changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Target> {
        std::mem::take(&mut self.changed)
    }

    /// Starts a removal: it hides entries on this node at once, before it has a number.
    ///
    /// Returns the removal to number. If too many wait already, that is one removal of
    /// everything, as hard as the hardest of them, and it replaces them all.
    pub fn begin(&mut self, mut removal: Removal, born: u64) -> Removal {
        if self.pending.len() >= MAX_PENDING {
            for pending in self.pending.take() {
                removal.strength = removal.strength.max(pending.removal.strength);
                self.changed.extend(pending.removal.targets);
            }
            removal.targets = vec![Target::Everything];
        }
        self.changed.extend(removal.targets.iter().copied());
        self.pending.push(removal.clone(), born);
        removal
    }

    /// Another attempt at a pending removal: the same removal under a nonce that was never sent
    /// (B9). `None` if it has a number by now.
    pub fn resend(&mut self, nonce: Nonce, fresh: Nonce) -> Option<Removal> {
        self.pending.renew(nonce, fresh)
    }

    /// Applies the authority's number for a removal of this node.
    pub fn committed(&mut self, removal: Removal, advanced: Advanced) -> ReceiveResult {
        let item = Item { seq: advanced.seq, prev: advanced.prev, removal };
        self.received(advanced.epoch, item)
    }

    /// Applies an announced item.
    pub fn received(&mut self, epoch: Epoch, mut item: Item) -> ReceiveResult {
        if self.epoch != Some(epoch) {
            self.mistrust();
            return ReceiveResult::Foreign;
        }
        let nonce = item.removal.nonce;
        self.settle(nonce);
        if self.knows(nonce, item.seq) {
            return ReceiveResult::Known;
        }
        let crowded = self.ahead.len() >= MAX_AHEAD;
        if crowded {
            item.removal.fold();
        }
        self.apply(&item);
        if let Some(cycle) = &mut self.cycle {
            let strength = item.removal.strength;
            for target in &item.removal.targets {
                let received = cycle.received_since.entry((*target, strength)).or_default();
                *received = item.seq.max(*received);
            }
        }
        if crowded {
            self.mistrust();
            return ReceiveResult::Anomaly;
        }
        let result = self.place(&item);
        self.ahead.insert(nonce, item);
        self.chain();
        result
    }

    /// Whether this removal is known under this number or a later one. A store that repeats a
    /// command by itself after a failover issues another number, and that one counts.
    fn knows(&self, nonce: Nonce, seq: u64) -> bool {
        self.ahead.get(&nonce).is_some_and(|item| item.seq >= seq)
            || self.recent.iter().any(|(known, id)| *id == nonce && *known >= seq)
    }

    /// Compares an unknown item with the contiguous ones (B4).
    fn place(&mut self, item: &Item) -> ReceiveResult {
        if item.seq <= self.frontier {
            self.mistrust();
            return ReceiveResult::Anomaly;
        }
        if sabotaged!(GapIgnored) {
            self.last = item.prev;
        }
        if item.prev == self.last { ReceiveResult::InOrder } else { ReceiveResult::Gap }
    }

    /// Suspends the frontier until a full `SYNC` that starts after this call (B5).
    fn mistrust(&mut self) {
        self.suspect = true;
        if let Some(cycle) = &mut self.cycle {
            cycle.anomaly = true;
        }
    }

    /// Moves the frontier over items that are contiguous now. Does nothing during a `SYNC`, whose
    /// reply decides where the frontier is.
    pub(super) fn chain(&mut self) {
        if self.cycle.is_some() || self.suspect {
            return;
        }
        while let Some(next) = self
            .ahead
            .values()
            .find(|item| item.prev == self.last && item.seq > self.frontier)
            .map(|item| (item.seq, item.removal.nonce))
        {
            let (seq, nonce) = next;
            self.ahead.remove(&nonce);
            self.frontier = seq;
            self.last = Some(nonce);
            self.remember(seq, nonce);
        }
    }

    pub(super) fn remember(&mut self, seq: u64, nonce: Nonce) {
        self.recent.push_back((seq, nonce));
        if self.recent.len() > RECENT_IDS {
            let dropped = self.recent.pop_front().map_or(0, |(seq, _)| seq);
            self.remembers_above = self.remembers_above.max(dropped);
        }
    }

    fn apply(&mut self, item: &Item) {
        self.highest = self.highest.max(item.seq);
        for target in &item.removal.targets {
            self.raise(self.kept(*target), item.removal.strength, item.seq);
        }
    }

    /// The target under which a barrier is kept: its register's if there are too many tags (B7).
    pub(super) fn kept(&self, target: Target) -> Target {
        match target {
            Target::Tag(tag)
                if self.levels.len() >= MAX_BARRIERS && !self.levels.contains_key(&tag) =>
            {
                Target::Register(tag.register())
            }
            _ => target,
        }
    }

    pub(super) fn raise(&mut self, target: Target, strength: Strength, seq: u64) -> bool {
        let moved = match target {
            Target::Everything => self.floor.raise(strength, seq),
            Target::Register(register) => {
                self.sketch.entry(register).or_default().raise(strength, seq)
            }
            Target::Tag(tag) => self.levels.entry(tag).or_default().raise(strength, seq),
        };
        if moved {
            self.changed.insert(target);
        }
        moved
    }

    /// Drops a pending removal that has a number, whichever attempt's nonce it carries.
    pub(super) fn settle(&mut self, nonce: Nonce) {
        for pending in self.pending.settle(nonce) {
            self.changed.extend(pending.removal.targets);
        }
    }
}
