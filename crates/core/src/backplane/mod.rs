//! The backplane: change notifications between nodes.

// The traits are here, and `memory` implements them. `publish` sends this node's messages, and
// `notices` holds what it has received and not settled. `message` holds the wire format.

mod forward;
mod memory;
pub mod message;
mod notices;
pub(crate) mod publish;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

pub use memory::MemoryBackplane;
pub(crate) use notices::PendingNotices;

pub use crate::error::BackplaneError;
use crate::server::BusId;

/// Carries notifications between nodes.
///
/// # Contract
///
/// - At most once is enough: the cache detects a lost message and recovers. (Publishers number
///   their messages, nodes receive their own heartbeat, and the ledger is polled.)
/// - Duplicates and any order are tolerated; keeping each publisher's order saves work.
/// - A node receives its own messages.
/// - [`subscribe`](Backplane::subscribe) makes *one* attempt; the cache retries with back-off and
///   full jitter. It returns once the subscription is in force: every later message is delivered,
///   or the subscription ends.
///
/// # Cancel safety
///
/// The cache drops a `publish` that takes too long, and drops a subscription to end it.
///
/// # Wrappers
///
/// Forward every method. There are no default methods.
///
/// # Minimal implementation
///
/// `MemoryBackplane` (a map from channel to broadcast senders). Check yours with
/// `crinkle_testkit::contract::backplane`.
#[async_trait]
pub trait Backplane: Debug + Send + Sync + 'static {
    /// The bus that carries the messages, if stores may be able to publish on it themselves.
    fn bus(&self) -> Option<BusId>;

    /// Publishes a message to every subscriber of a channel.
    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError>;

    /// Subscribes to channels.
    async fn subscribe(&self, channels: &[String])
    -> Result<Box<dyn Subscription>, BackplaneError>;
}

/// A live subscription to the messages of other nodes; dropping it unsubscribes.
#[async_trait]
pub trait Subscription: Debug + Send {
    /// The next message; `None` once the subscription is lost, for good.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    async fn next(&mut self) -> Option<Incoming>;
}

/// A received message, or the notice that this subscriber lost some.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// A message.
    Message(Bytes),
    /// This subscriber was too slow and lost messages: the cache starts a resync. It is not an
    /// error.
    Lagged,
}
