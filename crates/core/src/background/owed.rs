//! Leaves and clears this node's mark in the ledger, and believes the marks of other nodes.
//!
//! [`coherence::owed`](crate::coherence::Owed) has the rules A1 to A6.

use std::time::Duration;

use tokio::time::timeout;

use crate::coherence::Due;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::node::Node;
use crate::protocol::PublisherId;
use crate::protocol::ledger::{Advanced, Strength, Target, owed, paid, short};
use crate::protocol::resync::ResyncReason;
use crate::write::removal;

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
        let numbers = self.number_mark(l2, owed(me), limit).await.inspect_err(|error| {
            if error.is_unknown() {
                self.owed.may_be_marked(epoch, asked);
            }
        })?;
        self.owed.marked(numbers.epoch, asked);
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
        let heartbeat = self.coherence.ttl.last_heartbeat_at();
        let failed = match self.owed.due(heartbeat, poll, self.coherence.known().epoch, now) {
            Due::Nothing => return self.clear_again(l2, me, limit).await,
            Due::Wait => return Ok(()),
            Due::Mark => return self.mark(l2, limit).await,
            Due::Clear(failed) => failed,
        };
        // A call that wants a mark from here on leaves another, after this one is cleared.
        let _guard = self.owed.mark_lock.lock().await;
        let Some(had) = self.owed.take_mark(failed) else { return Ok(()) };
        if had.is_some() {
            let numbers = self.number_mark(l2, paid(me), limit).await;
            let numbers = numbers.inspect_err(|_| self.owed.restore_mark(had))?;
            self.owed.cleared(numbers.epoch, now);
        }
        self.owed.settled(failed);
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
        let numbers = self.number_mark(l2, paid(me), limit).await?;
        self.owed.cleared_again(numbers.epoch, self.now());
        Ok(())
    }

    fn has_to_clear(&self, me: PublisherId) -> bool {
        let (known, (marks, ..)) = (self.coherence.known().epoch, self.coherence.marks());
        let is_seen = marks.iter().any(|mark| mark.publisher == short(me) && mark.stands());
        self.owed.has_to_clear(is_seen, known, self.settings.poll, self.now())
    }

    /// Starts a new session if another node owes announcements, or did since the last check (A3).
    pub(crate) fn believe(&self) {
        let me = self.bus.as_ref().map(|bus| short(bus.me()));
        let (now, (marks, frontier, folded)) = (self.now(), self.coherence.marks());
        let marks = marks.into_iter().filter(|mark| Some(mark.publisher) != me);
        let owes = self.owed.sees(marks, (frontier, folded), self.settings.poll, now);
        if owes && !sabotaged!(MarkIgnored) {
            self.resync(ResyncReason::Owed);
        }
    }
}
