//! One write of one key, on its way to L2 and the other nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use super::Reach;
use crate::backplane::message::KeyOp;
use crate::backplane::publish::Bus;
use crate::cache::Inner;
use crate::events::Event;
use crate::l2::access::{Access, Call};
use crate::l2::{Announce, L2, L2Error, L2ErrorKind};
use crate::options::EntryOptions;
use crate::protocol::ledger::{Strength, Target};
use crate::protocol::record::Put;
use crate::protocol::{KeyHash, Version};
use crate::recovery::{Queued, Turn};

/// How long, beyond the limit of its call, a `set` of unknown outcome may still run. Until then nothing
/// settles the invalidation that follows it.
const STRAGGLING: Duration = Duration::from_secs(2);

/// One write of one key. Dropped before L2 has answered, it is queued: what its caller began holds,
/// whether the caller waits or not (W2).
pub(super) struct Write<'a, C> {
    inner: &'a Arc<Inner<C>>,
    key: &'a str,
    version: Version,
    op: KeyOp,
    limit: Duration,
    options: &'a EntryOptions,
    answered: bool,
}

/// What became of a write.
pub(super) struct Sent<R = ()> {
    pub(super) l2: Result<R, L2Error>,
    pub(super) reach: Reach,
    pub(super) backplane: Reach,
}

/// What L2 answers to a write.
pub(super) trait Answered: Send + Sync {
    /// Whether L2 has taken it.
    fn is_taken(&self) -> bool;
}

impl Answered for () {
    fn is_taken(&self) -> bool {
        true
    }
}

impl Answered for Put {
    fn is_taken(&self) -> bool {
        *self == Self::Stored
    }
}

