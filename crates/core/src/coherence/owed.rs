//! Owed announcements: a node leaves a mark in the ledger while it cannot announce its writes.
//!
//! Where L2 does not announce what it writes, a node can write and be unable to announce it: its
//! bus hangs, refuses, or is gone. The other nodes are healthy, so nothing else makes them verify.
//! So the writer leaves a [mark](crate::protocol::ledger::Mark) in the ledger, which every node
//! reads with each poll.
//!
//! - **A1** A write without a confirmed announcement has a mark before it counts as done. The mark
//!   precedes the write if the announcement before it failed, and the receipt if the one after it
//!   failed. A write that could not be announced before, and has no mark, is not sent.
//! - **A2** A mark is good for the writes of [`RENEWED_AFTER`]. Other nodes believe it for
//!   [`BELIEVED_FOR`] of their own time since they first saw it. So they verify at least once after
//!   each of these writes.
//! - **A3** A node that sees a mark that is new, valid or cleared starts a new session.
//! - **A4** The owner clears its mark when a heartbeat sent after the last failure has come back,
//!   and no pending write is unannounced. Other nodes stop believing a mark that is never cleared.
//! - **A5** The ledger may be lost after a mark was cleared, or after a command without a reply may
//!   have left one. If other nodes may still believe the mark, its owner clears it in the new
//!   ledger as well.
//! - **A6** A mark whose owner owes nothing is cleared. A command without a reply left it, or a
//!   node issued it again after a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Moment;
use crate::protocol::Epoch;
use crate::protocol::ledger::Mark;
use crate::sync::Mutex;

/// After this time, the next write that cannot be announced leaves its mark again.
const RENEWED_AFTER: Duration = Duration::from_secs(20);

/// How long a mark that is not renewed makes other nodes verify; two polls at least.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// The announcements that this node owes, and those that other nodes owe.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    own: Mutex<OwnMark>,
    /// Serializes setting and clearing the mark.
    pub(crate) mark_lock: tokio::sync::Mutex<()>,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct OwnMark {
    /// When an announcement last failed; `None` if nothing is owed.
    failed: Option<Moment>,
    /// The epoch of the mark, and when it was sent.
    marked: Option<(Epoch, Moment)>,
    /// The epoch in which the last mark was cleared, or may have been left, and when it first was.
    cleared: Option<(Epoch, Moment)>,
    /// Pending writes that were not announced before.
    under_way: usize,
    /// When the bus last accepted an announcement.
    announced: Moment,
    /// When the newest heartbeat was sent that has come back.
    last_heartbeat: Moment,
}

#[derive(Debug, Default)]
struct Others {
    /// The mark seen of each publisher, and since when.
    seen: BTreeMap<u64, (Mark, Moment)>,
    /// The frontier of the ledger at the last check.
    frontier: u64,
}

/// A write that was not announced before. The mark stays until this is dropped.
#[derive(Debug)]
pub(crate) struct Unannounced<'a>(&'a Owed);

impl Drop for Unannounced<'_> {
    fn drop(&mut self) {
        self.0.own.lock().under_way -= 1;
    }
}

