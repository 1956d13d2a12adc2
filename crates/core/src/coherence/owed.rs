//! Announcements owed: what a node cannot emit on the backplane, it says in the ledger.
//!
//! Where L2 does not announce what it writes, a node can write and be unable to emit: its bus hangs,
//! refuses, or is gone. The others are healthy, so nothing else would make them look. So the writer
//! leaves a [mark](crate::protocol::ledger::Mark) in the ledger, where every node looks with each poll.
//!
//! - **A1** A write whose announcement is not confirmed has a mark before it counts as done: before it is
//!   sent, if it could not be announced before; before its receipt, if not after. Where there can be no
//!   mark, it is not sent.
//! - **A2** A mark is good for the writes of [`RENEWED_AFTER`]. The others believe it for [`BELIEVED_FOR`]
//!   of their own time since they saw it first, so they look at least once after each of these writes.
//! - **A3** A node that sees a mark that is new, valid or cleared starts a new session.
//! - **A4** A mark is taken back when a heartbeat that was sent after the last failure has come back, and no
//!   write is under way that was not announced before. A mark that nobody takes back is believed no more.
//! - **A5** Where the ledger is lost after a mark was taken back, or left by a command without an answer, and the
//!   others may still believe it, it is taken back in the new ledger as well.
//! - **A6** A mark that stands though its owner owes nothing is taken back: it was left by a command without
//!   an answer, or somebody issued it again after a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use crate::cache::Inner;
use crate::clock::Moment;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::protocol::ledger::{Advanced, Mark, Strength, Target, owed, paid, short};
use crate::protocol::session::ResyncReason;
use crate::protocol::{Epoch, PublisherId};
use crate::sync::Mutex;
use crate::write::removal;

/// After this, the next write that cannot be announced leaves its mark again.
const RENEWED_AFTER: Duration = Duration::from_secs(20);

/// How long a mark that is not left again makes others verify; two polls at least.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// What this node owes the others, and what they owe it.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    own: Mutex<Own>,
    /// Serializes setting and clearing the mark.
    turn: tokio::sync::Mutex<()>,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Own {
    /// When an announcement failed last; `None` if nothing is owed.
    failed: Option<Moment>,
    /// The epoch of the mark, and when it was sent.
    marked: Option<(Epoch, Moment)>,
    /// The epoch in which the last mark was taken back, or perhaps left, and when it first was.
    cleared: Option<(Epoch, Moment)>,
    /// Writes that were not announced before, and are not confirmed.
    under_way: usize,
    /// When the bus took an announcement last.
    announced: Moment,
    /// When the newest heartbeat was sent that has ever come back.
    last_heartbeat: Moment,
}

#[derive(Debug, Default)]
struct Others {
    /// What was seen of each, and since when.
    seen: BTreeMap<u64, (Mark, Moment)>,
    /// How far the ledger was known at the last look.
    frontier: u64,
}

/// A write that was not announced before: while it lasts, the mark stays.
#[derive(Debug)]
pub(crate) struct Unannounced<'a>(&'a Owed);

impl Drop for Unannounced<'_> {
    fn drop(&mut self) {
        self.0.own.lock().under_way -= 1;
    }
}

impl Owed {
    /// A write begins that could not be announced before.
    pub(crate) fn begin(&self) -> Unannounced<'_> {
        self.own.lock().under_way += 1;
        Unannounced(self)
    }

    /// The bus has taken an announcement.
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

impl<C: Sync> Inner<C> {
    /// An announcement has failed: leaves a mark, if there is none (A1).
    pub(crate) async fn owe(&self, limit: Duration) -> Result<(), L2Error> {
        let Some(l2) = &self.l2 else { return Ok(()) };
        if sabotaged!(UnannouncedUnmarked) {
            return Ok(());
        }
        self.owed.failed(self.now());
        self.mark(l2, limit).await
    }

