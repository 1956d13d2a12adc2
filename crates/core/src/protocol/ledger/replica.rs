use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Advanced, Item, Levels, RECENT_IDS, Removal, Standing, Strength, SyncAsk, SyncReply, Target,
};
use crate::protocol::{Epoch, Nonce, TagHash};

/// What hearing an item meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hearing {
    /// The next one: the frontier moved.
    InOrder,
    /// Known already; nothing changed.
    Known,
    /// Something before it is missing: applied, the frontier stays, `SYNC`.
    Gap,
    /// An unknown number at or below the frontier: suspect until a full `SYNC`.
    Anomaly,
    /// Of an epoch this node does not know: suspect until `SYNC`.
    Foreign,
}

/// What a completed or continued `SYNC` asks of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Synced {
    /// Another page, or another `SYNC`, is needed at once.
    pub again: bool,
    /// The node has adopted another epoch.
    pub new_epoch: bool,
    /// The authority lost history and issued numbers this node had passed (after a failover).
    pub forked: bool,
    /// What only this node knows, to be issued again under fresh nonces (B6).
    pub reissue: Vec<(Strength, Target)>,
}

/// A removal of this node that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// What it removes.
    pub removal: Removal,
    /// The node's generation when it began: only factories begun at or after it on this node pass.
    pub born: u64,
}

/// One node's copy of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    epoch: Option<Epoch>,
    frontier: u64,
    last: Option<Nonce>,
    recent: VecDeque<(u64, Nonce)>,
    levels: BTreeMap<TagHash, Levels>,
    floor: Levels,
    ahead: BTreeMap<Nonce, Item>,
    pending: Vec<Pending>,
    suspect: bool,
    trimmed: u64,
    cycle: Option<Cycle>,
    changed: BTreeSet<Target>,
}

/// A `SYNC` that is under way, over one or more pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cycle {
    full: bool,
    from: u64,
    /// What the answer has shown so far.
    seen: BTreeMap<(Target, Strength), u64>,
    ids: Vec<(u64, Nonce)>,
    /// What was known when the question left: only that can be called lost.
    asked_ahead: BTreeSet<Nonce>,
    heard_since: BTreeSet<(Target, Strength)>,
    anomaly: bool,
    new_epoch: bool,
}

impl Replica {
    /// The epoch adopted by the first `SYNC`; `None` before it.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The number at or below which every removal is known (B1). This is what a stamp is.
    #[must_use]
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// Whether nothing may be called fresh until a `SYNC` (B5). A node that has never met a ledger
    /// is not suspect: it knows nothing, and nothing of the ledger's epoch is valid there.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// The levels of a tag; zero if it was never removed.
    #[must_use]
    pub fn levels(&self, tag: TagHash) -> Levels {
        self.levels.get(&tag).copied().unwrap_or_default()
    }

    /// The floors raised by `clear` and `clear_hard`.
    #[must_use]
    pub fn floor(&self) -> Levels {
        self.floor
    }

    /// How many tags have a barrier.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    /// Whether no tag has a barrier.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Removals of this node that wait for a number, oldest first.
    #[must_use]
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// For each strength, the youngest pending removal of a target, as its `born` generation.
    #[must_use]
    pub fn pending_levels(&self, target: Target) -> Levels {
        let mut born = Levels::default();
        for pending in &self.pending {
            if pending.removal.targets.contains(&target) {
                born.raise(pending.removal.strength, pending.born);
            }
        }
        born
    }

