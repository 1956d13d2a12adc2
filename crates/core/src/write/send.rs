//! Sends one write of one key to L2 and the other nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout};

use super::outgoing::{self, Outgoing};
use crate::backplane::message::KeyOp;
use crate::clock::Moment;
use crate::events::Event;
use crate::l2::access::Access;
use crate::l2::change::Change;
use crate::l2::deadline::settles_after;
use crate::l2::{Deadline, L2Error, L2ErrorKind};
use crate::node::Node;
use crate::options::EntryOptions;
use crate::protocol::commits::Commit;
use crate::protocol::ledger::{Strength, Target};
use crate::protocol::record::Put;
use crate::protocol::{KeyHash, Version};
use crate::receipt::WriteStatus;
use crate::recovery::{Queued, WriteSlot};
use crate::telemetry::TARGET;

/// One write of one key. If dropped before L2 has answered, it queues an invalidation: a write that
/// began takes effect even if its caller stops waiting (W2).
pub(super) struct Write<'a> {
    node: &'a Arc<Node>,
    key: &'a str,
    version: Version,
    op: KeyOp,
    limit: Duration,
    options: &'a EntryOptions,
    /// When it was sent to L2.
    sent: Option<Moment>,
    answered: bool,
}

/// What a write holds while it is sent after a wait for its queue slot.
pub(super) struct SendPermit {
    _queue: OwnedMutexGuard<()>,
    _pace: Option<OwnedSemaphorePermit>,
}

/// The outcome of a write.
pub(super) struct Sent {
    pub(super) l2: Result<Put, L2Error>,
    pub(super) status: WriteStatus,
    pub(super) backplane: WriteStatus,
}

impl Sent {
    /// The outcome of a write that was not sent.
    pub(super) fn nowhere() -> Self {
        Self { l2: Ok(Put::Stored), status: WriteStatus::Skipped, backplane: WriteStatus::Skipped }
    }
}

impl<'a> Write<'a> {
    pub(super) fn new(
        node: &'a Arc<Node>,
        key: &'a str,
        version: Version,
        op: KeyOp,
        limit: Duration,
        options: &'a EntryOptions,
    ) -> Self {
        Self { node, key, version, op, limit, options, sent: None, answered: false }
    }

    /// Waits for the earlier writes of the key that are pending. A write whose wait times out is
    /// queued. A write without a waiting caller is skipped if a later one has overtaken it.
    pub(super) async fn queue_slot(
        mut self,
        queue_slot: Option<WriteSlot>,
    ) -> Result<(Self, Option<SendPermit>), Sent> {
        let Some(queue_slot) = queue_slot else { return Ok((self, None)) };
        if queue_slot.background {
            return self.background_queue_slot(&queue_slot).await;
        }
        let started = Instant::now();
        let Ok(_queue) = timeout(self.limit, queue_slot.come()).await else {
            let what = "an earlier write of the key is still pending";
            return Err(self.refuse(L2Error::new(L2ErrorKind::Timeout, what)));
        };
        self.limit = self.limit.saturating_sub(started.elapsed());
        Ok((self, Some(SendPermit { _queue, _pace: None })))
    }

    /// The same for a write whose caller does not wait.
    async fn background_queue_slot(
        mut self,
        queue_slot: &WriteSlot,
    ) -> Result<(Self, Option<SendPermit>), Sent> {
        let overtaken = || self.node.recovery.is_overtaken(self.key, queue_slot);
        // The queue comes first: a write with a pace permit never waits for one without.
        let _queue = queue_slot.come().await;
        let mut _pace = None;
        if !overtaken() {
            // A write whose caller waits must not wait for permits either: the writes before it are
            // sent at once, with a permit or without.
            tokio::select! {
                biased;
                () = queue_slot.is_awaited() => {}
                place = self.node.background.paced() => _pace = place,
            }
        }
        if !overtaken() {
            return Ok((self, Some(SendPermit { _queue, _pace })));
        }
        self.answered = true;
        let l2 = Err(L2Error::new(L2ErrorKind::Other, "overtaken by a later write"));
        Err(Sent { l2, status: WriteStatus::Superseded, backplane: WriteStatus::Skipped })
    }

    /// The deadline of a `set` that is sent now.
    pub(super) fn deadline(&self, l2: &Access) -> Option<Deadline> {
        l2.deadline(self.limit)
    }