impl<'a, C: Send + Sync + 'static> Write<'a, C> {
    pub(super) fn new(
        inner: &'a Arc<Inner<C>>,
        key: &'a str,
        version: Version,
        op: KeyOp,
        limit: Duration,
        options: &'a EntryOptions,
    ) -> Self {
        Self { inner, key, version, op, limit, options, answered: false }
    }

    /// Waits for the writes of the key that were called before and go on. A write that waits in vain is
    /// queued; one that nobody waits for and that has been overtaken meanwhile is left out.
    pub(super) async fn turn(
        mut self,
        turn: Option<Turn>,
    ) -> Result<(Self, Option<OwnedMutexGuard<()>>), Sent> {
        let Some(turn) = turn else { return Ok((self, None)) };
        let (came, line) = (Instant::now(), Arc::clone(&turn.line).lock_owned());
        if turn.background {
            let held = line.await;
            if !self.inner.recovery.is_overtaken(self.key, &turn) {
                return Ok((self, Some(held)));
            }
            self.answered = true;
            let l2 = Err(L2Error::new(L2ErrorKind::Other, "overtaken by a later write"));
            return Err(Sent { l2, reach: Reach::Superseded, backplane: Reach::Skipped });
        }
        let Ok(held) = timeout(self.limit, line).await else {
            let what = "an earlier write of the key is still on its way";
            return Err(self.refuse(L2Error::new(L2ErrorKind::Timeout, what)));
        };
        self.limit = self.limit.saturating_sub(came.elapsed());
        Ok((self, Some(held)))
    }

    /// The latest moment at which a `set` may run.
    pub(super) fn latest(&self, l2: &Access) -> Option<u64> {
        l2.latest(self.limit)
    }

    /// The backplane, if there is one and the call does not leave it out.
    fn bus(&self) -> Option<&'a Bus> {
        self.inner.bus.as_ref().filter(|_| !self.options.skip_backplane)
    }

    /// Writes and announces: in one step if L2 can, else saying before and after. What L2 has not
    /// confirmed is queued when this returns, before any fence ends.
    pub(super) async fn send<R: Answered>(
        mut self,
        l2: &Access,
        write: impl for<'x> FnOnce(&'x dyn L2, &'x str, Option<Announce>) -> Call<'x, R> + Send,
    ) -> Sent<R> {
        let (hash, left_alone) = (KeyHash::of(self.key), l2.is_open());
        let limit = self.limit;
        let Some(bus) = self.bus() else {
            let l2 = l2.on(self.key, limit, |store, key| write(store, key, None)).await;
            let reach = self.answer(&l2, left_alone);
            return Sent { l2, reach, backplane: Reach::Skipped };
        };
        // While L2 is left alone nothing is sent, so nothing may take a number in the sequence; and what
        // is not announced is not sent, even if L2 is found to answer in the meantime.
        let announce = || bus.announce(self.op, self.version, hash);
        let (seq, announce) = if left_alone { None } else { announce() }.unzip();
        let before = bus.publish_key(KeyOp::Before, self.version, hash, limit).await;
        let l2 = match left_alone && !sabotaged!(LeftAloneIsSent) {
            true => Err(L2Error::left_alone()),
            false => l2.on(self.key, limit, |store, key| write(store, key, announce)).await,
        };
        let reach = self.answer(&l2, left_alone);
        let backplane = match (&l2, before) {
            (Err(error), _) => {
                if let Some(seq) = seq.filter(|_| !error.is_unknown()) {
                    bus.void(seq, limit).await;
                }
                reach
            }
            (Ok(answer), _) if !answer.is_taken() => {
                match seq {
                    Some(seq) => bus.void(seq, limit).await,
                    None => drop(bus.publish_key(self.op, self.version, hash, limit).await),
                }
                Reach::Superseded
            }
            (Ok(_), Ok(())) => self.confirm(bus, hash).await,
            // The gap in this node's sequence tells the others that they missed something.
            (Ok(_), Err(_)) => {
                let _ = bus.publish_key(self.op, self.version, hash, limit).await;
                Reach::Unknown
            }
        };
        Sent { l2, reach, backplane }
    }

    /// Says that what was said before is done; where L2 has said so itself, nothing.
    async fn confirm(&self, bus: &Bus, hash: KeyHash) -> Reach {
        let (op, version, limit) = (self.op, self.version, self.limit);
        let waits = self.options.require_propagation || !self.options.background_backplane;
        if !bus.is_fused() && !waits {
            let inner = Arc::clone(self.inner);
            let confirm = async move {
                if let Some(bus) = &inner.bus {
                    let _ = bus.publish_key(op, version, hash, limit).await;
                }
            };
            if self.inner.spawn(confirm).is_ok() {
                return Reach::Queued;
            }
        }
        match bus.publish_key(op, version, hash, limit).await {
            Ok(()) => Reach::Done,
            Err(_) => Reach::Unknown,
        }
    }

    /// There is no record to write: the others drop theirs.
    pub(super) async fn notify(mut self) -> Sent {
        let Some(bus) = self.bus() else {
            self.answered = true;
            return Sent { l2: Ok(()), reach: Reach::Skipped, backplane: Reach::Skipped };
        };
        let hash = KeyHash::of(self.key);
        match bus.publish_key(self.op, self.version, hash, self.limit).await {
            Ok(()) => {
                self.answered = true;
                Sent { l2: Ok(()), reach: Reach::Skipped, backplane: Reach::Done }
            }
            Err(error) => {
                let l2: Result<(), _> =
                    Err(L2Error::new(L2ErrorKind::Disconnected, error.to_string()));
                let backplane = self.answer(&l2, false);
                Sent { l2, reach: Reach::Skipped, backplane }
            }
        }
    }

    /// Sends nothing, and so tells the breaker nothing.
    pub(super) fn refuse(mut self, error: L2Error) -> Sent {
        let l2: Result<(), _> = Err(error);
        let reach = self.answer(&l2, true);
        Sent { l2, reach, backplane: self.inner.bus.as_ref().map_or(Reach::Skipped, |_| reach) }
    }

    /// L2 has answered, or will not: how far the write got (W3).
    fn answer<R: Answered>(&mut self, l2: &Result<R, L2Error>, left_alone: bool) -> Reach {
        self.answered = true;
        let error = match l2 {
            Ok(answer) if answer.is_taken() => {
                let now = self.inner.now();
                self.inner.recovery.lately.note(self.key, self.version, self.strength(), now);
                return Reach::Done;
            }
            Ok(_) => return Reach::Superseded,
            Err(error) => error,
        };
        self.inner.counters.l2_errors.add();
        let unknown = error.is_unknown() && !left_alone;
        self.queue(unknown);
        if unknown { Reach::Unknown } else { Reach::Queued }
    }
}

impl<C> Write<'_, C> {
    /// What it makes of what was there before.
    fn strength(&self) -> Strength {
        match self.op {
            KeyOp::Expired => Strength::Soft,
            _ => Strength::Hard,
        }
    }

    fn queue(&self, unknown: bool) {
        let (now, strength) = (self.inner.now(), self.strength());
        let mut not_before = now;
        if unknown {
            self.inner.hearsay.straggle(now);
            if self.op == KeyOp::Written {
                not_before = now + self.limit + STRAGGLING;
            }
        }
        self.inner.queue(self.key, Queued { strength, version: self.version, not_before });
    }
}

impl<C> Drop for Write<'_, C> {
    fn drop(&mut self) {
        if !self.answered {
            self.queue(true);
        }
    }
}

impl<C> Inner<C> {
    /// Queues an invalidation that L2 has not heard of; a full queue becomes a clear.
    pub(crate) fn queue(&self, key: &str, queued: Queued) {
        self.note(&self.counters.queued, key, |key| Event::Queued { key });
        if sabotaged!(RecoveryForgets) {
            return;
        }
        if let Some(strength) = self.recovery.queue(key, queued) {
            self.counters.recovery_overflows.add();
            self.telemetry.tell(|| Event::RecoveryOverflow);
            tracing::warn!("the recovery queue is full; it becomes a clear of this cache");
            if !sabotaged!(OverflowDropsSilently) {
                self.node.begin(super::removal::new(self, strength, vec![Target::Everything]));
            }
        }
    }
}
