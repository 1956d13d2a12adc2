use std::borrow::Cow;
use std::fmt;
use std::future::IntoFuture;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::first_poll::Running;
use super::requests::entry_options;
use super::{Cache, IntoKey};
use crate::background::ensure_runtime_runs;
use crate::error::{Error, ErrorKind};
use crate::options::Choices;
use crate::token::Token;
use crate::write::{self, Reservation};

/// The request of [`Cache::wait_for`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct WaitFor<'a, C> {
    cache: &'a Cache<C>,
    token: Token,
    within: Duration,
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// Waits until this node knows a removal made on another node: read-your-writes across nodes.
    /// Reads that start afterwards see nothing that the removal hides. The token comes from
    /// [`Receipt::token`](crate::Receipt::token), for example by header or cookie.
    ///
    /// Tokens are untrusted input: an invalid one makes this call time out and triggers at most one
    /// extra poll.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotCaughtUp`] if the node does not receive the removal in time: read from the
    /// source, or continue and risk an older value. [`ErrorKind::Closed`] after `close`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    ///
    /// ```
    /// # use crinkle_core::{Cache, Token, l2::MemoryL2};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let shared = MemoryL2::new();
    /// # let one = Cache::builder("shop").l2(shared.clone()).build()?;
    /// # let two = Cache::builder("shop").l2(shared).build()?;
    /// // On one node; the token goes to the client.
    /// let token = one.remove_by_tag("cart:7").await?.token().map(|token| token.to_bytes());
    /// // The client's next request reaches another node.
    /// if let Some(token) = token {
    ///     two.wait_for(Token::from_bytes(token)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for(&self, token: Token) -> WaitFor<'_, C> {
        let node = self.node();
        WaitFor { cache: self, token, within: node.settings.poll * 2 + node.l2_limit() }
    }

    /// Reserves a key before its value is read from the source. The `set` that follows is superseded
    /// if an invalidation came first, instead of overwriting the key with an old value.
    ///
    /// The reservation lasts for the `load_lock_ttl` of the settings (10 s); a later `set` is
    /// superseded, too. While it lasts and the key is absent, other nodes wait for it as for a
    /// load.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], [`ErrorKind::InvalidOptions`]. [`ErrorKind::L2`] if L2 does not answer, because the `set` then
    /// has nothing to compare with.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; an acquired load lock expires by itself.
    ///
    /// ```
    /// # use crinkle_core::{Cache, WriteStatus};
    /// # async fn load() -> u32 { 42 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let cache = Cache::builder("shop").build()?;
    /// let reservation = cache.reserve("stock:42").await?;
    /// let stock = load().await;
    /// cache.remove("stock:42").await?; // a concurrent change
    /// let receipt = cache.set("stock:42", stock).reserved(reservation).await?;
    /// assert_eq!(receipt.l2(), WriteStatus::Superseded);
    /// assert!(cache.peek::<u32>("stock:42").is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Reserve<'a, C> {
        Reserve { cache: self, key: key.into_key(), options: Choices::default() }
    }
}

impl<C> WaitFor<'_, C> {
    /// Sets how long to wait. Default: two polls and the hard timeout of an L2 operation, 3 s.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for WaitFor<'a, C> {
    type Output = Result<(), Error>;
    type IntoFuture = Running<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let node = self.cache.node();
            node.check_open(None)?;
            node.check_runtime(None)?;
            let reached = node.coherence.reach(self.token.epoch, self.token.seq);
            let mut reached = pin!(timeout(self.within, reached));
            // A removal that the node already knows costs no probe of the runtime, like a hit.
            let reached = match (&mut reached).now_or_never() {
                Some(reached) => reached,
                // The caller's limit applies, however long that probe takes.
                None => tokio::select! {
                    biased;
                    reached = &mut reached => reached,
                    () = ensure_runtime_runs(node) => reached.await,
                },
            };
            reached.map_err(|_| {
                let what = format!("the removal was not received within {:?}", self.within);
                Error::new(ErrorKind::NotCaughtUp, node.place(None), what)
            })
        })
    }
}

impl<C> fmt::Debug for WaitFor<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The request of [`Cache::reserve`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Reserve<'a, C> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    options: Choices,
}

impl<C> Reserve<'_, C> {
    entry_options!();
}

impl<'a, C: Send + Sync + 'static> IntoFuture for Reserve<'a, C> {
    type Output = Result<Reservation, Error>;
    type IntoFuture = Running<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, key, options } = self;
        Box::pin(async move {
            let (node, key) = (cache.node(), &*key);
            node.check_key(key)?;
            node.check_runtime(Some(key))?;
            let options = options.over(node.options_for(key));
            options.validate(&node.place(Some(key)))?;
            ensure_runtime_runs(node).await;
            write::reserve(node, key, options.l2_hard_timeout).await
        })
    }
}

impl<C> fmt::Debug for Reserve<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").field("key", &self.key).finish_non_exhaustive()
    }
}
