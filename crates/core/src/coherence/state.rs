use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::CoherenceTtl;
use super::recent_removals::RecentRemovals;
use super::rounds::Rounds;
use super::sending::SendingRemovals;
use super::sync_mutex::SyncMutex;
use crate::clock::Moment;
use crate::entry::{Meta, Stamp};
use crate::protocol::ledger::{
    Advanced, Item, MAX_DRIFT_US, Mark, ReceiveResult, Removal, Replica, SyncAsk, SyncReply,
    Synced, Target,
};
use crate::protocol::resync::ResyncReason;
use crate::protocol::validity::{Knowledge, TagLevels, Verdict, judge};
use crate::protocol::{Epoch, Nonce, TagHash};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, fence};
use crate::tags::{Cells, TagState, Tags};
use crate::telemetry::Counter;

/// What this node knows: the ledger replica, and the atomics that the hit path judges entries by.
///
/// Invariants:
///
/// - **N1** Everything below `generation` is written under the ledger's lock, and `generation` is
///   bumped (release) after it. A checker reads `generation` first (acquire), then the rest, and
///   stores the generation it read: a memo never covers a barrier it has not seen.
/// - **N2** A stamp is taken under the lock, so its epoch, frontier and generation belong together.
/// - **N3** Only a Fresh verdict is remembered, and the two time checks are never skipped.
/// - **N4** The parts of a verdict belong together. `seqlock` is odd while a writer changes them,
///   and a verdict during which it moved is made again under the lock. (A pending mark must not be
///   gone before its number is seen, nor a barrier before its epoch.)
#[derive(Debug)]
pub(crate) struct Coherence {
    pub(super) ledger: Mutex<Replica>,
    tags: Tags,
    seqlock: AtomicU64,
    generation: AtomicU64,
    session: AtomicU64,
    epoch: AtomicU64,
    suspect: AtomicBool,
    floor: Cells,
    /// How far the ledger's numbers are ahead of this node's clock, in microseconds; it wraps.
    ahead_us: AtomicU64,
    pub(crate) ttl: CoherenceTtl,
    /// How long the coherence TTL would have covered the sessions that have ended.
    ended: Mutex<Ended>,
    /// Checks that the memo did not answer.
    pub(crate) judged: Counter,
    sync_mutex: SyncMutex,
    pub(crate) rounds: Rounds,
    /// Removals that calls are sending.
    pub(crate) sending: SendingRemovals,
    /// The newest removals of this node.
    recent_removals: Mutex<RecentRemovals>,
    /// Requests a `SYNC` now.
    pub(crate) sync_wanted: Notify,
    /// A `SYNC` was answered: what waits for L2 can be sent.
    pub(crate) answered: Notify,
    /// The replica has changed.
    pub(super) moved: Notify,
}

/// The last sessions that ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    /// The first of them. In older ones, only an entry's own verification covers it.
    from: u64,
    /// The end of the coherence TTL that covered them, in nanoseconds. Nothing has been proven
    /// since it took this value.
    until: u64,
}

/// What a node knows of its ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) epoch: Option<Epoch>,
    pub(crate) frontier: u64,
    /// The highest number received, contiguous or not.
    pub(crate) highest: u64,
    pub(crate) barriers: usize,
    pub(crate) pending: usize,
    pub(crate) suspect: bool,
}