    /// Targets whose levels, floors or pending marks moved since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Target> {
        std::mem::take(&mut self.changed)
    }

    /// A removal begins: it hides here at once, before it has a number.
    pub fn begin(&mut self, removal: Removal, born: u64) {
        self.changed.extend(removal.targets.iter().copied());
        self.pending.push(Pending { removal, born });
    }

    /// The authority numbered a removal of this node.
    pub fn committed(&mut self, removal: Removal, advanced: Advanced) -> Hearing {
        let item = Item { seq: advanced.seq, prev: advanced.prev, removal };
        self.heard(advanced.epoch, item)
    }

    /// An item was announced.
    pub fn heard(&mut self, epoch: Epoch, item: Item) -> Hearing {
        if self.epoch != Some(epoch) {
            self.suspect = true;
            return Hearing::Foreign;
        }
        let nonce = item.removal.nonce;
        self.settle(nonce);
        if self.ahead.contains_key(&nonce) || self.recent.iter().any(|(_, id)| *id == nonce) {
            return Hearing::Known;
        }
        self.apply(&item);
        if let Some(cycle) = &mut self.cycle {
            let strength = item.removal.strength;
            cycle.heard_since.extend(item.removal.targets.iter().map(|t| (*t, strength)));
        }
        let hearing = self.place(&item);
        self.ahead.insert(nonce, item);
        self.chain();
        hearing
    }

    /// What to ask the authority; the next page if a `SYNC` is under way.
    pub fn ask(&mut self, new_epoch: Epoch, page: usize, retention_ms: u64) -> SyncAsk {
        let full = self.suspect || self.epoch.is_none();
        let from = if full { 0 } else { self.frontier };
        let asked_ahead = self.ahead.keys().copied().collect();
        let first = self.cycle.is_none();
        let cycle = self.cycle.get_or_insert_with(|| Cycle {
            full,
            from,
            seen: BTreeMap::new(),
            ids: Vec::new(),
            asked_ahead,
            heard_since: BTreeSet::new(),
            anomaly: false,
            new_epoch: false,
        });
        let last = if cycle.full || !first { None } else { self.last };
        SyncAsk {
            epoch: self.epoch,
            from: cycle.from,
            frontier: self.frontier,
            last,
            new_epoch,
            page,
            retention_ms,
        }
    }

    /// The question got no answer; the next one starts over.
    pub fn abandon(&mut self) {
        if let Some(cycle) = self.cycle.take() {
            self.suspect |= cycle.anomaly || cycle.new_epoch;
        }
    }

    /// The authority answered.
    pub fn synced(&mut self, reply: &SyncReply) -> Synced {
        let Some(mut cycle) = self.cycle.take() else {
            return Synced { again: true, ..Synced::default() };
        };
        match reply.standing {
            Standing::NewEpoch => self.adopt(reply.epoch, &mut cycle),
            Standing::Reload => {
                cycle.full = true;
                cycle.from = 0;
                self.suspect = true;
            }
            Standing::Current => {}
        }
        self.merge(reply, &mut cycle);
        if !reply.complete {
            cycle.from = reply.levels.last().map_or(cycle.from, |(seq, _, _)| *seq);
            let new_epoch = cycle.new_epoch;
            self.cycle = Some(cycle);
            return Synced { again: true, new_epoch, ..Synced::default() };
        }
        self.finish(reply, &cycle)
    }

    /// Another epoch: what was known belongs to a life that is over. Pending removals stay.
    fn adopt(&mut self, epoch: Epoch, cycle: &mut Cycle) {
        self.changed.extend(self.levels.keys().map(|tag| Target::Tag(*tag)));
        self.changed.insert(Target::Everything);
        self.epoch = Some(epoch);
        self.frontier = 0;
        self.last = None;
        self.recent.clear();
        self.levels.clear();
        self.floor = Levels::default();
        self.ahead.clear();
        self.trimmed = 0;
        self.suspect = true;
        cycle.full = true;
        cycle.from = 0;
        cycle.new_epoch = true;
        cycle.seen.clear();
        cycle.ids.clear();
        cycle.asked_ahead.clear();
        cycle.heard_since.clear();
    }

    fn merge(&mut self, reply: &SyncReply, cycle: &mut Cycle) {
        for (seq, tag, strength) in &reply.levels {
            let target = Target::Tag(*tag);
            self.raise(target, *strength, *seq);
            cycle.seen.insert((target, *strength), *seq);
        }
        for strength in [Strength::Soft, Strength::Hard] {
            let seq = reply.floor.of(strength);
            self.raise(Target::Everything, strength, seq);
            cycle.seen.insert((Target::Everything, strength), seq);
        }
        for (_, id) in &reply.ids {
            self.settle(*id);
        }
        cycle.ids.extend(reply.ids.iter().copied());
    }

    fn finish(&mut self, reply: &SyncReply, cycle: &Cycle) -> Synced {
        let forked = cycle.full && !cycle.new_epoch && self.is_forked(&cycle.ids);
        let mut reissue = self.lost(reply, cycle);
        if forked {
            reissue = vec![(Strength::Hard, Target::Everything)];
        }
        if cycle.full {
            self.recent.clear();
        }
        for (seq, id) in &cycle.ids {
            self.remember(*seq, *id);
        }
        self.frontier = reply.frontier;
        self.last = reply.last;
        self.ahead.retain(|id, item| item.seq > reply.frontier && !cycle.asked_ahead.contains(id));
        self.suspect = cycle.anomaly;
        self.forget(reply.trim);
        self.chain();
        let again = !self.ahead.is_empty() || self.suspect;
        Synced { again, new_epoch: cycle.new_epoch, forked, reissue }
    }

    /// The authority holds a number at or below our frontier that we never saw there.
    fn is_forked(&self, ids: &[(u64, Nonce)]) -> bool {
        let Some((oldest, _)) = self.recent.front() else { return false };
        ids.iter().any(|(seq, id)| {
            seq >= oldest && *seq <= self.frontier && !self.recent.iter().any(|(_, r)| r == id)
        })
    }

    /// What was known when the question left, is not in the answer, and was not merely trimmed.
    fn lost(&self, reply: &SyncReply, cycle: &Cycle) -> Vec<(Strength, Target)> {
        if cycle.new_epoch {
            return Vec::new();
        }
        let mut known: Vec<(Strength, Target, u64)> = Vec::new();
        if cycle.full {
            for strength in [Strength::Soft, Strength::Hard] {
                let tags = self.levels.iter().map(|(tag, l)| (Target::Tag(*tag), l.of(strength)));
                let floor = (Target::Everything, self.floor.of(strength));
                known.extend(tags.chain([floor]).map(|(target, seq)| (strength, target, seq)));
            }
        } else {
            let asked =
                self.ahead.values().filter(|i| cycle.asked_ahead.contains(&i.removal.nonce));
            for item in asked {
                let strength = item.removal.strength;
                known.extend(item.removal.targets.iter().map(|t| (strength, *t, item.seq)));
            }
        }
        known
            .into_iter()
            .filter(|(strength, target, seq)| {
                let shown = cycle.seen.get(&(*target, *strength)).copied().unwrap_or(0);
                let fresh_news = cycle.heard_since.contains(&(*target, *strength));
                *seq > reply.trim && *seq > shown && !fresh_news
            })
            .map(|(strength, target, _)| (strength, target))
            .collect()
    }

    /// Where an unknown item stands relative to what is contiguous (B4).
    fn place(&mut self, item: &Item) -> Hearing {
        if item.seq <= self.frontier {
            self.suspect = true;
            if let Some(cycle) = &mut self.cycle {
                cycle.anomaly = true;
            }
            return Hearing::Anomaly;
        }
        if item.prev == self.last { Hearing::InOrder } else { Hearing::Gap }
    }

    /// Moves the frontier over items that are contiguous now. Not while a `SYNC` is under way: its
    /// answer decides where the frontier is.
    fn chain(&mut self) {
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

    fn remember(&mut self, seq: u64, nonce: Nonce) {
        self.recent.push_back((seq, nonce));
        if self.recent.len() > RECENT_IDS {
            self.recent.pop_front();
        }
    }

    fn apply(&mut self, item: &Item) {
        for target in &item.removal.targets {
            self.raise(*target, item.removal.strength, item.seq);
        }
    }

    fn raise(&mut self, target: Target, strength: Strength, seq: u64) {
        let moved = match target {
            Target::Everything => self.floor.raise(strength, seq),
            Target::Tag(tag) => self.levels.entry(tag).or_default().raise(strength, seq),
        };
        if moved {
            self.changed.insert(target);
        }
    }

    /// Drops barriers the authority has dropped: they outlived what they hid, or a floor covers it.
    fn forget(&mut self, trim: u64) {
        if trim <= self.trimmed {
            return;
        }
        self.trimmed = trim;
        let changed = &mut self.changed;
        self.levels.retain(|tag, levels| {
            let keep = levels.soft.max(levels.hard) > trim;
            if !keep {
                changed.insert(Target::Tag(*tag));
            }
            keep
        });
    }

    /// A pending removal of this node has its number.
    fn settle(&mut self, nonce: Nonce) {
        let changed = &mut self.changed;
        self.pending.retain(|pending| {
            let done = pending.removal.nonce == nonce;
            if done {
                changed.extend(pending.removal.targets.iter().copied());
            }
            !done
        });
    }
}
