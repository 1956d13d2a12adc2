//! Announces one write of one key to the other nodes.
//!
//! ```text
//!  L2 announces     announce ──▶ write, with the message ──▶ answered: void what was never sent
//!  it does not      before ────▶ write ──▶ answered ──▶ confirm
//!                     └─ failed ─▶ mark in the ledger, or no write      └─ failed ─▶ mark
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::backplane::message::KeyOp;
use crate::backplane::publish::Bus;
use crate::coherence::Unannounced;
use crate::l2::access::Access;
use crate::l2::change::Change;
use crate::l2::{Announce, L2Error, L2ErrorKind};
use crate::node::Node;
use crate::protocol::record::Put;
use crate::protocol::{KeyHash, Version};
use crate::receipt::WriteStatus;

/// Announces a write. Every path that writes a key uses it, so that no path takes a sequence number
/// that is never sent, or leaves a write unannounced.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    node: &'a Node,
    bus: &'a Bus,
    op: KeyOp,
    version: Version,
    hash: KeyHash,
    limit: Duration,
    /// The time spent waiting for the bus. All messages of one write share one limit.
    spent: Duration,
    /// The sequence number of the message that L2 is to publish.
    seq: Option<u64>,
    unannounced: Option<Unannounced<'a>>,
}

impl<'a> Outgoing<'a> {
    /// `None` without a backplane.
    pub(crate) fn new(
        node: &'a Node,
        op: KeyOp,
        version: Version,
        hash: KeyHash,
        limit: Duration,
    ) -> Option<Self> {
        let bus = node.bus.as_ref()?;
        let spent = Duration::ZERO;
        Some(Self { node, bus, op, version, hash, limit, spent, seq: None, unannounced: None })
    }

    /// The message that L2 publishes as it writes, if it can. Only a write that is about to be sent
    /// takes a number.
    pub(crate) fn announce(&mut self) -> Option<Announce> {
        let (seq, announce) = self.bus.announce(self.op, self.version, self.hash)?;
        self.seq = Some(seq);
        Some(announce)
    }

    /// Announces that a write begins, where L2 does not announce it. If the bus fails, this leaves
    /// a mark for an owed announcement in the ledger.
    ///
    /// # Errors
    ///
    /// If the ledger fails as well: then the write must not be sent. With `circuit_open` it is not
    /// sent anyway.
    pub(crate) async fn before(&mut self, circuit_open: bool) -> Result<(), L2Error> {
        if self.publish_op(KeyOp::Before).await || circuit_open {
            return Ok(());
        }
        self.unannounced = Some(self.node.owed.begin());
        self.node.owe(self.limit).await.map_err(|error| {
            let what =
                format!("not sent: neither the backplane nor the ledger can announce it: {error}");
            L2Error::new(L2ErrorKind::Denied, what)
        })
    }

    /// Whether L2 itself announces what it writes.
    pub(crate) fn is_by_l2(&self) -> bool {
        self.bus.is_fused()
    }

    /// Whether the write was announced before it was sent, by this node or by L2.
    pub(crate) fn is_announced(&self) -> bool {
        self.unannounced.is_none()
    }

    /// Completes the announcement after L2 has answered, or was not asked. It voids a message that
    /// was certainly not published, and ends the announcement of a write that was not applied.
    pub(crate) async fn answered(&mut self, l2: &Result<Put, L2Error>) {
        match l2 {
            Ok(Put::Stored) => {}
            // It has changed the record. A store that announces has published that.
            Err(error) if error.kind() == L2ErrorKind::Late => {
                if self.seq.is_none() {
                    self.publish().await;
                }
            }
            Err(error) if error.is_unknown() => {}
            Ok(_) | Err(_) if self.seq.is_some() => {
                if let Some(seq) = self.seq.take() {
                    self.bus.void(seq, self.left()).await;
                }
            }
            Ok(_) => drop(self.publish().await),
            Err(_) => {}
        }
    }

    /// Announces that the write is done, where L2 has not announced it.
    pub(crate) async fn confirm(&mut self) -> WriteStatus {
        let published = self.publish().await;
        if published && self.is_announced() {
            return WriteStatus::Done;
        }
        // After this point nothing else makes the other nodes verify.
        if !published && let Err(error) = self.node.owe(self.limit).await {
            tracing::debug!(%error, "cannot leave a mark for an owed announcement; the next poll retries");
        }
        WriteStatus::Unknown
    }

    /// Announces what is done. True if the bus accepted it.
    pub(crate) async fn publish(&mut self) -> bool {
        let published = self.publish_op(self.op).await;
        if published && !self.bus.is_fused() {
            self.node.owed.announced(self.node.now());
        }
        published
    }

    /// Publishes one message. Once the limit is spent it is still sent, but not waited for.
    async fn publish_op(&mut self, op: KeyOp) -> bool {
        let started = Instant::now();
        let published = self.bus.publish_key(op, self.version, self.hash, self.left()).await;
        self.spent += started.elapsed();
        published.is_ok()
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.spent)
    }
}

/// Announces a change, and sends it to L2. After that, [`answered`](Outgoing::answered) completes
/// the announcement.
///
/// While the circuit breaker is open nothing is sent, so no message takes a sequence number. A
/// change that has to be announced, and is not, is not sent either, even if the breaker closes
/// meanwhile.
pub(crate) async fn send(
    outgoing: &mut Option<Outgoing<'_>>,
    l2: &Access,
    key: &str,
    change: Change,
    limit: Duration,
    is_open: bool,
) -> Result<Put, L2Error> {
    let mut announce = None;
    if let Some(outgoing) = outgoing {
        announce = if is_open { None } else { outgoing.announce() };
        outgoing.before(is_open).await?;
        if is_open && !sabotaged!(OpenCircuitIsSent) {
            return Err(L2Error::circuit_open());
        }
    }
    l2.change(key, change, announce, limit).await
}