impl Coherence {
    pub(crate) fn new(ttl: CoherenceTtl) -> Self {
        Self {
            ledger: Mutex::default(),
            tags: Tags::new(),
            seqlock: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            session: AtomicU64::new(1),
            epoch: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            floor: Cells::default(),
            ahead_us: AtomicU64::new(0),
            ttl,
            ended: Mutex::default(),
            judged: Counter::default(),
            sync_mutex: SyncMutex::default(),
            rounds: Rounds::default(),
            sending: SendingRemovals::default(),
            recent_removals: Mutex::default(),
            sync_wanted: Notify::new(),
            answered: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Waits for the right to `SYNC`.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.sync_mutex.wait().await
    }

    /// Takes the right to `SYNC` away from its holder, whose task may never be polled again.
    pub(crate) fn abandon_turn(&self) {
        self.sync_mutex.abandon();
    }

    /// Judges an entry: one load and compare if nothing has changed since the last time.
    #[inline]
    pub(crate) fn judge(&self, meta: &Meta, now: Moment) -> Verdict {
        let generation = self.generation.load(Ordering::Acquire);
        if meta.is_checked(generation) && now < meta.logical() && !meta.is_expired() {
            let at = now.as_nanos();
            let own = meta.verified_at().saturating_add(self.ttl.length());
            if at <= self.ttl.until() || at <= own {
                return Verdict::Fresh;
            }
        }
        self.judge_and_note(meta, now, generation)
    }

    #[cold]
    fn judge_and_note(&self, meta: &Meta, now: Moment, generation: u64) -> Verdict {
        self.judged.add();
        let verdict = self.judge_uncounted(meta, now);
        if verdict == Verdict::Fresh {
            meta.check(if misordered!(MemoLate) { self.generation() } else { generation });
        }
        verdict
    }

    /// Whether an entry can never be served again: its TTL is over, or a removal hides it. A stale,
    /// expired or unverified one may still be a fallback. The check is neither counted nor
    /// remembered.
    pub(crate) fn is_dead(&self, meta: &Meta, now: Moment) -> bool {
        if meta.has_expired(now) {
            return true;
        }
        let checked = meta.is_checked(self.generation());
        !checked && matches!(self.judge_uncounted(meta, now), Verdict::Hidden(_))
    }

    /// Judges by what is known at one moment (N4).
    fn judge_uncounted(&self, meta: &Meta, now: Moment) -> Verdict {
        let judge = || {
            let tags = meta.tags.iter().flat_map(|tag| self.tags.levels(tag));
            let knowledge = self.knowledge();
            match judge(&meta.state(), &knowledge, tags, now.as_nanos()) {
                // It was never in L2, so nothing can verify it.
                Verdict::Unverified if meta.local_only && !knowledge.suspect => Verdict::Fresh,
                verdict => verdict,
            }
        };
        let before = self.seqlock.load(Ordering::Acquire);
        let verdict = judge();
        fence(Ordering::Acquire);
        let is_whole = before.is_multiple_of(2) && self.seqlock.load(Ordering::Relaxed) == before;
        if is_whole || misordered!(SeqlockUnchecked) {
            return verdict;
        }
        let _ledger = self.ledger.lock();
        judge()
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch != 0).then_some(Epoch(epoch))
    }

    pub(crate) fn session(&self) -> u64 {
        self.session.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether records of L2 can be judged: the epoch is known, and the ledger is not suspect.
    pub(crate) fn is_synced(&self) -> bool {
        self.epoch.load(Ordering::Acquire) != 0 && !self.suspect.load(Ordering::Acquire)
    }

    /// Whether L2 has answered as a primary since the subscription was made. Until then nothing is
    /// verified.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.rounds.are_confirmed() || sabotaged!(SessionUnconfirmed)
    }

    /// Whether the ledger was compared within the coherence TTL. Older knowledge cannot judge what
    /// L2 holds (S3).
    pub(crate) fn is_current(&self, now: Moment) -> bool {
        let until = self.ttl.synced_at().as_nanos().saturating_add(self.ttl.length());
        now.as_nanos() <= until || sabotaged!(LedgerNeverOld)
    }

    /// Whether this node's entries are known to be up to date.
    pub(crate) fn is_coherent(&self, now: Moment) -> bool {
        now.as_nanos() <= self.ttl.until() && !self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn known(&self) -> Known {
        let ledger = self.ledger.lock();
        Known {
            epoch: ledger.epoch(),
            frontier: ledger.frontier(),
            highest: ledger.highest(),
            barriers: ledger.len(),
            pending: ledger.pending().len(),
            suspect: ledger.is_suspect(),
        }
    }

    /// What the node knows now. Call it before a factory or an L2 read begins, never after (N2).
    pub(crate) fn stamp(&self, at: Moment) -> Stamp {
        let ledger = self.ledger.lock();
        Stamp {
            epoch: ledger.epoch(),
            frontier: ledger.frontier(),
            generation: self.generation.load(Ordering::Acquire),
            session: self.session(),
            at,
            known: at,
        }
    }

    /// The states of an entry's tags.
    pub(crate) fn intern<'a>(&self, tags: impl Iterator<Item = &'a str>) -> Box<[Arc<TagState>]> {
        tags.map(|name| {
            let hash = TagHash::of(name);
            self.tags.held(hash).unwrap_or_else(|| {
                let ledger = self.ledger.lock();
                self.tags.intern(name, hash, known_of(&ledger, Target::Tag(hash)))
            })
        })
        .collect()
    }

