//! The operations of a store, and what happens to a call.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;

use super::gate::Gate;

/// The operations of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "as the trait has them")]
pub enum L2Op {
    /// A read that takes no load lock.
    Look,
    /// A read that asks for a load lock.
    Read,
    /// Several reads at once.
    ReadMany,
    /// A read from a replica.
    Replica,
    /// A check of versions.
    Heads,
    /// A compare-and-put.
    Put,
    /// A blind write.
    Set,
    /// A removal.
    Remove,
    /// An expiry.
    Expire,
    /// A release of a load lock.
    Release,
    /// A renewal of a load lock.
    Renew,
    /// A removal by tag, or a clear.
    Advance,
    /// The poll of the ledger.
    Sync,
    /// A read of the ledger's frontier beside another call.
    Frontier,
    /// The same, which concurrent calls may share.
    SharedFrontier,
    /// A read of the replication id.
    ReplicationId,
}

impl L2Op {
    /// Every operation.
    pub const ALL: [Self; 16] = [
        Self::Look,
        Self::Read,
        Self::ReadMany,
        Self::Replica,
        Self::Heads,
        Self::Put,
        Self::Set,
        Self::Remove,
        Self::Expire,
        Self::Release,
        Self::Renew,
        Self::Advance,
        Self::Sync,
        Self::Frontier,
        Self::SharedFrontier,
        Self::ReplicationId,
    ];

    /// Returns whether it can change what the store holds.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(
            self,
            Self::Look
                | Self::Replica
                | Self::Heads
                | Self::Sync
                | Self::Frontier
                | Self::SharedFrontier
                | Self::ReplicationId
        )
    }
}

/// What happens to a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fate {
    /// The store runs it.
    Pass,
    /// It fails and does not run.
    Fail(L2ErrorKind),
    /// It runs, and its reply is lost.
    LoseReply,
    /// It waits at the gate, then runs.
    Hold(Gate),
    /// It runs, and its reply waits at the gate.
    HoldReply(Gate),
    /// It runs after this long.
    Delay(Duration),
    /// It never ends and does not run.
    Hang,
    /// It never ends for its caller and runs after this long, even if its caller is gone. A `set`
    /// runs regardless of its deadline: the test decides about the store's clock. For any other
    /// operation this is [`Delay`](Fate::Delay).
    RunLate(Duration),
    /// For a `set`: it never ends for its caller, and after this long it runs subject to its
    /// deadline.
    Late(Duration),
    /// For a read of several keys: the caller gets a lost connection, and the read runs once the
    /// gate opens, like bytes stuck in transit. Any other operation just fails.
    RunLateBehind(Gate),
}

/// One call to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The operation.
    pub op: L2Op,
    /// The key in the store; for several keys, the first.
    pub key: String,
}
