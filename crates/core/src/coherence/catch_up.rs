//! How far the ledger is, asked beside a call; and what a node does that is behind.
//!
//! ```text
//!  call    ──▶ READ k ───────┬──▶ reply
//!  beside  ──▶ FRONTIER L ───┴──▶ number ──▶ known here? ── no ──▶ SYNC ──▶ go on
//! ```
//!
//! - **K1** The number is asked for after the call began, so it covers every removal that returned before.
//! - **K2** A strict read judges by what is known once it has caught up, or counts as unanswered (S16).
//! - **K3** A load, or a reservation, catches up before its value is read from the source, and is stamped
//!   with what is known then: its stamp is as old as ever, its knowledge is younger (S17).
//! - **K4** Who waits for a `SYNC` shares it: one that was asked after the number came covers it.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use super::{Node, poll};
use crate::cache::Inner;
use crate::l2::access::Access;
use crate::protocol::Epoch;

/// What the ledger said beside a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// Nobody asked.
    Unasked,
    /// It did not answer.
    Failed,
    /// The last number of this epoch; `None` if there is another epoch by now.
    Said {
        epoch: Option<Epoch>,
        number: Option<u64>,
        /// How many `SYNC`s had been asked when this came.
        asked: u64,
    },
}

/// Makes a call, and asks the ledger at the same time how far it is.
pub(crate) async fn beside<R, C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    asks: bool,
    limit: Duration,
    call: impl Future<Output = R> + Send,
) -> (R, Mark) {
    if !asks {
        return (call.await, Mark::Unasked);
    }
    join(call, ask(inner, l2, limit)).await
}

async fn ask<C: Sync>(inner: &Inner<C>, l2: &Access, limit: Duration) -> Mark {
    let epoch = inner.node.epoch();
    let number = match epoch {
        None => Ok(None),
        Some(epoch) => l2.frontier(epoch, limit).await,
    };
    match number {
        Ok(number) => Mark::Said { epoch, number, asked: inner.node.rounds.asked() },
        Err(error) => {
            tracing::debug!(%error, "the ledger did not say how far it is");
            Mark::Failed
        }
    }
}

/// Waits until this node knows every removal up to the mark. False if the ledger does not answer.
pub(crate) async fn catch_up<C: Sync>(inner: &Inner<C>, mark: Mark, limit: Duration) -> bool {
    match (mark, &inner.l2) {
        (Mark::Unasked, _) => true,
        (Mark::Said { .. }, _) if knows(inner, mark) => true,
        (Mark::Said { .. }, Some(l2)) => {
            timeout(limit, compare(inner, l2, mark)).await.unwrap_or(false)
        }
        (Mark::Failed, _) | (Mark::Said { .. }, None) => false,
    }
}

async fn compare<C: Sync>(inner: &Inner<C>, l2: &Access, mark: Mark) -> bool {
    let _turn = inner.node.turn().await;
    // Somebody else may have compared while this call waited for its turn (K4).
    if !knows(inner, mark) && poll::compare(inner, l2, inner.now()).await.is_err() {
        return false;
    }
    inner.node.is_synced()
}

fn knows<C>(inner: &Inner<C>, mark: Mark) -> bool {
    let Mark::Said { epoch, number, asked } = mark else { return true };
    let known = inner.node.known();
    let reached = number.is_some_and(|number| known.frontier >= number) && known.epoch == epoch;
    !known.suspect && (reached || inner.node.rounds.answered() > asked)
}

impl Node {
    /// Waits until the replica holds everything up to this number. Asks the ledger once; after that a
    /// number from anywhere costs nobody more than the polls there are anyway.
    pub(crate) async fn reach(&self, epoch: Epoch, seq: u64) {
        let mut asked = false;
        loop {
            let moved = self.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            let known = self.known();
            if known.epoch == Some(epoch) && known.frontier >= seq && !known.suspect {
                return;
            }
            // What was stamped in an epoch that is over is hidden, with or without the removal.
            if known.epoch != Some(epoch) && !known.suspect && self.ledger.lock().has_left(epoch) {
                return;
            }
            if !std::mem::replace(&mut asked, true) {
                self.sync_wanted.notify_one();
            }
            moved.await;
        }
    }
}
