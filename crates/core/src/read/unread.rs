//! Counts and logs the records that this node cannot use, with the reason.

use crate::error::Error;
use crate::events::Event;
use crate::l2::unread::{REASONS, Reason};
use crate::node::Node;
use crate::telemetry::TARGET;

impl Node {
    /// Counts a record that this node cannot use; logs a warning if it is the first for a while.
    pub(super) fn unread(&self, key: &str, reason: Reason) {
        let event = |key| Event::Undecodable { key };
        self.note(&self.counters.l2_undecodable, key, event);
        let (why, advice) = reason.text();
        let place = self.place(Some(key));
        if self.unread.is_news(reason as usize, self.now()) {
            tracing::warn!(
                target: TARGET, %place, server = self.telemetry.l2_server.as_deref(), why, advice,
                "this node cannot use a record of L2 and loads the value itself; \
                the counter l2_undecodable counts further cases"
            );
        } else {
            tracing::debug!(%place, why, "this node cannot use a record of L2");
        }
    }

    /// Logs a loaded value that L2 cannot store: as a warning if it is the first for a while.
    pub(super) fn unstored(&self, error: &Error) {
        if self.unread.is_news(REASONS, self.now()) {
            tracing::warn!(
                target: TARGET, %error,
                "a loaded value cannot be stored in L2 and stays in L1, so each node loads its own; \
                the counter l2_unencodable counts further cases"
            );
        } else {
            tracing::debug!(%error, "a loaded value cannot be stored in L2 and stays in L1");
        }
    }
}
