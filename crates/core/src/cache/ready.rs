//! Waits for the first answers of L2 and the backplane.

use std::sync::Arc;

use super::Cache;
use crate::background::{ensure_runtime_runs, watch_runtime};
use crate::error::{Error, ErrorKind};
use crate::node::{Link, Node};

impl<C: Send + Sync + 'static> Cache<C> {
    /// Waits until the cache has read the ledger once and its subscription is active. Optional:
    /// before that, reads wait for the ledger within their L2 timeouts.
    ///
    /// While L2 is down, this waits without a limit. Put a `tokio::time::timeout` around it if the
    /// service should start without its L2. A refused login or a missing permission is an error at
    /// once. The cache retries in the background, so `ready` may be called again.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::L2`] if L2 refuses the login, or a command because the user lacks the
    ///   permission or the server lacks the command.
    /// - [`ErrorKind::Backplane`] if the server of the backplane refuses the login, or refuses this
    ///   user to publish or to subscribe.
    /// - [`ErrorKind::Closed`] if the cache is closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ready(&self) -> Result<(), Error> {
        let node = self.node();
        node.check_runtime(None)?;
        let (l2, bus) = (node.l2.is_some(), node.bus.is_some());
        let mut link = node.link.reader();
        let is_subscribed = |l: &Link| l.subscribed && (l.spoken || !l2);
        let is_up = |l: &Link| (!l2 || l.syncs > 0) && (!bus || is_subscribed(l));
        let outcome = link.wait_for(|l| l.is_refused(l2) || is_up(l));
        let attending = async {
            ensure_runtime_runs(node).await;
            watch_runtime(node).await;
        };
        tokio::select! {
            biased;
            () = outcome => {}
            () = node.closing.cancelled() => {
                return Err(Error::new(ErrorKind::Closed, node.place(None), ""));
            }
            () = attending => unreachable!("`watch_runtime` never returns"),
        }
        refusal(node, node.link.read()).map_or(Ok(()), Err)
    }
}

/// Returns the error of what a server refuses, if anything.
fn refusal(node: &Node, link: Link) -> Option<Error> {
    let (kind, what) = match link {
        Link { l2_refused: true, .. } => (
            ErrorKind::L2,
            "L2 refuses this client, so the cache is local only; correct the login or grant the permissions",
        ),
        Link { subscribe_refused: true, .. } => (
            ErrorKind::Backplane,
            "the server refuses the subscription, so entries are verified with L2; grant its user `subscribe` on \
             the channels of the cache",
        ),
        Link { publish_refused: true, .. } => (
            ErrorKind::Backplane,
            "the server refuses what this node publishes, so other nodes verify their entries with L2; grant its user \
             `publish` on the channels of the cache",
        ),
        _ => return None,
    };
    let trouble = node.telemetry.trouble.lock();
    let last = if kind == ErrorKind::L2 { &trouble.l2 } else { &trouble.backplane };
    let why = last.as_ref().map(|(why, _)| Arc::clone(why)).unwrap_or_default();
    Some(Error::new(kind, node.place(None), format!("{what}: {why}")))
}

impl Link {
    /// Whether waiting is of no use until the server or the login changes. `l2`: the cache has an
    /// L2. A refused login should be reported as its error, so the backplane's error waits for the
    /// first answer of L2.
    fn is_refused(&self, l2: bool) -> bool {
        let l2_has_answered = !l2 || self.syncs + self.failures > 0;
        self.l2_refused || (l2_has_answered && (self.subscribe_refused || self.publish_refused))
    }
}
