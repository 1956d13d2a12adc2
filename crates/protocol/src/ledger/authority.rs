use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{
    Advance, Advanced, Levels, MAX_DRIFT_US, RECENT_IDS, Standing, Strength, SyncAsk, SyncReply,
    Target,
};
use crate::{Epoch, Nonce};

/// Numbers the removals of a cache. A cache has one.
///
/// It mirrors the Redis scripts and is the whole ledger of the in-memory L2. Time is an argument,
/// in microseconds since the Unix epoch. It comes from the *store's* clock and may jump.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    state: Option<LedgerState>,
    cap: usize,
}

/// The whole state of an [`Authority`], for a store that keeps it in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "built by every store that keeps it in pieces")]
pub struct Snapshot {
    /// The epoch.
    pub epoch: Epoch,
    /// The last number issued, or the frontier of a replica that was higher.
    pub frontier: u64,
    /// Barriers at or below this number may have been dropped into the floors.
    pub trim: u64,
    /// Barriers of tags at or below this number are in registers.
    pub folded: u64,
    /// The floors.
    pub floor: Levels,
    /// How long barriers are kept, in milliseconds: the longest that any caller has asked for (B8).
    pub retention_ms: u64,
    /// The newest ids, ascending.
    pub ids: Vec<(u64, Nonce)>,
    /// The barriers of tags and registers, ascending.
    pub levels: Vec<(u64, Target, Strength)>,
}

impl Snapshot {
    /// Folds all but at most `cap` exact barriers of tags, for a store that decides when to fold.
    #[must_use]
    pub fn folded_to(self, cap: usize) -> Self {
        let mut authority = Authority::restore(self.clone(), cap);
        if let Some(state) = &mut authority.state {
            state.fold(cap);
        }
        authority.snapshot().unwrap_or(self)
    }
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LedgerState {
    epoch: Epoch,
    frontier: u64,
    trim: u64,
    folded: u64,
    floor: Levels,
    retention_ms: u64,
    ids: BTreeMap<u64, Nonce>,
    by_target: BTreeMap<(Target, Strength), u64>,
    by_seq: BTreeSet<(u64, Target, Strength)>,
    /// How many barriers are above `folded`.
    exact: usize,
}

impl Default for Authority {
    fn default() -> Self {
        Self::with_capacity(200_000)
    }
}

impl Authority {
    /// Creates a ledger that keeps at most `cap` barriers of tags exactly. Older ones fold into
    /// registers, which can hide more, never less (B7).
    #[must_use]
    pub fn with_capacity(cap: usize) -> Self {
        Self { state: None, cap }
    }

    /// Restores the ledger from a snapshot of all of it or of a part.
    #[must_use]
    pub fn restore(snapshot: Snapshot, cap: usize) -> Self {
        let Snapshot { epoch, frontier, trim, folded, floor, retention_ms, ids, levels } = snapshot;
        let ids = ids.into_iter().collect();
        let state = LedgerState::begin(epoch, 0);
        let mut state = LedgerState { frontier, trim, folded, floor, retention_ms, ids, ..state };
        for (seq, target, strength) in levels {
            state.raise(target, strength, seq);
        }
        Self { state: Some(state), cap }
    }

    /// The state to keep; `None` if there has been no ledger yet.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let state = self.state.as_ref()?;
        Some(Snapshot {
            epoch: state.epoch,
            frontier: state.frontier,
            trim: state.trim,
            folded: state.folded,
            floor: state.floor,
            retention_ms: state.retention_ms,
            ids: state.ids.iter().map(|(seq, id)| (*seq, *id)).collect(),
            levels: state.by_seq.iter().copied().collect(),
        })
    }

