//! Why a node cannot use a record, and when each reason last occurred.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// A case that follows the last one within this time is not logged as a warning again.
const QUIET: Duration = Duration::from_secs(60);

/// Why this node cannot use a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    TooLarge,
    Damaged,
    Unissued,
    OtherKey,
    OtherType,
    OtherCodec,
    Compression,
    Undecodable,
}

/// How many reasons there are.
pub(crate) const REASONS: usize = Reason::Undecodable as usize + 1;

impl Reason {
    /// The cause, and what to do about it.
    pub(crate) fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::TooLarge => {
                ("it is larger than this node accepts", "give all nodes the same max_value_bytes")
            }
            Self::Damaged => (
                "it is not a record, or its checksum is wrong",
                "look for what else writes under the cache's key prefix",
            ),
            Self::Unissued => (
                "the ledger has not issued its stamp",
                "look for what else writes under the cache's key prefix, and at the server's clock",
            ),
            Self::OtherKey => (
                "it is the record of another key",
                "look for what copies or renames keys under the cache's prefix",
            ),
            Self::OtherType => (
                "it holds a value of another type",
                "if this continues after a roll-out, give one of the types another key or cache name",
            ),
            Self::OtherCodec => (
                "it was written with another codec",
                "if this continues after a roll-out, give all nodes the same codec",
            ),
            Self::Compression => (
                "its payload cannot be decompressed: this node lacks the algorithm, or it is too large",
                "build all nodes with the same features, and the same max_value_bytes",
            ),
            Self::Undecodable => (
                "the codec cannot decode its payload",
                "if this continues after a roll-out, rename the type that has changed",
            ),
        }
    }
}

/// When each reason last occurred; 0 for never.
///
/// The last element is for values that L2 could not store.
#[derive(Debug, Default)]
pub(crate) struct Unread([AtomicU64; REASONS + 1]);

impl Unread {
    /// Records an occurrence; true if it is the first within [`QUIET`].
    pub(crate) fn is_news(&self, what: usize, now: Moment) -> bool {
        let now = now.as_nanos().max(1);
        let last = self.0[what].swap(now, Ordering::Relaxed);
        last == 0 || now.saturating_sub(last) > crate::clock::nanos(QUIET)
    }
}
