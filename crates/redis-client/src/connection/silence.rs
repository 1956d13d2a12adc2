//! Detects a server that accepts commands but answers none of them.
//!
//! The kernel cannot detect it: with a frozen process, a sidecar or a half-dead proxy, every byte
//! is still acknowledged.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The time since which a connection owes an answer.
#[derive(Debug, Default)]
pub(crate) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// How long a connection may owe an answer without giving any: a few polls of the cache.
    pub(crate) const LIMIT: Duration = Duration::from_secs(3);

    /// A command is about to be sent.
    pub(crate) fn asked(&self) {
        self.0.lock().get_or_insert_with(Instant::now);
    }

    /// Any answer arrived. For commands that still wait, the time starts again with the next
    /// command.
    pub(crate) fn answered(&self) {
        *self.0.lock() = None;
    }

    /// Whether the connection has owed an answer for [`LIMIT`](Self::LIMIT) and given none.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.0.lock().is_some_and(|since| since.elapsed() > Self::LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_owes_nothing() {
        let silence = Silence::default();
        silence.asked();
        silence.answered();
        advance(Silence::LIMIT * 2).await;
        assert!(!silence.is_over_limit());
    }

    #[tokio::test(start_paused = true)]
    async fn later_commands_do_not_prolong_the_limit() {
        let silence = Silence::default();
        silence.asked();
        advance(Silence::LIMIT / 2).await;
        silence.asked();
        assert!(!silence.is_over_limit());
        advance(Silence::LIMIT / 2 + Duration::from_millis(1)).await;
        assert!(silence.is_over_limit());
    }
}
