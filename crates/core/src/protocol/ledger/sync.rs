//! How a replica asks the authority and takes the answer in.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Item, Levels, RECENT_IDS, Replica, Standing, Strength, SyncAsk, SyncReply, Synced, Target,
};
use crate::protocol::{Epoch, Nonce};

/// How many epochs a replica remembers to have left.
const FORMER_EPOCHS: usize = 16;

/// A `SYNC` that is under way, over one or more pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cycle {
    pub(super) full: bool,
    pub(super) from: u64,
    /// What the answer has shown so far.
    pub(super) seen: BTreeMap<(Target, Strength), u64>,
    pub(super) ids: Vec<(u64, Nonce)>,
    /// The authority's frontier and newest id as of the page before; the next must continue it.
    pub(super) shown: Option<(u64, Option<Nonce>)>,
    /// What was known when the question left: only that can be called lost.
    pub(super) asked_ahead: BTreeSet<Nonce>,
    pub(super) heard_since: BTreeMap<(Target, Strength), u64>,
    pub(super) anomaly: bool,
    pub(super) new_epoch: bool,
}

impl Cycle {
    /// Whether the answer accounts for an item heard meanwhile. One that it has passed without
    /// showing it is lost, and the next `SYNC` says so (B6).
    fn covers(&self, reply: &SyncReply, item: &Item) -> bool {
        let shown = |target: &Target| {
            let key = (*target, item.removal.strength);
            self.seen.get(&key).copied().unwrap_or(0).max(reply.trim) >= item.seq
        };
        self.ids.iter().any(|(_, id)| *id == item.removal.nonce)
            || (item.seq <= reply.frontier && item.removal.targets.iter().all(shown))
    }
}

impl Replica {
    /// What to ask the authority; the next page if a `SYNC` is under way.
    pub fn ask(&mut self, new_epoch: Epoch, page: usize, retention_ms: u64) -> SyncAsk {
        let full = self.suspect || self.epoch.is_none();
        let from = if full { 0 } else { self.frontier };
        let asked_ahead = self.ahead.keys().copied().collect();
        let cycle = self.cycle.get_or_insert_with(|| Cycle {
            full,
            from,
            seen: BTreeMap::new(),
            ids: Vec::new(),
            asked_ahead,
            heard_since: BTreeMap::new(),
            shown: None,
            anomaly: false,
            new_epoch: false,
        });
        let (frontier, last) = match cycle.shown {
            Some((frontier, last)) => (frontier.max(self.frontier), last),
            None if cycle.full => (self.frontier, None),
            None => (self.frontier, self.last),
        };
        SyncAsk {
            epoch: self.epoch,
            from: cycle.from,
            frontier,
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
            self.chain();
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
                cycle.seen.clear();
                cycle.ids.clear();
                self.suspect = true;
            }
            Standing::Current => {}
        }
        self.merge(reply, &mut cycle);
        if !reply.complete {
            cycle.from = reply.levels.last().map_or(cycle.from, |(seq, _, _)| *seq);
            cycle.shown = Some((reply.frontier, reply.last));
            let new_epoch = cycle.new_epoch;
            self.cycle = Some(cycle);
            return Synced { again: true, new_epoch, ..Synced::default() };
        }
        self.finish(reply, &cycle)
    }

    /// Another epoch: what was known belongs to a life that is over. Pending removals stay.
    ///
    /// A life that comes back (a promoted copy had not seen the flush) lacks what was removed since
    /// the node left it, and entries of it may still be around: that is a fork.
    fn adopt(&mut self, epoch: Epoch, cycle: &mut Cycle) {
        self.changed.extend(self.levels.keys().map(|tag| Target::Tag(*tag)));
        self.changed.insert(Target::Everything);
        self.former.extend(self.epoch);
        if self.former.len() > FORMER_EPOCHS {
            self.former.pop_front();
        }
        self.overtaken = self.former.contains(&epoch);
        self.epoch = Some(epoch);
        self.frontier = 0;
        self.highest = 0;
        self.last = None;
        self.recent.clear();
        self.remembers_above = 0;
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
            let moved = self.raise(target, *strength, *seq);
            self.overtaken |= moved && *seq <= self.frontier && *seq > self.trimmed;
            cycle.seen.insert((target, *strength), *seq);
        }
        for strength in [Strength::Soft, Strength::Hard] {
            let seq = reply.floor.of(strength);
            let moved = self.raise(Target::Everything, strength, seq);
            let folded = seq <= reply.trim.max(self.trimmed);
            self.overtaken |= moved && seq <= self.frontier && !folded;
            cycle.seen.insert((Target::Everything, strength), seq);
        }
        cycle.ids.extend(reply.ids.iter().copied());
    }

    fn finish(&mut self, reply: &SyncReply, cycle: &Cycle) -> Synced {
        let forked = cycle.full && (self.overtaken || self.is_forked(&cycle.ids));
        let mut reissue = self.lost(reply, cycle);
        if forked {
            reissue = vec![(Strength::Hard, Target::Everything)];
        }
        self.take_ids(cycle);
        self.frontier = reply.frontier;
        self.highest = self.highest.max(self.frontier);
        self.last = reply.last;
        self.ahead.retain(|id, item| !cycle.asked_ahead.contains(id) && !cycle.covers(reply, item));
        self.overtaken &= !cycle.full;
        self.suspect = cycle.anomaly || self.overtaken;
        self.forget(reply.trim);
        self.chain();
        let again = !self.ahead.is_empty() || self.suspect;
        Synced { again, new_epoch: cycle.new_epoch, forked, reissue }
    }

    /// Remembers the ids of the answer, and settles what is pending only now: between two pages
    /// the number of a removal may be known while the barrier that replaced it is not.
    fn take_ids(&mut self, cycle: &Cycle) {
        if cycle.full {
            self.recent.clear();
            self.remembers_above = 0;
        }
        if let Some((first, _)) = cycle.ids.first()
            && cycle.ids.len() >= RECENT_IDS
        {
            self.remembers_above = self.remembers_above.max(first.saturating_sub(1));
        }
        for (seq, id) in &cycle.ids {
            self.settle(*id);
            self.remember(*seq, *id);
        }
    }

    /// The authority holds a number at or below our frontier that we never saw there.
    fn is_forked(&self, ids: &[(u64, Nonce)]) -> bool {
        ids.iter().any(|(seq, id)| {
            *seq > self.remembers_above
                && *seq <= self.frontier
                && !self.recent.iter().any(|(_, r)| r == id)
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
                let heard = cycle.heard_since.get(&(*target, *strength)).copied().unwrap_or(0);
                *seq > reply.trim.max(self.trimmed) && *seq > shown && *seq > heard
            })
            .map(|(strength, target, _)| (strength, target))
            .collect()
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
}
