//! Records that a node cannot use: why, and who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Inner;
use crate::clock::Moment;
use crate::error::Error;
use crate::events::Event;
use crate::telemetry::TARGET;

/// As long as one was met within so long, the next is no news.
const QUIET: Duration = Duration::from_secs(60);

/// Why a record cannot be used.
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
const REASONS: usize = Reason::Undecodable as usize + 1;

impl Reason {
    /// What is wrong, and what to do about it.
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::TooLarge => {
                ("it is larger than this node accepts", "give all nodes the same max_value_bytes")
            }
            Self::Damaged => (
                "it is no record, or its checksum is wrong",
                "look for what else writes under the cache's key prefix",
            ),
            Self::Unissued => (
                "its stamp is one that the ledger has not issued",
                "look for what else writes under the cache's key prefix, and at the server's clock",
            ),
            Self::OtherKey => (
                "it is the record of another key",
                "look for what copies or renames keys under the cache's prefix",
            ),
            Self::OtherType => (
                "it holds a value of another type",
                "if this lasts beyond a roll-out, give one of the types another key or cache name",
            ),
            Self::OtherCodec => (
                "it was written with another codec",
                "if this lasts beyond a roll-out, give all nodes the same codec",
            ),
            Self::Compression => (
                "its payload cannot be expanded: a compression that this node lacks, or too large",
                "build all nodes with the same features, and the same max_value_bytes",
            ),
            Self::Undecodable => (
                "the codec cannot decode its payload",
                "if this lasts beyond a roll-out, rename the type that has changed",
            ),
        }
    }
}

/// When a record was last found that could not be used, by reason, and in the last place when a value
/// was last loaded that could not be stored; 0 for never.
#[derive(Debug, Default)]
pub(crate) struct Unread([AtomicU64; REASONS + 1]);

impl Unread {
    /// Notes that it has happened again; true if it had not for a while.
    fn is_news(&self, what: usize, now: Moment) -> bool {
        let now = now.as_nanos().max(1);
        let last = self.0[what].swap(now, Ordering::Relaxed);
        last == 0 || now.saturating_sub(last) > crate::clock::nanos(QUIET)
    }
}

impl<C> Inner<C> {
    /// A record cannot be used: it is counted, and logged if it is the first for a while.
    pub(super) fn unread(&self, key: &str, reason: Reason) {
        let event = |key| Event::Undecodable { key };
        self.note(&self.counters.l2_undecodable, key, event);
        let (why, advice) = reason.text();
        let place = self.place(Some(key));
        if self.unread.is_news(reason as usize, self.now()) {
            tracing::warn!(
                target: TARGET, %place, server = self.telemetry.l2_server.as_deref(), why, advice,
                "a record of L2 is of no use to this node, which keeps what it loads itself; \
                 more of the kind are only counted (l2_undecodable)"
            );
        } else {
            tracing::debug!(%place, why, "a record of L2 is of no use to this node");
        }
    }

    /// A value that was loaded cannot be stored in L2: logged if it is the first for a while.
    pub(super) fn unstored(&self, error: &Error) {
        if self.unread.is_news(REASONS, self.now()) {
            tracing::warn!(
                target: TARGET, %error,
                "a value that was loaded cannot be stored in L2 and stays in L1: each node loads its own; \
                 more of the kind are only counted (l2_unencodable)"
            );
        } else {
            tracing::debug!(%error, "value stays in L1");
        }
    }
}