    /// Begins a removal: from here on it applies on this node. Returns what the ledger has to
    /// number.
    pub(crate) fn begin(&self, removal: Removal) -> Removal {
        let mut ledger = self.ledger.lock();
        let born = self.generation.load(Ordering::Acquire) + 1;
        let removal = ledger.begin(removal, born);
        self.recent_removals.lock().begin(born, &removal.targets);
        self.publish(ledger);
        removal
    }

    /// Whether a removal that began here after this generation covers an entry with these tags.
    pub(crate) fn has_removed_since(&self, generation: u64, tags: &[Arc<TagState>]) -> bool {
        self.recent_removals.lock().covers(generation, tags)
    }

    /// The name of a tag that a cached entry carries.
    pub(crate) fn tag_name(&self, hash: TagHash) -> Option<Box<str>> {
        self.tags.held(hash).map(|tag| tag.name().into())
    }

    /// How many removals still have no number, and the targets of the first of them.
    pub(crate) fn unnumbered(&self, most: usize) -> (usize, Vec<Target>) {
        let ledger = self.ledger.lock();
        let pending = ledger.pending();
        let removals = pending.len();
        let targets = pending.flat_map(|pending| &pending.removal.targets).take(most);
        (removals, targets.copied().collect())
    }

    /// Removals that had no number when the ledger was asked, and that no call has sent since.
    pub(crate) fn waiting(&self, asked: Moment) -> Vec<Nonce> {
        let nonces = |ledger: &Replica| ledger.pending().map(|p| p.removal.nonce).collect();
        let mut waiting = nonces(&self.ledger.lock());
        self.sending.keep_ended(&mut waiting, asked);
        waiting
    }

    /// What to send for another attempt at a removal; `None` if it has its number.
    pub(crate) fn resend(&self, nonce: Nonce, new_nonce: Nonce) -> Option<Removal> {
        self.ledger.lock().resend(nonce, new_nonce)
    }

    /// Applies the number of a removal of this node. True if it makes the node distrust its ledger.
    pub(crate) fn committed(&self, removal: Removal, advanced: Advanced) -> bool {
        self.numbered(|ledger| ledger.committed(removal, advanced))
    }

    /// Applies a removal that was announced. True if it makes the node distrust its ledger.
    pub(crate) fn received(&self, epoch: Epoch, item: Item) -> bool {
        self.numbered(|ledger| ledger.received(epoch, item))
    }

    fn numbered(&self, apply: impl FnOnce(&mut Replica) -> ReceiveResult) -> bool {
        let mut ledger = self.ledger.lock();
        let was_suspect = ledger.is_suspect();
        let result = apply(&mut ledger);
        self.publish(ledger);
        self.sync_if_behind(result);
        result == ReceiveResult::Anomaly && !was_suspect
    }

    /// The next question to the ledger.
    pub(crate) fn ask(&self, new_epoch: Epoch, page: usize, retention_ms: u64) -> SyncAsk {
        self.ledger.lock().ask(new_epoch, page, retention_ms)
    }

    /// The marks of publishers that owe announcements, the frontier, and up to where the ledger is
    /// folded.
    pub(crate) fn marks(&self) -> (Vec<Mark>, u64, u64) {
        let ledger = self.ledger.lock();
        (ledger.marks().collect(), ledger.frontier(), ledger.folded())
    }

    /// Notes that the ledger did not answer.
    pub(crate) fn abandon(&self) {
        let mut ledger = self.ledger.lock();
        ledger.abandon();
        self.publish(ledger);
    }

    /// Whether no ledger that this node knows can have issued this number by `now`.
    pub(crate) fn is_unacknowledged(&self, number: u64, now: Moment) -> bool {
        let newest = self.ahead_us.load(Ordering::Relaxed).wrapping_add(now.as_nanos() / 1000);
        number > newest.saturating_add(MAX_DRIFT_US)
    }

