//! Waiting for the first answers of L2 and the backplane.

use std::sync::Arc;

use super::{Cache, Inner, Link, attend, attend_on};
use crate::error::{Error, ErrorKind};

impl<C: Send + Sync + 'static> Cache<C> {
    /// Waits until the ledger has been read once and the subscription is in force. Optional: before
    /// that, reads wait for the ledger within their L2 timeouts.
    ///
    /// While L2 is down it waits, for as long as that takes: put a `tokio::time::timeout` around it
    /// where a service should start without its L2. A refused login or a missing right is an error at once; the
    /// cache goes on trying in the background, so it may be called again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::L2`] if L2 refuses the login, or a command for want of a right or because the server does not
    /// have it; [`ErrorKind::Backplane`] if the server of the backplane refuses the login, or this user to
    /// publish or to subscribe; [`ErrorKind::Closed`] if the cache is closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ready(&self) -> Result<(), Error> {
        let inner = self.inner();
        inner.check_runtime(None)?;
        let (l2, bus) = (inner.l2.is_some(), inner.bus.is_some());
        let mut link = inner.link.reader();
        let heard = |l: &Link| l.subscribed && (l.spoken || !l2);
        let is_up = |l: &Link| (!l2 || l.syncs > 0) && (!bus || heard(l));
        let settled = link.wait_for(|l| l.is_refused(l2) || is_up(l));
        let attended = async {
            attend(inner).await;
            attend_on(inner).await;
        };
        tokio::select! {
            biased;
            () = settled => {}
            () = inner.closing.cancelled() => {
                return Err(Error::new(ErrorKind::Closed, inner.place(None), ""));
            }
            () = attended => unreachable!("it is attended until the wait ends"),
        }
        refusal(inner, inner.link.read()).map_or(Ok(()), Err)
    }
}

/// What is refused, if anything is.
fn refusal<C>(inner: &Inner<C>, link: Link) -> Option<Error> {
    let (kind, what) = match link {
        Link { l2_refused: true, .. } => (
            ErrorKind::L2,
            "L2 refuses this client, so the cache runs on L1 alone; correct the login or grant the rights",
        ),
        Link { subscribe_refused: true, .. } => (
            ErrorKind::Backplane,
            "the server refuses the subscription, so entries are verified with L2; grant its user `subscribe` on \
             the channels of the cache",
        ),
        Link { publish_refused: true, .. } => (
            ErrorKind::Backplane,
            "the server refuses what this node publishes, so the others verify what they hold; grant its user \
             `publish` on the channels of the cache",
        ),
        _ => return None,
    };
    let trouble = inner.telemetry.trouble.lock();
    let last = if kind == ErrorKind::L2 { &trouble.l2 } else { &trouble.backplane };
    let why = last.as_ref().map(|(why, _)| Arc::clone(why)).unwrap_or_default();
    Some(Error::new(kind, inner.place(None), format!("{what}: {why}")))
}

impl Link {
    /// Whether waiting longer is of no use until somebody changes the server or the login. `l2`: there is one; a
    /// refused login is its error, so the backplane's waits for what L2 says first.
    fn is_refused(&self, l2: bool) -> bool {
        let l2_has_said = !l2 || self.syncs + self.failures > 0;
        self.l2_refused || (l2_has_said && (self.subscribe_refused || self.publish_refused))
    }
}
