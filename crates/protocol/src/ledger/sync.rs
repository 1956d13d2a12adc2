//! The `SYNC` cycle of a replica: requests to the authority, and what their replies change.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Item, Levels, MAX_PENDING, RECENT_IDS, Replica, Standing, Strength, SyncAsk, SyncReply, Synced,
    Target,
};
use crate::{Epoch, Nonce};

/// How many former epochs a replica remembers.
const FORMER_EPOCHS: usize = 16;

/// A `SYNC` in progress, over one or more pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cycle {
    pub(super) full: bool,
    pub(super) from: u64,
    /// The barriers in the replies so far.
    pub(super) seen: BTreeMap<(Target, Strength), u64>,
    pub(super) ids: Vec<(u64, Nonce)>,
    /// The authority's frontier and newest id in the previous page; the next must continue from it.
    pub(super) shown: Option<(u64, Option<Nonce>)>,
    /// The items known when the request was sent: only these can count as lost.
    pub(super) asked_ahead: BTreeSet<Nonce>,
    pub(super) received_since: BTreeMap<(Target, Strength), u64>,
    pub(super) anomaly: bool,
    pub(super) new_epoch: bool,
}

impl Cycle {
    /// Whether the reply accounts for an item received meanwhile. If the reply has passed it
    /// without showing it, the item is lost, and the next `SYNC` finds that (B6).
    fn covers(&self, reply: &SyncReply, item: &Item) -> bool {
        let shown = |target: &Target| self.hides(*target, item.removal.strength) >= item.seq;
        self.ids.iter().any(|(_, id)| *id == item.removal.nonce)
            || (item.seq <= reply.frontier && item.removal.targets.iter().all(shown))
    }

    /// The number up to which the reply hides everything that a barrier of this target hides: by
    /// that barrier, by its register, or by the floor.
    fn hides(&self, target: Target, strength: Strength) -> u64 {
        let seen = |target| self.seen.get(&(target, strength)).copied().unwrap_or(0);
        let register = match target {
            Target::Tag(tag) => seen(Target::Register(tag.register())),
            Target::Register(_) | Target::Everything => 0,
        };
        seen(target).max(register).max(seen(Target::Everything))
    }
}