    /// Numbers a removal; a repeated nonce gets the same number again.
    pub fn advance(&mut self, now_us: u64, ask: &Advance) -> Advanced {
        let cap = self.cap;
        let state = self.state(now_us, ask.new_epoch);
        state.keep_for(ask.retention_ms);
        let caller = if ask.epoch == Some(state.epoch) { ask.frontier } else { 0 };
        if let Some((seq, prev)) = state.find(ask.removal.nonce) {
            return Advanced { epoch: state.epoch, prev, seq, announced: false };
        }
        let prev = state.last();
        let seq = now_us.max(state.frontier.saturating_add(1)).max(caller.saturating_add(1));
        state.frontier = seq;
        state.ids.insert(seq, ask.removal.nonce);
        for target in &ask.removal.targets {
            state.raise(*target, ask.removal.strength, seq);
        }
        state.trim(now_us, ask.retention_ms);
        state.fold(cap);
        Advanced { epoch: state.epoch, prev, seq, announced: false }
    }

    /// Returns the items above the replica's frontier, or says why it must load everything.
    pub fn sync(&mut self, now_us: u64, ask: &SyncAsk) -> SyncReply {
        let state = self.state(now_us, ask.new_epoch);
        state.keep_for(ask.retention_ms);
        let standing = state.standing(ask);
        if ask.epoch == Some(state.epoch) {
            state.frontier = state.frontier.max(ask.frontier);
        }
        let from = if standing == Standing::Current { ask.from } else { 0 };
        let (ids, levels, complete) = state.page(from, ask.page);
        SyncReply {
            standing,
            epoch: state.epoch,
            frontier: state.frontier,
            trim: state.trim,
            folded: state.folded,
            floor: state.floor,
            last: state.last(),
            ids,
            levels,
            complete,
            now_us,
        }
    }

    /// The last number issued, if its epoch is this one.
    #[must_use]
    pub fn frontier(&self, epoch: Epoch) -> Option<u64> {
        self.state.as_ref().filter(|state| state.epoch == epoch).map(|state| state.frontier)
    }

    /// How many barriers are kept, of tags and of registers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.by_target.len())
    }

    /// Whether no barrier is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The current epoch. Begins a new one if there is none or its numbers are ahead of the clock.
    fn state(&mut self, now_us: u64, new_epoch: Epoch) -> &mut LedgerState {
        let outrun = self
            .state
            .as_ref()
            .is_some_and(|state| state.frontier > now_us.saturating_add(MAX_DRIFT_US));
        if outrun {
            self.state = None;
        }
        self.state.get_or_insert_with(|| LedgerState::begin(new_epoch, now_us))
    }
}

impl LedgerState {
    fn begin(epoch: Epoch, now_us: u64) -> Self {
        Self {
            epoch,
            frontier: now_us,
            trim: 0,
            folded: 0,
            floor: Levels::default(),
            retention_ms: 0,
            ids: BTreeMap::new(),
            by_target: BTreeMap::new(),
            by_seq: BTreeSet::new(),
            exact: 0,
        }
    }

    /// Keeps barriers for the longest retention that any caller has asked for (B8).
    fn keep_for(&mut self, retention_ms: u64) {
        self.retention_ms = self.retention_ms.max(retention_ms);
    }

    fn last(&self) -> Option<Nonce> {
        self.ids.last_key_value().map(|(_, id)| *id)
    }

    /// The number of a nonce and the id before it.
    fn find(&self, nonce: Nonce) -> Option<(u64, Option<Nonce>)> {
        let seq = self.ids.iter().find(|(_, id)| **id == nonce).map(|(seq, _)| *seq)?;
        let prev = self.ids.range(..seq).next_back().map(|(_, id)| *id);
        Some((seq, prev))
    }

    fn standing(&self, ask: &SyncAsk) -> Standing {
        if ask.epoch != Some(self.epoch) {
            return Standing::NewEpoch;
        }
        let Some(id) = ask.last else { return Standing::Current };
        // "The authority has this id" is not enough: a retry may have numbered the removal again,
        // above other items that the replica missed.
        let newest = self.ids.range(..=ask.frontier).next_back();
        if newest.is_some_and(|(_, newest)| *newest == id) {
            Standing::Current
        } else {
            Standing::Reload
        }
    }

