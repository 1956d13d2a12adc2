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

use tokio::time::timeout;

use crate::clock::Moment;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::node::Node;
use crate::protocol::ledger::{Advanced, Mark, Strength, Target, owed, paid, short};
use crate::protocol::session::ResyncReason;
use crate::protocol::{Epoch, PublisherId};
use crate::sync::Mutex;
use crate::write::removal;

/// After this time, the next write that cannot be announced leaves its mark again.
const RENEWED_AFTER: Duration = Duration::from_secs(20);

/// How long a mark that is not renewed makes other nodes verify; two polls at least.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// The announcements that this node owes, and those that other nodes owe.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    own: Mutex<Own>,
    /// Serializes setting and clearing the mark.
    mark_lock: tokio::sync::Mutex<()>,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Own {
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

    fn failed(&self, now: Moment) {
        let mut own = self.own.lock();
        own.failed = own.failed.max(Some(now));
    }

    fn is_marked(&self, epoch: Option<Epoch>, now: Moment) -> bool {
        let marked = self.own.lock().marked;
        marked.is_some_and(|(of, at)| Some(of) == epoch && now < at + RENEWED_AFTER)
    }
}

impl Node {
    /// Notes a failed announcement, and leaves a mark if there is none (A1).
    pub(crate) async fn owe(&self, limit: Duration) -> Result<(), L2Error> {
        let Some(l2) = &self.l2 else { return Ok(()) };
        if sabotaged!(UnannouncedUnmarked) {
            return Ok(());
        }
        self.owed.failed(self.now());
        self.mark(l2, limit).await
    }

    async fn mark(&self, l2: &Access, limit: Duration) -> Result<(), L2Error> {
        let is_marked = || self.owed.is_marked(self.coherence.known().epoch, self.now());
        let Some(me) = self.bus.as_ref().map(|bus| bus.me()).filter(|_| !is_marked()) else {
            return Ok(());
        };
        let Ok(_guard) = timeout(limit, self.owed.mark_lock.lock()).await else {
            let what = "the mark for owed announcements is still being sent to the ledger";
            return Err(L2Error::new(L2ErrorKind::Timeout, what));
        };
        if is_marked() {
            return Ok(());
        }
        let (asked, epoch) = (self.now(), self.coherence.known().epoch);
        let numbers = match self.number_mark(l2, owed(me), limit).await {
            Ok(numbers) => numbers,
            Err(error) if !error.is_unknown() => return Err(error),
            Err(error) => {
                // The ledger may have the mark, and be lost before the mark is cleared (A5).
                let mut own = self.owed.own.lock();
                let first = own.cleared.map(|(epoch, _)| epoch).or(epoch);
                own.cleared = first.map(|epoch| (epoch, asked));
                return Err(error);
            }
        };
        self.owed.own.lock().marked = Some((numbers.epoch, asked));
        tracing::warn!(
            cache = &*self.name,
            "the backplane did not confirm an announcement; a mark in the ledger makes other nodes verify"
        );
        Ok(())
    }

    /// Numbers one of the two barriers of a mark, without an announcement: the polls find it.
    async fn number_mark(
        &self,
        l2: &Access,
        what: Target,
        limit: Duration,
    ) -> Result<Advanced, L2Error> {
        let removal = removal::new(self, Strength::Soft, vec![what]);
        let numbers = l2.advance(&removal::advance(self, removal.clone()), None, limit).await?;
        self.check_number(self.coherence.committed(removal, numbers));
        Ok(numbers)
    }

    /// Maintains the mark: leaves it where it is missing, clears it when the bus works.
    pub(crate) async fn settle_owed(&self, l2: &Access) {
        let Some(bus) = self.bus.as_ref().filter(|bus| !bus.is_fused()) else { return };
        if let Err(error) = self.maintain_mark(l2, bus.me()).await {
            tracing::debug!(%error, "cannot leave or clear the mark for owed announcements");
        }
    }

