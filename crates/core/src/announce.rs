//! Messages that a store publishes in the same step as it writes.

use bytes::Bytes;

/// A message to publish in the same step as a record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct Announce {
    /// The channel.
    pub channel: String,
    /// The message.
    pub message: Bytes,
}

/// A message to publish in the same step as a removal is numbered. The store composes it: `head`,
/// then epoch, previous id (0 for none) and number as big-endian `u64`s, then `tail`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "read by every store")]
pub struct AnnounceRemoval {
    /// The channel.
    pub channel: String,
    /// The bytes before the numbers.
    pub head: Bytes,
    /// The bytes after the numbers.
    pub tail: Bytes,
}
