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

/// How many events a subscriber may be behind before it loses the oldest.
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
    subscriber: SubscriberGuard,
}

impl Events {
    /// The next event; `None` once the cache no longer exists.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// The next event if one is available already; does not wait.
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
                Some(event) if event.is_l1_hit() && !this.subscriber.l1_hits => {}
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

/// Sends events to subscribers.
#[derive(Debug, Default)]
pub(crate) struct EventBus {
    sender: OnceLock<broadcast::Sender<Event>>,
    subscribers: Arc<SubscriberCount>,
}

/// How many subscribers there are.
#[derive(Debug, Default)]
struct SubscriberCount {
    all: AtomicUsize,
    l1_hits: AtomicUsize,
}

impl EventBus {
    /// Adds a subscriber. It receives the events from now on.
    pub(crate) fn events(&self, l1_hits: bool) -> Events {
        let receiver = self.sender.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe();
        let events = stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(lost)) => Some((Event::Lagged(lost), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        Events {
            stream: events.boxed(),
            subscriber: SubscriberGuard::begin(&self.subscribers, l1_hits),
        }
    }

    /// Emits an event if there is a subscriber.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.subscribers.all.load(Ordering::Relaxed) > 0
            && let Some(sender) = self.sender.get()
        {
            let _ = sender.send(event());
        }
    }

    /// Whether a subscriber wants the fresh hits of L1.
    pub(crate) fn wants_l1_hits(&self) -> bool {
        self.subscribers.l1_hits.load(Ordering::SeqCst) > 0
    }
}

/// Counts one subscriber until it is dropped.
#[derive(Debug)]
struct SubscriberGuard {
    subscribers: Arc<SubscriberCount>,
    l1_hits: bool,
}

impl SubscriberGuard {
    fn begin(subscribers: &Arc<SubscriberCount>, l1_hits: bool) -> Self {
        subscribers.all.fetch_add(1, Ordering::SeqCst);
        subscribers.l1_hits.fetch_add(usize::from(l1_hits), Ordering::SeqCst);
        Self { subscribers: Arc::clone(subscribers), l1_hits }
    }
}

impl Drop for SubscriberGuard {
    fn drop(&mut self) {
        self.subscribers.all.fetch_sub(1, Ordering::SeqCst);
        self.subscribers.l1_hits.fetch_sub(usize::from(self.l1_hits), Ordering::SeqCst);
    }
}