    async fn maintain_mark(&self, l2: &Access, me: PublisherId) -> Result<(), L2Error> {
        let (now, poll, limit) = (self.now(), self.settings.poll, self.l2_limit());
        let (failed, lost, works_again) = {
            let mut own = self.owed.own.lock();
            own.last_heartbeat = own.last_heartbeat.max(self.coherence.ttl.last_heartbeat_at());
            // The bus accepts messages and does not bring them back: it may deliver them to no
            // node.
            let is_lost =
                own.announced > own.last_heartbeat && now.since(own.last_heartbeat) >= poll * 3 / 2;
            if is_lost {
                own.failed = Some(now);
                own.announced = Moment::default();
            }
            let failed = own.failed.filter(|_| !sabotaged!(UnannouncedUnmarked));
            let works_again =
                failed.is_some_and(|failed| own.last_heartbeat > failed) && own.under_way == 0;
            let epoch = own.marked.map(|(epoch, _)| epoch);
            (
                failed,
                is_lost || epoch.is_none() || epoch != self.coherence.known().epoch,
                works_again,
            )
        };
        let Some(failed) = failed else { return self.clear_again(l2, me, limit).await };
        if !works_again {
            return if lost { self.mark(l2, limit).await } else { Ok(()) };
        }
        // A call that wants a mark from here on leaves another, after this one is cleared.
        let _guard = self.owed.mark_lock.lock().await;
        let had = {
            let mut own = self.owed.own.lock();
            if own.failed != Some(failed) || own.under_way > 0 {
                return Ok(());
            }
            own.marked.take()
        };
        if had.is_some() {
            match self.number_mark(l2, paid(me), limit).await {
                Ok(numbers) => self.owed.own.lock().cleared = Some((numbers.epoch, now)),
                Err(error) => {
                    self.owed.own.lock().marked = had;
                    return Err(error);
                }
            }
        }
        let mut own = self.owed.own.lock();
        own.failed = own.failed.filter(|last| *last != failed);
        Ok(())
    }

    /// Clears a mark that other nodes see or believe, though nothing is owed (A5, A6).
    async fn clear_again(
        &self,
        l2: &Access,
        me: PublisherId,
        limit: Duration,
    ) -> Result<(), L2Error> {
        if !self.has_to_clear(me) {
            return Ok(());
        }
        let _guard = self.owed.mark_lock.lock().await;
        // A call that wants a mark notes its failure before it waits for the lock.
        if !self.has_to_clear(me) {
            return Ok(());
        }
        let first = self.owed.own.lock().cleared.map(|(_, at)| at);
        let numbers = self.number_mark(l2, paid(me), limit).await?;
        self.owed.own.lock().cleared = Some((numbers.epoch, first.unwrap_or_else(|| self.now())));
        Ok(())
    }

    fn has_to_clear(&self, me: PublisherId) -> bool {
        let (known, (marks, ..)) = (self.coherence.known().epoch, self.coherence.marks());
        let stands = marks.iter().any(|mark| mark.publisher == short(me) && mark.stands());
        let own = self.owed.own.lock();
        let is_lost = own.cleared.is_some_and(|(epoch, at)| {
            let is_other = known.is_some_and(|known| known != epoch);
            is_other && self.now().since(at) <= self.believed_for()
        });
        own.failed.is_none() && own.under_way == 0 && (stands || is_lost)
    }

    fn believed_for(&self) -> Duration {
        BELIEVED_FOR.max(self.settings.poll * 2)
    }

    /// Starts a new session if another node owes announcements, or did since the last check (A3).
    pub(crate) fn believe(&self) {
        let me = self.bus.as_ref().map(|bus| short(bus.me()));
        let believed = self.believed_for();
        let (now, (marks, frontier, folded)) = (self.now(), self.coherence.marks());
        let mut others = self.owed.others.lock();
        // A folded barrier is not visible any more, and may have been a mark.
        let mut moved = others.frontier != 0 && folded > others.frontier;
        others.frontier = frontier;
        let present: BTreeSet<_> = marks.iter().map(|mark| mark.publisher).collect();
        for mark in marks.into_iter().filter(|mark| Some(mark.publisher) != me) {
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
        let stands = others.seen.values().any(stands);
        drop(others);
        if (moved || stands) && !sabotaged!(MarkIgnored) {
            self.resync(ResyncReason::Owed);
        }
    }
}