    /// Notes the ledger's clock, or its newest number, from a reply to a question of `asked`.
    pub(crate) fn dated(&self, reply: &SyncReply, asked: Moment) {
        let newest = reply.now_us.max(reply.frontier);
        self.ahead_us.store(newest.wrapping_sub(asked.as_nanos() / 1000), Ordering::Relaxed);
    }

    /// Applies a reply of the ledger. What the ledger has lost is pending here again before any
    /// reader sees the new state.
    pub(crate) fn synced(&self, reply: &SyncReply, nonce: impl Fn() -> Nonce) -> Synced {
        let mut ledger = self.ledger.lock();
        let synced = ledger.synced(reply);
        let born = self.generation.load(Ordering::Acquire) + 1;
        for (strength, target) in &synced.reissue {
            let targets = vec![*target];
            ledger.begin(Removal { nonce: nonce(), strength: *strength, targets }, born);
        }
        self.publish(ledger);
        synced
    }

    /// Ends the session: entries verified so far must be verified again before they count as fresh.
    pub(crate) fn resync(&self, why: ResyncReason) {
        tracing::debug!(?why, "coherence session ended; entries will be verified as they are read");
        let _ledger = self.ledger.lock();
        if why == ResyncReason::Connected {
            self.rounds.subscribed();
        }
        let (session, until) = (self.session.fetch_add(1, Ordering::AcqRel), self.ttl.until());
        let mut ended = self.ended.lock();
        if ended.until != until {
            *ended = Ended { from: session, until };
        }
        drop(ended);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the coherence TTL would still cover an unverified entry if its session had not
    /// ended. Such an entry was right at some moment of the last X. It is for a time when L2 does
    /// not answer and so cannot verify it.
    pub(crate) fn is_covered(&self, meta: &Meta, now: Moment) -> bool {
        if self.judge(meta, now) != Verdict::Unverified || self.suspect.load(Ordering::Acquire) {
            return false;
        }
        let ended = self.ended.lock();
        let of_its_session = if meta.state().session >= ended.from { ended.until } else { 0 };
        drop(ended);
        let own = meta.verified_at().saturating_add(self.ttl.length());
        now.as_nanos() <= own.max(of_its_session)
    }

    fn sync_if_behind(&self, result: ReceiveResult) {
        if matches!(result, ReceiveResult::Gap | ReceiveResult::Anomaly | ReceiveResult::Foreign) {
            self.sync_wanted.notify_one();
        }
    }

    /// Makes the state of the ledger visible to the hit path (N1).
    fn publish(&self, mut ledger: MutexGuard<'_, Replica>) {
        let changed = ledger.take_changed();
        if misordered!(GenerationFirst) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        let seqlock = self.seqlock.load(Ordering::Relaxed);
        self.seqlock.store(seqlock + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let suspect = ledger.is_suspect();
        let epoch = ledger.epoch().map_or(0, |epoch| epoch.0);
        for target in &changed {
            let known = || known_of(&ledger, *target);
            match target {
                Target::Tag(tag) => self.tags.update(*tag, known),
                Target::Register(register) => self.tags.update_register(*register, known()),
                Target::Everything => self.floor.store(known()),
            }
        }
        let unverified = self.suspect.swap(suspect, Ordering::AcqRel) != suspect;
        let reborn = self.epoch.swap(epoch, Ordering::AcqRel) != epoch;
        self.seqlock.store(seqlock + 2, Ordering::Release);
        let moved = unverified || reborn || !changed.is_empty();
        if moved && !misordered!(GenerationFirst) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(ledger);
        self.moved.notify_waiters();
    }

    fn knowledge(&self) -> Knowledge {
        let epoch = self.epoch.load(Ordering::Acquire);
        let TagLevels { levels: floor, pending } = self.floor.load();
        Knowledge {
            epoch: (epoch != 0).then_some(Epoch(epoch)),
            floor,
            pending,
            session: self.session(),
            coherent_until: self.ttl.until(),
            coherence_ttl: self.ttl.length(),
            suspect: self.suspect.load(Ordering::Acquire),
        }
    }
}

/// What hides the entries of a target, without its register.
fn known_of(ledger: &Replica, target: Target) -> TagLevels {
    TagLevels { levels: ledger.barriers(target), pending: ledger.pending_levels(target) }
}
