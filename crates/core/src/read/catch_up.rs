//! Asks the ledger for its newest number beside a call, and brings this node up to date if it is
//! behind.
//!
//! ```text
//!  call    ──▶ READ k ───────┬──▶ reply
//!  beside  ──▶ FRONTIER L ───┴──▶ number ──▶ known here? ── no ──▶ SYNC ──▶ continue
//! ```
//!
//! - **K1** The node asks for the number after the call began, so the number covers every removal
//!   that returned before.
//! - **K2** A strict read judges with what the node knows once it has caught up, or counts as
//!   unanswered (S16).
//! - **K3** A load, or a reservation, catches up before its value is read from the source. Its
//!   stamp keeps its time, and holds what the node knows after it has caught up (S17).
//! - **K4** Calls that wait for a `SYNC` share it: one that was sent after the number was received
//!   covers it.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use crate::background::poll;
use crate::l2::access::Access;
use crate::node::Node;
use crate::protocol::Epoch;

/// What the ledger answered beside a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LedgerPosition {
    /// The call did not ask.
    Unasked,
    /// The ledger did not answer.
    Failed,
    /// The last number of this epoch; `None` if the ledger has another epoch by now.
    Said {
        epoch: Option<Epoch>,
        number: Option<u64>,
        /// How many `SYNC`s had been sent when this was received.
        asked: u64,
    },
}

/// Whether a call asks the ledger for its newest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskLedger {
    No,
    /// Concurrent calls may share the request. The call itself is a write, so that a demoted server
    /// refuses it.
    Shared,
    /// With a request of its own, on the connection of the call: a demoted server answers reads, and
    /// refuses only this request.
    Own,
}

impl AskLedger {
    /// A request of its own if `asks`.
    pub(crate) fn own_if(asks: bool) -> Self {
        if asks { Self::Own } else { Self::No }
    }
}

/// Makes a call, and asks the ledger for its newest number at the same time.
pub(crate) async fn beside<R>(
    node: &Node,
    l2: &Access,
    asks: AskLedger,
    limit: Duration,
    call: impl Future<Output = R> + Send,
) -> (R, LedgerPosition) {
    if asks == AskLedger::No {
        return (call.await, LedgerPosition::Unasked);
    }
    join(call, ask(node, l2, asks == AskLedger::Shared, limit)).await
}

async fn ask(node: &Node, l2: &Access, shared: bool, limit: Duration) -> LedgerPosition {
    let epoch = node.coherence.epoch();
    let number = match epoch {
        None => Ok(None),
        Some(epoch) => l2.frontier(epoch, shared, limit).await,
    };
    match number {
        Ok(number) => LedgerPosition::Said { epoch, number, asked: node.coherence.rounds.asked() },
        Err(error) => {
            tracing::debug!(%error, "the ledger did not report its newest number");
            LedgerPosition::Failed
        }
    }
}

/// Waits until this node knows every removal up to the position. False if the ledger does not
/// answer.
pub(crate) async fn catch_up(node: &Node, mark: LedgerPosition, limit: Duration) -> bool {
    match (mark, &node.l2) {
        (LedgerPosition::Unasked, _) => true,
        (LedgerPosition::Said { .. }, _) if knows(node, mark) => true,
        (LedgerPosition::Said { .. }, Some(l2)) => {
            timeout(limit, compare(node, l2, mark)).await.unwrap_or(false)
        }
        (LedgerPosition::Failed, _) | (LedgerPosition::Said { .. }, None) => false,
    }
}

async fn compare(node: &Node, l2: &Access, mark: LedgerPosition) -> bool {
    let _guard = node.coherence.turn().await;
    // Another call may have compared while this one waited (K4).
    if !knows(node, mark) && poll::compare(node, l2, node.now()).await.is_err() {
        return false;
    }
    node.coherence.is_synced()
}

fn knows(node: &Node, mark: LedgerPosition) -> bool {
    let LedgerPosition::Said { epoch, number, asked } = mark else { return true };
    let known = node.coherence.known();
    let reached = number.is_some_and(|number| known.frontier >= number) && known.epoch == epoch;
    !known.suspect && (reached || node.coherence.rounds.answered() > asked)
}
