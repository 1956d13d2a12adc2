use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::unconstrained;

use super::Event;

/// How many events a listener may be behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// A stream of [`Event`]s: [`next`](Events::next), or `futures::Stream`.
///
/// ```
/// use crinkle_core::{Cache, Event};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let mut events = cache.events();
/// cache.remove("product:42").await?;
/// let event = events.next().await;
/// assert!(matches!(event, Some(Event::Remove { key: Some(key) }) if &*key == "product:42"));
/// # Ok(())
/// # }
/// ```
#[must_use = "events are lost unless they are read"]
pub struct Events {
    stream: BoxStream<'static, Event>,
    listening: Listening,
}

impl Events {
    /// The next event; `None` once the cache is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// The next event that was told already, if there is one; waits for nothing.
    pub fn try_next(&mut self) -> Option<Event> {
        unconstrained(StreamExt::next(self)).now_or_never().flatten()
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        loop {
            match std::task::ready!(this.stream.poll_next_unpin(cx)) {
                Some(event) if event.is_l1_hit() && !this.listening.l1_hits => {}
                event => return Poll::Ready(event),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// Where events are told.
#[derive(Debug, Default)]
pub(crate) struct EventBus {
    sender: OnceLock<broadcast::Sender<Event>>,
    subscribers: Arc<SubscriberCount>,
}

/// How many listen.
#[derive(Debug, Default)]
struct SubscriberCount {
    all: AtomicUsize,
    l1_hits: AtomicUsize,
}

impl EventBus {
    /// Another listener, from now on.
    pub(crate) fn events(&self, l1_hits: bool) -> Events {
        let receiver = self.sender.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe();
        let events = stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(lost)) => Some((Event::Lagged(lost), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        Events { stream: events.boxed(), listening: Listening::begin(&self.subscribers, l1_hits) }
    }

    /// Tells an event, if anybody listens.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.subscribers.all.load(Ordering::Relaxed) > 0
            && let Some(sender) = self.sender.get()
        {
            let _ = sender.send(event());
        }
    }

    /// Whether anybody listens to the fresh answers of L1.
    pub(crate) fn wants_l1_hits(&self) -> bool {
        self.subscribers.l1_hits.load(Ordering::SeqCst) > 0
    }
}

/// One listener, counted while it lives.
#[derive(Debug)]
struct Listening {
    subscribers: Arc<SubscriberCount>,
    l1_hits: bool,
}

impl Listening {
    fn begin(subscribers: &Arc<SubscriberCount>, l1_hits: bool) -> Self {
        subscribers.all.fetch_add(1, Ordering::SeqCst);
        subscribers.l1_hits.fetch_add(usize::from(l1_hits), Ordering::SeqCst);
        Self { subscribers: Arc::clone(subscribers), l1_hits }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.subscribers.all.fetch_sub(1, Ordering::SeqCst);
        self.subscribers.l1_hits.fetch_sub(usize::from(self.l1_hits), Ordering::SeqCst);
    }
}