    fn raise(&mut self, target: Target, strength: Strength, seq: u64) {
        if target == Target::Everything {
            self.floor.raise(strength, seq);
            return;
        }
        let known = self.by_target.get(&(target, strength)).copied();
        if known.is_some_and(|known| known >= seq) {
            return;
        }
        if let Some(known) = known {
            self.drop(known, target, strength);
        }
        self.by_target.insert((target, strength), seq);
        self.by_seq.insert((seq, target, strength));
        self.exact += usize::from(seq > self.folded);
    }

    fn drop(&mut self, seq: u64, target: Target, strength: Strength) {
        self.by_target.remove(&(target, strength));
        self.by_seq.remove(&(seq, target, strength));
        self.exact -= usize::from(seq > self.folded);
    }

    /// Drops ids beyond the newest, and barriers older than the retention.
    ///
    /// A dropped barrier raises the floor of its strength. That hides nothing more: the barrier is
    /// older than any entry it could hide. If the clock has jumped ahead, only the floor hides
    /// them.
    fn trim(&mut self, now_us: u64, asked_ms: u64) {
        while self.ids.len() > RECENT_IDS {
            self.ids.pop_first();
        }
        let forgets = sabotaged!(RetentionBelowTtl);
        let retention_ms = match self.retention_ms {
            _ if forgets => 0,
            _ if sabotaged!(RetentionOfTheCaller) => asked_ms,
            // No caller has given a retention.
            0 => return,
            kept_ms => kept_ms,
        };
        let oldest_kept = now_us.saturating_sub(retention_ms.saturating_mul(1000));
        while let Some(&(seq, target, strength)) = self.by_seq.first()
            && seq < oldest_kept
        {
            self.drop(seq, target, strength);
            if !forgets {
                self.floor.raise(strength, seq);
            }
            self.trim = self.trim.max(seq);
        }
    }

    /// Folds the oldest barriers into their registers, number by number, until `cap` are left (B7).
    fn fold(&mut self, cap: usize) {
        while self.exact > cap {
            let oldest = self.above(self.folded).next();
            let Some((number, _, _)) = oldest else { return };
            let folding = self.numbered(number);
            self.folded = number;
            self.exact -= folding.len();
            for (seq, target, strength) in folding {
                // A register that was issued again may be among them: it stays as it is.
                if let Target::Tag(tag) = target {
                    self.drop(seq, target, strength);
                    self.raise(Target::Register(tag.register()), strength, seq);
                }
            }
        }
    }

    fn above(&self, number: u64) -> impl Iterator<Item = (u64, Target, Strength)> + '_ {
        let first = (number.saturating_add(1), Target::Everything, Strength::Soft);
        self.by_seq.range(first..).copied()
    }

    /// All barriers of one number.
    fn numbered(&self, number: u64) -> Vec<(u64, Target, Strength)> {
        let first = (number, Target::Everything, Strength::Soft);
        self.by_seq.range(first..).take_while(|(seq, _, _)| *seq == number).copied().collect()
    }

    /// About `page` items above `from`; never splits one number.
    #[expect(clippy::type_complexity, reason = "three columns of one reply")]
    fn page(
        &self,
        from: u64,
        page: usize,
    ) -> (Vec<(u64, Nonce)>, Vec<(u64, Target, Strength)>, bool) {
        let mut levels: Vec<_> = self.above(from).take(page.saturating_add(1)).collect();
        let complete = levels.len() <= page;
        let mut upto = u64::MAX;
        if !complete {
            let (first, cut) = (levels[0].0, levels[page].0);
            if first == cut {
                // One number exceeds a page. Without progress the replica would request the page
                // for ever.
                levels = self.numbered(first);
            } else {
                levels.retain(|(seq, _, _)| *seq < cut);
            }
            upto = levels.last().map_or(from, |(seq, _, _)| *seq);
        }
        let ids = self
            .ids
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(|(seq, _)| **seq <= upto)
            .map(|(seq, id)| (*seq, *id))
            .collect();
        (ids, levels, complete)
    }
}