impl Owed {
    /// Registers a write that could not be announced before.
    pub(crate) fn begin(&self) -> Unannounced<'_> {
        self.own.lock().under_way += 1;
        Unannounced(self)
    }

    /// Notes that the bus has accepted an announcement.
    pub(crate) fn announced(&self, now: Moment) {
        self.own.lock().announced = now;
    }

    pub(crate) fn failed(&self, now: Moment) {
        let mut own = self.own.lock();
        own.failed = own.failed.max(Some(now));
    }

    pub(crate) fn is_marked(&self, epoch: Option<Epoch>, now: Moment) -> bool {
        let marked = self.own.lock().marked;
        marked.is_some_and(|(of, at)| Some(of) == epoch && now < at + RENEWED_AFTER)
    }

    /// Notes the mark that the ledger has numbered.
    pub(crate) fn marked(&self, epoch: Epoch, asked: Moment) {
        self.own.lock().marked = Some((epoch, asked));
    }

    /// Notes a mark without a reply: the ledger may have it, and be lost before it is cleared (A5).
    pub(crate) fn may_be_marked(&self, epoch: Option<Epoch>, asked: Moment) {
        let mut own = self.own.lock();
        let first = own.cleared.map(|(epoch, _)| epoch).or(epoch);
        own.cleared = first.map(|epoch| (epoch, asked));
    }

    /// Notes that the ledger has cleared the mark, asked at `now`.
    pub(crate) fn cleared(&self, epoch: Epoch, now: Moment) {
        self.own.lock().cleared = Some((epoch, now));
    }

    /// Notes that the ledger has cleared a mark again: other nodes believe it since the first time.
    pub(crate) fn cleared_again(&self, epoch: Epoch, now: Moment) {
        let mut own = self.own.lock();
        let first = own.cleared.map(|(_, at)| at);
        own.cleared = Some((epoch, first.unwrap_or(now)));
    }

    /// What the mark needs at a poll, from the newest heartbeat that came back.
    pub(crate) fn due(
        &self,
        heartbeat: Moment,
        poll: Duration,
        epoch: Option<Epoch>,
        now: Moment,
    ) -> Due {
        let mut own = self.own.lock();
        own.last_heartbeat = own.last_heartbeat.max(heartbeat);
        // The bus accepts messages and does not bring them back: it may deliver them to no node.
        let is_lost =
            own.announced > own.last_heartbeat && now.since(own.last_heartbeat) >= poll * 3 / 2;
        if is_lost {
            own.failed = Some(now);
            own.announced = Moment::default();
        }
        let Some(failed) = own.failed.filter(|_| !sabotaged!(UnannouncedUnmarked)) else {
            return Due::Nothing;
        };
        if own.last_heartbeat > failed && own.under_way == 0 {
            return Due::Clear(failed);
        }
        let marked = own.marked.map(|(epoch, _)| epoch);
        let is_missing = is_lost || marked.is_none() || marked != epoch;
        if is_missing { Due::Mark } else { Due::Wait }
    }

    /// Takes the mark to clear; `None` if another announcement has failed since, or is pending.
    pub(crate) fn take_mark(&self, failed: Moment) -> Option<Option<(Epoch, Moment)>> {
        let mut own = self.own.lock();
        (own.failed == Some(failed) && own.under_way == 0).then(|| own.marked.take())
    }

    /// Restores a mark that could not be cleared.
    pub(crate) fn restore_mark(&self, mark: Option<(Epoch, Moment)>) {
        self.own.lock().marked = mark;
    }

    /// Notes that nothing is owed any more, if no announcement has failed since.
    pub(crate) fn settled(&self, failed: Moment) {
        let mut own = self.own.lock();
        own.failed = own.failed.filter(|last| *last != failed);
    }

    /// Whether a mark must be cleared: nothing is owed, but other nodes see or believe it (A5, A6).
    pub(crate) fn has_to_clear(
        &self,
        is_seen: bool,
        epoch: Option<Epoch>,
        poll: Duration,
        now: Moment,
    ) -> bool {
        let own = self.own.lock();
        let is_lost = own.cleared.is_some_and(|(of, at)| {
            let is_other = epoch.is_some_and(|epoch| epoch != of);
            is_other && now.since(at) <= believed_for(poll)
        });
        own.failed.is_none() && own.under_way == 0 && (is_seen || is_lost)
    }

    /// Notes the marks of the ledger. True if another node owes announcements, or did since the last
    /// call (A3).
    pub(crate) fn sees(
        &self,
        marks: impl Iterator<Item = Mark>,
        (frontier, folded): (u64, u64),
        poll: Duration,
        now: Moment,
    ) -> bool {
        let believed = believed_for(poll);
        let mut others = self.others.lock();
        // A folded barrier is not visible any more, and may have been a mark.
        let mut moved = others.frontier != 0 && folded > others.frontier;
        others.frontier = frontier;
        let mut present = BTreeSet::new();
        for mark in marks {
            present.insert(mark.publisher);
            let seen = others.seen.get(&mark.publisher).map(|(seen, _)| *seen);
            if seen != Some(mark) {
                others.seen.insert(mark.publisher, (mark, now));
                moved = true;
            }
        }
        others.seen.retain(|publisher, (_, since)| {
            present.contains(publisher) || now.since(*since) <= believed
        });
        let stands =
            |(mark, since): &(Mark, Moment)| mark.stands() && now.since(*since) <= believed;
        moved || others.seen.values().any(stands)
    }
}

fn believed_for(poll: Duration) -> Duration {
    BELIEVED_FOR.max(poll * 2)
}

/// What the mark of this node needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing is owed.
    Nothing,
    /// The ledger has the mark, and announcements still fail.
    Wait,
    /// The ledger lacks the mark.
    Mark,
    /// The bus works again since the failure of this moment.
    Clear(Moment),
}