impl Replica {
    /// The request to send; for the next page if a `SYNC` is in progress.
    pub fn ask(&mut self, new_epoch: Epoch, page: usize, retention_ms: u64) -> SyncAsk {
        // Without a newest id there is nothing to compare the frontier with, and little to load.
        let full = self.suspect || self.epoch.is_none() || self.last.is_none();
        let from = if full { 0 } else { self.frontier };
        let asked_ahead = self.ahead.keys().copied().collect();
        let cycle = self.cycle.get_or_insert_with(|| Cycle {
            full,
            from,
            seen: BTreeMap::new(),
            ids: Vec::new(),
            asked_ahead,
            received_since: BTreeMap::new(),
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

    /// Ends a request that got no reply; the next one starts over.
    pub fn abandon(&mut self) {
        if let Some(cycle) = self.cycle.take() {
            self.suspect |= cycle.anomaly || cycle.new_epoch;
            self.chain();
        }
    }

    /// Applies a reply of the authority.
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

    /// Adopts another epoch and drops everything of the old one except pending removals.
    ///
    /// An old epoch can come back when a promoted copy had not seen the flush. It lacks the
    /// removals since this node left it, and entries of it may still exist: that is a fork.
    fn adopt(&mut self, epoch: Epoch, cycle: &mut Cycle) {
        self.changed.extend(self.levels.keys().map(|tag| Target::Tag(*tag)));
        self.changed.extend(self.sketch.keys().map(|register| Target::Register(*register)));
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
        self.sketch.clear();
        self.floor = Levels::default();
        self.ahead.clear();
        self.trimmed = 0;
        self.folded = 0;
        self.suspect = true;
        cycle.full = true;
        cycle.from = 0;
        cycle.new_epoch = true;
        cycle.seen.clear();
        cycle.ids.clear();
        cycle.asked_ahead.clear();
        cycle.received_since.clear();
    }

    fn merge(&mut self, reply: &SyncReply, cycle: &mut Cycle) {
        for (seq, target, strength) in &reply.levels {
            let target = &self.kept(*target);
            let moved = self.raise(*target, *strength, *seq);
            // A register that rises proves nothing: this node may know its barriers one by one.
            let is_tag = matches!(target, Target::Tag(_));
            let kept = *seq > self.trimmed.max(self.folded);
            self.overtaken |= moved && is_tag && kept && *seq <= self.frontier;
            cycle.seen.insert((*target, *strength), *seq);
        }
        for strength in [Strength::Soft, Strength::Hard] {
            let seq = reply.floor.of(strength);
            let moved = self.raise(Target::Everything, strength, seq);
            let dropped = seq <= reply.trim.max(self.trimmed);
            self.overtaken |= moved && seq <= self.frontier && !dropped;
            cycle.seen.insert((Target::Everything, strength), seq);
        }
        cycle.ids.extend(reply.ids.iter().copied());
    }

    fn finish(&mut self, reply: &SyncReply, cycle: &Cycle) -> Synced {
        let forked = cycle.full && (self.overtaken || self.is_forked(&cycle.ids));
        let mut reissue = self.lost(reply, cycle);
        if sabotaged!(LostNotReissued) {
            reissue.clear();
        } else if forked {
            reissue = vec![(Strength::Hard, Target::Everything)];
        } else if reissue.len() >= MAX_PENDING {
            // this many pending removals would fold into one of everything anyway.
            let hardest = reissue.iter().map(|(strength, _)| *strength).max();
            reissue = hardest.map(|strength| (strength, Target::Everything)).into_iter().collect();
        }
        self.take_ids(cycle);
        self.frontier = reply.frontier;
        self.highest = self.highest.max(self.frontier);
        self.last = reply.last;
        self.ahead.retain(|id, item| !cycle.asked_ahead.contains(id) && !cycle.covers(reply, item));
        self.overtaken &= !cycle.full;
        self.suspect = cycle.anomaly || self.overtaken;
        self.forget(reply.trim);
        self.fold(reply.folded);
        self.chain();
        let again = !self.ahead.is_empty() || self.suspect;
        Synced { again, new_epoch: cycle.new_epoch, forked, reissue }
    }

    /// Remembers the reply's ids and settles pending removals. Not before the last page: between
    /// two pages the number of a removal may be known before the barrier that replaced it.
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

    /// Whether the authority has a number at or below our frontier that we never saw there.
    fn is_forked(&self, ids: &[(u64, Nonce)]) -> bool {
        ids.iter().any(|(seq, id)| {
            *seq > self.remembers_above
                && *seq <= self.frontier
                && !self.recent.iter().any(|(_, r)| r == id)
        })
    }

    /// The items known when the request was sent that nothing in the reply hides (B6).
    fn lost(&self, reply: &SyncReply, cycle: &Cycle) -> Vec<(Strength, Target)> {
        if cycle.new_epoch {
            return Vec::new();
        }
        let trimmed = reply.trim.max(self.trimmed);
        let numbers: BTreeSet<u64> = cycle.seen.values().copied().collect();
        let mut known = if cycle.full { self.all() } else { self.asked_ahead(cycle) };
        known.retain(|(strength, target, seq)| {
            let received = cycle.received_since.get(&(*target, *strength)).copied().unwrap_or(0);
            let excused = match target {
                // The floor may hold barriers that this node has dropped and the authority has not.
                Target::Everything => *seq <= trimmed,
                // So may a register, and then the authority still has its newest barrier.
                Target::Register(_) => numbers.contains(seq),
                Target::Tag(_) => false,
            };
            *seq > cycle.hides(*target, *strength).max(received) && !excused
        });
        known.into_iter().map(|(strength, target, _)| (strength, target)).collect()
    }

    /// All barriers of this node.
    fn all(&self) -> Vec<(Strength, Target, u64)> {
        let tags = self.levels.iter().map(|(tag, levels)| (Target::Tag(*tag), *levels));
        let old = self.sketch.iter().map(|(index, levels)| (Target::Register(*index), *levels));
        let all = tags.chain(old).chain([(Target::Everything, self.floor)]);
        let both = [Strength::Soft, Strength::Hard];
        all.flat_map(|(target, levels)| both.map(|kind| (kind, target, levels.of(kind)))).collect()
    }

    /// The barriers above the frontier when the request was sent.
    fn asked_ahead(&self, cycle: &Cycle) -> Vec<(Strength, Target, u64)> {
        let asked = self.ahead.values().filter(|i| cycle.asked_ahead.contains(&i.removal.nonce));
        asked
            .flat_map(|item| {
                let strength = item.removal.strength;
                item.removal.targets.iter().map(move |target| (strength, *target, item.seq))
            })
            .collect()
    }

    /// Drops barriers that the authority has dropped: they are older than any entry they could
    /// hide, or a floor covers them.
    fn forget(&mut self, trim: u64) {
        if trim <= self.trimmed {
            return;
        }
        self.trimmed = trim;
        let changed = &mut self.changed;
        let mut keep = |target, levels: &mut Levels| {
            let keep = levels.soft.max(levels.hard) > trim;
            if !keep {
                changed.insert(target);
            }
            keep
        };
        self.levels.retain(|tag, levels| keep(Target::Tag(*tag), levels));
        self.sketch.retain(|register, levels| keep(Target::Register(*register), levels));
    }

    /// Folds what the authority has folded, so that both keep the same barriers (B7). Barriers that
    /// a newer removal of their tag has replaced here do not fold: the newer one hides more.
    fn fold(&mut self, folded: u64) {
        if folded <= self.folded {
            return;
        }
        self.folded = folded;
        let mut folding = Vec::new();
        self.levels.retain(|tag, levels| {
            for (strength, level) in
                [(Strength::Soft, &mut levels.soft), (Strength::Hard, &mut levels.hard)]
            {
                if (1..=folded).contains(level) {
                    folding.push((*tag, strength, std::mem::take(level)));
                }
            }
            *levels != Levels::default()
        });
        for (tag, strength, seq) in folding {
            self.changed.insert(Target::Tag(tag));
            self.raise(Target::Register(tag.register()), strength, seq);
        }
    }
}