    async fn mark(&self, l2: &Access, limit: Duration) -> Result<(), L2Error> {
        let is_marked = || self.owed.is_marked(self.node.known().epoch, self.now());
        let Some(me) = self.bus.as_ref().map(|bus| bus.me()).filter(|_| !is_marked()) else {
            return Ok(());
        };
        let Ok(_turn) = timeout(limit, self.owed.turn.lock()).await else {
            let what = "the mark of announcements that are owed is still on its way";
            return Err(L2Error::new(L2ErrorKind::Timeout, what));
        };
        if is_marked() {
            return Ok(());
        }
        let (asked, epoch) = (self.now(), self.node.known().epoch);
        let numbers = match self.say(l2, owed(me), limit).await {
            Ok(numbers) => numbers,
            Err(error) if !error.is_unknown() => return Err(error),
            Err(error) => {
                // It may be there all the same, and be lost before it can be taken back (A5).
                let mut own = self.owed.own.lock();
                let first = own.cleared.map(|(epoch, _)| epoch).or(epoch);
                own.cleared = first.map(|epoch| (epoch, asked));
                return Err(error);
            }
        };
        self.owed.own.lock().marked = Some((numbers.epoch, asked));
        tracing::warn!(
            cache = &*self.name,
            "the backplane did not confirm what was announced; the other nodes are told by the ledger"
        );
        Ok(())
    }

    /// Numbers one of the two barriers of a mark. It is not announced: the polls find it.
    async fn say(&self, l2: &Access, what: Target, limit: Duration) -> Result<Advanced, L2Error> {
        let removal = removal::new(self, Strength::Soft, vec![what]);
        let numbers = l2.advance(&removal::advance(self, removal.clone()), None, limit).await?;
        self.node.committed(removal, numbers);
        Ok(numbers)
    }

    /// Keeps right what this node owes: leaves its mark where it is missing, takes it back when the bus works.
    pub(crate) async fn settle_owed(&self, l2: &Access) {
        let Some(bus) = self.bus.as_ref().filter(|bus| !bus.is_fused()) else { return };
        if let Err(error) = self.tend(l2, bus.me()).await {
            tracing::debug!(%error, "the mark of owed announcements could not be left or taken back");
        }
    }

    async fn tend(&self, l2: &Access, me: PublisherId) -> Result<(), L2Error> {
        let (now, poll, limit) = (self.now(), self.settings.poll, self.l2_limit());
        let (failed, lost, again) = {
            let mut own = self.owed.own.lock();
            own.last_heartbeat = own.last_heartbeat.max(self.node.coherence.last_heartbeat_at());
            // The bus takes what this node says, and does not bring it back: perhaps to nobody.
            let is_lost =
                own.announced > own.last_heartbeat && now.since(own.last_heartbeat) >= poll * 3 / 2;
            if is_lost {
                own.failed = Some(now);
                own.announced = Moment::default();
            }
            let failed = own.failed.filter(|_| !sabotaged!(UnannouncedUnmarked));
            let again =
                failed.is_some_and(|failed| own.last_heartbeat > failed) && own.under_way == 0;
            let epoch = own.marked.map(|(epoch, _)| epoch);
            (failed, is_lost || epoch.is_none() || epoch != self.node.known().epoch, again)
        };
        let Some(failed) = failed else { return self.clear_again(l2, me, limit).await };
        if !again {
            return if lost { self.mark(l2, limit).await } else { Ok(()) };
        }
        // Whoever wants a mark from here on leaves another, after this one has been taken back.
        let _turn = self.owed.turn.lock().await;
        let had = {
            let mut own = self.owed.own.lock();
            if own.failed != Some(failed) || own.under_way > 0 {
                return Ok(());
            }
            own.marked.take()
        };
        if had.is_some() {
            match self.say(l2, paid(me), limit).await {
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

    /// Takes a mark back that others see or believe, though nothing is owed (A5, A6).
    async fn clear_again(
        &self,
        l2: &Access,
        me: PublisherId,
        limit: Duration,
    ) -> Result<(), L2Error> {
        if !self.has_to_clear(me) {
            return Ok(());
        }
        let _turn = self.owed.turn.lock().await;
        // Whoever wants a mark has said so before it waits for its turn.
        if !self.has_to_clear(me) {
            return Ok(());
        }
        let first = self.owed.own.lock().cleared.map(|(_, at)| at);
        let numbers = self.say(l2, paid(me), limit).await?;
        self.owed.own.lock().cleared = Some((numbers.epoch, first.unwrap_or_else(|| self.now())));
        Ok(())
    }

    fn has_to_clear(&self, me: PublisherId) -> bool {
        let (known, (marks, ..)) = (self.node.known().epoch, self.node.marks());
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

    /// Begins a new session if somebody owes announcements, or did since the last look (A3).
    pub(crate) fn believe(&self) {
        let me = self.bus.as_ref().map(|bus| short(bus.me()));
        let believed = self.believed_for();
        let (now, (marks, frontier, folded)) = (self.now(), self.node.marks());
        let mut others = self.owed.others.lock();
        // What is folded cannot be seen any more; it may have been a mark.
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