    /// The announcement to other nodes, if there is a backplane and the call does not skip it.
    fn outgoing(&self) -> Option<Outgoing<'a>> {
        let hash = KeyHash::of(self.key);
        Outgoing::new(self.node, self.op, self.version, hash, self.limit)
            .filter(|_| !self.options.skip_backplane)
    }

    /// Writes and announces: in one step if L2 can announce, otherwise with a message before and
    /// after. It queues what L2 has not confirmed before it returns, so before any fence ends.
    pub(super) async fn send(mut self, l2: &Access, change: Change) -> Sent {
        let (limit, circuit_open) = (self.limit, l2.is_open(self.key));
        self.sent = Some(self.node.now());
        let mut outgoing = self.outgoing();
        let l2 = outgoing::send(&mut outgoing, l2, self.key, change, limit, circuit_open).await;
        let status = self.answer(&l2, circuit_open);
        let Some(mut outgoing) = outgoing else {
            return Sent { l2, status, backplane: WriteStatus::Skipped };
        };
        outgoing.answered(&l2).await;
        let backplane = match &l2 {
            Err(_) => status,
            Ok(Put::Stored) => self.confirm(outgoing).await,
            Ok(Put::Refused) => WriteStatus::Superseded,
        };
        Sent { l2, status, backplane }
    }

    /// Confirms a write that was announced before. Does nothing where L2 announces it.
    async fn confirm(&self, mut outgoing: Outgoing<'a>) -> WriteStatus {
        let waits = self.options.require_propagation || !self.options.background_backplane;
        if !outgoing.is_by_l2() && outgoing.is_announced() && !waits {
            let (node, op, version) = (Arc::clone(self.node), self.op, self.version);
            let (hash, limit) = (KeyHash::of(self.key), self.limit);
            let confirm = async move {
                if let Some(mut outgoing) = Outgoing::new(&node, op, version, hash, limit) {
                    outgoing.confirm().await;
                }
            };
            if self.node.spawn(confirm).is_ok() {
                return WriteStatus::Queued;
            }
        }
        outgoing.confirm().await
    }

    /// Announces a write without a record: the other nodes drop their copies.
    pub(super) async fn notify(mut self) -> Sent {
        let Some(mut outgoing) = self.outgoing() else {
            self.answered = true;
            return Sent::nowhere();
        };
        if outgoing.confirm().await == WriteStatus::Done {
            self.answered = true;
            return Sent { backplane: WriteStatus::Done, ..Sent::nowhere() };
        }
        let l2 = Err(L2Error::unannounced());
        let backplane = self.answer(&l2, false);
        Sent { l2, status: WriteStatus::Skipped, backplane }
    }

    /// Ends the write without sending it, so the circuit breaker does not count it.
    pub(super) fn refuse(mut self, error: L2Error) -> Sent {
        let l2 = Err(error);
        let status = self.answer(&l2, true);
        Sent {
            l2,
            status,
            backplane: self.node.bus.as_ref().map_or(WriteStatus::Skipped, |_| status),
        }
    }

    /// Handles the reply of L2, or its absence, and returns how far the write got (W3).
    fn answer(&mut self, l2: &Result<Put, L2Error>, circuit_open: bool) -> WriteStatus {
        self.answered = true;
        let error = match l2 {
            Ok(Put::Stored) => {
                let now = self.node.now();
                let commit = Commit { version: self.version, strength: self.strength() };
                let sent = self.sent.unwrap_or(now);
                self.node.recovery.recent_writes.note(self.key, commit, sent, now);
                return WriteStatus::Done;
            }
            Ok(Put::Refused) => return WriteStatus::Superseded,
            Err(error) => error,
        };
        if error.kind() == L2ErrorKind::Late {
            // L2 has answered: nothing is pending, and what L2 holds now is newer.
            return WriteStatus::Late;
        }
        let unknown = error.is_unknown() && !circuit_open;
        self.queue(unknown);
        if unknown { WriteStatus::Unknown } else { WriteStatus::Queued }
    }
}

impl Write<'_> {
    /// How the write weakens the old value.
    fn strength(&self) -> Strength {
        match self.op {
            KeyOp::Expired => Strength::Soft,
            _ => Strength::Hard,
        }
    }

    fn queue(&self, unknown: bool) {
        let (now, strength) = (self.node.now(), self.strength());
        let mut not_before = now;
        if unknown {
            self.node.notices.open_late_window(now + settles_after(self.limit));
            if self.op == KeyOp::Written && !sabotaged!(SetSettledAtOnce) {
                // What was sent may still run on the server.
                not_before =
                    self.sent.map_or(now, |sent| sent + settles_after(self.limit)).max(now);
            }
        }
        self.node.queue(self.key, Queued { strength, version: self.version, not_before });
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.queue(true);
        }
    }
}

impl Node {
    /// Queues an invalidation that L2 has not received; a full queue becomes a clear.
    pub(crate) fn queue(&self, key: &str, queued: Queued) {
        self.note(&self.counters.queued, key, |key| Event::Queued { key });
        if sabotaged!(RecoveryForgets) {
            return;
        }
        if let Some(strength) = self.recovery.queue(key, queued) {
            self.counters.recovery_overflows.add();
            self.telemetry.emit(|| Event::RecoveryOverflow);
            tracing::warn!(
                target: TARGET, cache = &*self.name, server = self.telemetry.l2_server.as_deref(),
                "more invalidations wait for L2 than `recovery_keys` allows; they become a clear of the cache"
            );
            if !sabotaged!(OverflowDropsSilently) {
                self.coherence.begin(super::removal::new(self, strength, vec![Target::Everything]));
            }
        }
    }
}
