//! Publishes this node's messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::Instrument;

use super::message::{self, KeyOp};
use super::{Backplane, BackplaneError};
use crate::announce::{Announce, AnnounceRemoval};
use crate::events::Notice;
use crate::protocol::ledger::{Advanced, Removal};
use crate::protocol::{KeyHash, PublisherId, Version};
use crate::telemetry::{Telemetry, spans};

/// How many unused numbers are remembered. Other nodes detect the rest as gaps.
const MAX_UNUSED: usize = 1024;

/// The backplane of one cache, and this node's identity and sequence on it.
#[derive(Debug)]
pub(crate) struct Bus {
    backplane: Arc<dyn Backplane>,
    channel: String,
    own_channel: String,
    me: PublisherId,
    next: AtomicU64,
    /// Numbers that were never sent and could not be voided.
    unused: Mutex<BTreeSet<u64>>,
    fused: Fused,
    telemetry: Arc<Telemetry>,
}

/// What L2 announces in the same step as it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fused {
    /// Records and removals.
    All,
    /// Removals; there are no records.
    Removals,
    /// Nothing.
    Nothing,
}

impl Bus {
    pub(crate) fn new(
        backplane: Arc<dyn Backplane>,
        prefix: &str,
        me: PublisherId,
        fused: Fused,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let channel = format!("{prefix}v1:ch");
        let own_channel = format!("{prefix}v1:hb:{:032x}", me.0);
        let (next, unused) = (AtomicU64::new(1), Mutex::default());
        Self { backplane, channel, own_channel, me, next, unused, fused, telemetry }
    }

    /// Whether L2 announces the records that it writes.
    pub(crate) fn is_fused(&self) -> bool {
        self.fused == Fused::All
    }

    pub(crate) fn me(&self) -> PublisherId {
        self.me
    }

    pub(crate) fn backplane(&self) -> &dyn Backplane {
        &*self.backplane
    }

    pub(crate) fn channels(&self) -> [String; 2] {
        [self.channel.clone(), self.own_channel.clone()]
    }

    /// The sequence number the next message will have.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// The message for L2 to publish while it writes, with its sequence number; `None` if L2
    /// cannot.
    pub(crate) fn announce(
        &self,
        op: KeyOp,
        version: Version,
        key: KeyHash,
    ) -> Option<(u64, Announce)> {
        self.is_fused().then(|| {
            let seq = self.take_seq();
            let message = message::key(self.me, seq, op, version, key);
            (seq, Announce { channel: self.channel.clone(), message })
        })
    }

    /// Voids the number of a message that was certainly never sent, so that no node misses it.
    pub(crate) async fn void(&self, seq: u64, limit: Duration) {
        let message = message::heartbeat(self.me, seq, 0, 0);
        if self.publish(&self.channel, message, limit).await.is_err() {
            let mut unused = self.unused.lock();
            if unused.len() < MAX_UNUSED {
                unused.insert(seq);
            }
        }
    }

    /// Retries the numbers that could not be voided before.
    pub(crate) async fn void_again(&self, limit: Duration) {
        let unused = std::mem::take(&mut *self.unused.lock());
        let voiding = unused.into_iter().map(|seq| self.void(seq, limit));
        join_all(voiding).await;
    }

    /// The message for L2 to publish while it numbers a removal, with its sequence number; `None`
    /// if L2 cannot.
    pub(crate) fn announce_removal(&self, removal: &Removal) -> Option<(u64, AnnounceRemoval)> {
        (self.fused != Fused::Nothing).then(|| {
            let seq = self.take_seq();
            (seq, message::removal(self.me, seq, &self.channel, removal))
        })
    }

    /// Publishes the beginning, or the end, of a write that L2 does not announce.
    pub(crate) async fn publish_key(
        &self,
        op: KeyOp,
        version: Version,
        key: KeyHash,
        limit: Duration,
    ) -> Result<(), BackplaneError> {
        if self.is_fused() {
            return Ok(());
        }
        let message = message::key(self.me, self.take_seq(), op, version, key);
        self.publish(&self.channel, message, limit).await?;
        self.telemetry.published(op.into());
        Ok(())
    }

    /// Publishes a removal whose L2 has numbered it and not announced it. `seq` is the number that
    /// L2 was to announce it with.
    pub(crate) async fn publish_removal(
        &self,
        removal: &Removal,
        seq: Option<u64>,
        numbers: Advanced,
        limit: Duration,
    ) -> Result<(), BackplaneError> {
        if numbers.announced {
            return Ok(());
        }
        let seq = seq.unwrap_or_else(|| self.take_seq());
        let open = message::removal(self.me, seq, &self.channel, removal);
        self.publish(&self.channel, message::numbered(&open, numbers), limit).await?;
        self.telemetry.published(Notice::Removal);
        Ok(())
    }

    /// Publishes a heartbeat to this node, on the path that writes take.
    pub(crate) async fn beat(&self, beat: u64, limit: Duration) -> Result<(), BackplaneError> {
        let message = message::heartbeat(self.me, 0, beat, self.next());
        self.publish(&self.own_channel, message, limit).await
    }

    /// Announces how far this node's sequence has come.
    pub(crate) async fn publish_sequence(&self, limit: Duration) -> Result<(), BackplaneError> {
        let message = message::heartbeat(self.me, 0, 0, self.next());
        self.publish(&self.channel, message, limit).await
    }

    async fn publish(
        &self,
        channel: &str,
        message: Bytes,
        limit: Duration,
    ) -> Result<(), BackplaneError> {
        let _timing = self.telemetry.meters.publish.time(&*self.telemetry.clock);
        let publish = self.backplane.publish(channel, message);
        let publish = publish.instrument(spans::publish(&self.telemetry.cache));
        let result = timeout(limit, publish)
            .await
            .unwrap_or_else(|_| Err(BackplaneError::new(format!("no answer within {limit:?}"))));
        result.inspect_err(|error| self.telemetry.backplane_failed(error))
    }

    fn take_seq(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }
}
