//! Events: what a cache does, told to whoever listens.
//!
//! Telling never waits: a listener that falls behind loses the oldest events and is told how many.
//! While nobody listens, telling is one relaxed load, and an answer from L1 costs nothing at all (the
//! counter it adds to says whether anyone wants to know).

mod stream;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use stream::EventBus;
pub use stream::Events;

use crate::backplane::message::{Body, KeyOp};
use crate::entry::Source;
use crate::error::Error;
use crate::l2::L2Error;
use crate::protocol::session::ResyncReason;
use crate::protocol::validity::{Verdict, Why};

/// The key of an event; `None` if [`Settings::redact_keys`](crate::Settings::redact_keys) is on.
pub type EventKey = Option<Arc<str>>;

/// Something a cache did. Holds keys unless they are redacted, and never a value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A read was answered without its factory. Fresh answers of L1 are told only to the listeners
    /// of [`Cache::events_with_l1_hits`](crate::Cache::events_with_l1_hits).
    Hit {
        /// The key.
        key: EventKey,
        /// Which level answered.
        source: Source,
        /// Whether the answer was stale.
        stale: bool,
    },
    /// A read found nothing to answer with.
    Miss {
        /// The key.
        key: EventKey,
        /// Why.
        reason: MissReason,
    },
    /// A value was stored.
    Set {
        /// The key.
        key: EventKey,
        /// Whether a load stored it, rather than a `set`.
        filled: bool,
    },
    /// A key was removed here.
    Remove {
        /// The key.
        key: EventKey,
    },
    /// A key was expired here.
    Expire {
        /// The key.
        key: EventKey,
    },
    /// Entries were removed or expired by tag here.
    RemoveByTag {
        /// The tags; `None` if keys are redacted.
        tags: Option<Arc<[String]>>,
        /// Whether they were removed, rather than expired.
        hard: bool,
    },
    /// The cache was cleared here.
    Clear {
        /// Whether everything was removed, rather than expired.
        hard: bool,
    },
    /// L1 was full and let an entry go.
    Eviction {
        /// The key.
        key: EventKey,
    },
    /// A factory returned a value.
    FactorySuccess {
        /// The key.
        key: EventKey,
        /// How long it took.
        took: Duration,
    },
    /// A factory failed, panicked, or ran into its deadline.
    FactoryError {
        /// The key.
        key: EventKey,
        /// How long it took.
        took: Duration,
        /// What happened.
        error: Error,
    },
    /// A caller gave up waiting for a factory, which may go on.
    FactoryTimeout {
        /// The key.
        key: EventKey,
        /// Whether a stale value was answered instead.
        stale: bool,
    },
    /// A stale value stood in for a factory that failed.
    FailSafe {
        /// The key.
        key: EventKey,
    },
    /// A refresh before the end of an entry's life was started.
    EagerRefresh {
        /// The key.
        key: EventKey,
    },
    /// A value could not be encoded for L2.
    Unencodable {
        /// The key.
        key: EventKey,
        /// Why.
        error: Error,
    },
    /// A record of L2, or a message, could not be decoded or was not ours.
    Undecodable {
        /// The key; `None` of a message.
        key: EventKey,
    },
    /// An operation of L2 failed or timed out.
    L2Failed {
        /// What happened.
        error: L2Error,
    },
    /// L2 is left alone after repeated failures, or is used again.
    L2Breaker {
        /// Whether it is left alone.
        open: bool,
        /// Which of its servers, where L2 has several; `None` where it is one.
        server: Option<Arc<str>>,
    },
    /// The subscription to the backplane came up, or was lost.
    Subscription {
        /// Whether it is in force.
        up: bool,
    },
    /// Something was said to the other nodes.
    Published {
        /// What.
        notice: Notice,
    },
    /// Something was heard from the backplane, this node's own messages included.
    Received {
        /// What.
        notice: Notice,
        /// Whether this node had said it.
        own: bool,
    },
    /// The session ended: entries are verified with L2 before they count as fresh again.
    Session {
        /// Why.
        cause: ResyncReason,
    },
    /// This node can prove that its entries are in step with the others', or no longer can.
    Coherence {
        /// Whether it can.
        coherent: bool,
    },
    /// The barrier ledger was not what this node knew.
    Ledger {
        /// What had happened to it.
        trouble: LedgerTrouble,
    },
    /// An invalidation waits for L2.
    Queued {
        /// The key.
        key: EventKey,
    },
    /// An invalidation that waited has reached L2.
    Recovered {
        /// The key.
        key: EventKey,
    },
    /// The recovery queue was full and became a clear.
    RecoveryOverflow,
    /// This listener was too slow: so many events are lost to it.
    Lagged(u64),
}

impl Event {
    /// Whether it is one of those that only some listeners receive.
    fn is_l1_hit(&self) -> bool {
        matches!(self, Self::Hit { source: Source::L1, stale: false, .. })
    }
}

/// Why a read found nothing to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissReason {
    /// It is nowhere.
    Absent,
    /// Its life is over, or it was expired.
    Stale,
    /// A removal by tag or a clear hides it.
    Hidden,
    /// The key holds another type, or bytes that could not be decoded.
    Unusable,
    /// L2 could not be asked.
    Unreachable,
}

impl MissReason {
    /// Why an entry that was found does not answer.
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Stale(_) | Verdict::Hidden(Why::Lifetime) => Self::Stale,
            Verdict::Hidden(_) => Self::Hidden,
            Verdict::Fresh | Verdict::Unverified => Self::Absent,
        }
    }
}

/// What nodes emit each other. Heartbeats are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// A write begins that L2 cannot announce itself.
    Before,
    /// A key was written.
    Written,
    /// A key was removed.
    Removed,
    /// A key was expired.
    Expired,
    /// A removal by tag, or a clear.
    Removal,
}

impl Notice {
    pub(crate) fn of(body: &Body) -> Option<Self> {
        match body {
            Body::Removal { .. } => Some(Self::Removal),
            Body::Key { op, .. } => Some((*op).into()),
            Body::Heartbeat { .. } => None,
        }
    }
}

impl From<KeyOp> for Notice {
    fn from(op: KeyOp) -> Self {
        match op {
            KeyOp::Before => Self::Before,
            KeyOp::Written => Self::Written,
            KeyOp::Removed => Self::Removed,
            KeyOp::Expired => Self::Expired,
        }
    }
}

/// What had happened to the barrier ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerTrouble {
    /// It is another than before; older entries are invalid.
    Replaced,
    /// A promoted server has issued numbers twice; everything was cleared.
    Forked,
    /// A promoted server has lost removals, which this node issues again.
    Reissued,
}
