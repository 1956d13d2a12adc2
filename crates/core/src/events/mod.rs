//! Events: a stream of what a cache does, for subscribers.
//!
//! Emitting never waits: a slow subscriber loses the oldest events and receives their number.
//! Without subscribers, emitting costs one relaxed load. A hit in L1 then costs nothing extra: its
//! counter also says whether a subscriber wants the hit.
//!
//! The events are here; `stream` holds their subscriptions and the bus.

mod stream;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use stream::EventBus;
pub use stream::Events;

use crate::entry::Source;
use crate::error::{Error, L2Error};
use crate::protocol::resync::ResyncReason;
use crate::protocol::validity::{Verdict, Why};

/// The key of an event; `None` if [`Settings::redact_keys`](crate::Settings::redact_keys) is on.
pub type EventKey = Option<Arc<str>>;

/// An event of a cache, for observability: a hit, miss, load, write, eviction, resync or fault.
/// Contains keys unless they are redacted, and never a value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The cache answered a read without the factory. Only subscribers of
    /// [`Cache::events_with_l1_hits`](crate::Cache::events_with_l1_hits) receive fresh hits of L1.
    Hit {
        /// The key.
        key: EventKey,
        /// The level that answered.
        source: Source,
        /// Whether the answer was stale.
        stale: bool,
    },
    /// A read found no usable entry.
    Miss {
        /// The key.
        key: EventKey,
        /// Why.
        reason: MissReason,
    },
    /// The cache stored a value.
    Set {
        /// The key.
        key: EventKey,
        /// Whether a load stored it, rather than a `set`.
        filled: bool,
    },
    /// This node removed a key.
    Remove {
        /// The key.
        key: EventKey,
    },
    /// This node expired a key.
    Expire {
        /// The key.
        key: EventKey,
    },
    /// This node removed or expired entries by tag.
    RemoveByTag {
        /// The tags; `None` if keys are redacted.
        tags: Option<Arc<[String]>>,
        /// True for a removal, false for an expiry.
        hard: bool,
    },
    /// This node cleared the cache.
    Clear {
        /// True for a removal of everything, false for an expiry.
        hard: bool,
    },
    /// L1 was full and evicted an entry.
    Eviction {
        /// The key.
        key: EventKey,
    },
    /// A factory returned a value.
    FactorySuccess {
        /// The key.
        key: EventKey,
        /// The time it took.
        took: Duration,
    },
    /// A factory failed, panicked or exceeded its deadline.
    FactoryError {
        /// The key.
        key: EventKey,
        /// The time it took.
        took: Duration,
        /// The error.
        error: Error,
    },
    /// A caller stopped waiting for a factory. The factory may continue.
    FactoryTimeout {
        /// The key.
        key: EventKey,
        /// Whether the caller got a stale value instead.
        stale: bool,
    },
    /// The cache served a stale value because the factory failed.
    FailSafe {
        /// The key.
        key: EventKey,
    },
    /// The cache started to refresh an entry before it expired.
    EagerRefresh {
        /// The key.
        key: EventKey,
    },
    /// The cache could not encode a value for L2.
    Unencodable {
        /// The key.
        key: EventKey,
        /// Why.
        error: Error,
    },
    /// A record of L2 or a message could not be decoded, or was not Crinkle's.
    Undecodable {
        /// The key; `None` for a message.
        key: EventKey,
    },
    /// An L2 operation failed or timed out.
    L2Failed {
        /// The error.
        error: L2Error,
    },
    /// The circuit breaker of L2 opened after repeated failures, or closed.
    L2Breaker {
        /// Whether it is open.
        open: bool,
        /// The server concerned if L2 has several; `None` if it has one.
        server: Option<Arc<str>>,
    },
    /// The backplane subscription came up or was lost.
    Subscription {
        /// Whether it is up.
        up: bool,
    },
    /// This node published a message to the other nodes.
    Published {
        /// The message.
        notice: Notice,
    },
    /// This node received a message from the backplane. That includes its own messages.
    Received {
        /// The message.
        notice: Notice,
        /// Whether this node had published it.
        own: bool,
    },
    /// A new session began: entries are verified with L2 before they count as fresh again.
    Session {
        /// Why.
        cause: ResyncReason,
    },
    /// The node's coherence TTL covers its entries again, or has expired.
    Coherence {
        /// Whether the node is coherent.
        coherent: bool,
    },
    /// The barrier ledger differed from what this node knew.
    Ledger {
        /// The difference.
        trouble: LedgerTrouble,
    },
    /// An invalidation waits for L2.
    Queued {
        /// The key.
        key: EventKey,
    },
    /// A queued invalidation has reached L2.
    Recovered {
        /// The key.
        key: EventKey,
    },
    /// The recovery queue was full, and one clear replaced it.
    RecoveryOverflow,
    /// This subscriber was too slow and has lost this many events.
    Lagged(u64),
}

impl Event {
    /// Whether only subscribers of L1 hits receive it.
    fn is_l1_hit(&self) -> bool {
        matches!(self, Self::Hit { source: Source::L1, stale: false, .. })
    }
}

/// Why a read found no usable entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissReason {
    /// Neither level has it.
    Absent,
    /// It has expired.
    Stale,
    /// A removal by tag or a clear hides it.
    Hidden,
    /// The key holds another type, or bytes that could not be decoded.
    Unusable,
    /// L2 was not available.
    Unreachable,
}

impl MissReason {
    /// The reason why a found entry cannot be the answer.
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Stale(_) | Verdict::Hidden(Why::Lifetime) => Self::Stale,
            Verdict::Hidden(_) => Self::Hidden,
            Verdict::Fresh | Verdict::Unverified => Self::Absent,
        }
    }
}

/// The kind of an invalidation message that was sent or received. Heartbeats emit no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// A write is about to begin that L2 cannot announce itself.
    Before,
    /// A node wrote a key.
    Written,
    /// A node removed a key.
    Removed,
    /// A node expired a key.
    Expired,
    /// A node removed or expired entries by tag, or cleared the cache.
    Removal,
}

/// How the ledger of removals differed from what this node knew: replaced, forked, or behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerTrouble {
    /// Another ledger replaced it; older entries are invalid.
    Replaced,
    /// A promoted server issued some numbers twice; the node cleared everything.
    Forked,
    /// A promoted server lost removals; this node issues them again.
    Reissued,
}
