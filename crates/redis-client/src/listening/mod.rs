//! One connection for all subscriptions of a client, however many caches share it.
//!
//! A task reads the connection and queues each message for the subscribers of its channel. The
//! queues are bounded: a subscriber that does not keep up loses messages and receives
//! [`Delivery::Lagged`].
//!
//! The connection closes with its last subscriber. A subscriber that returns with the same channels
//! suspects that the old connection has gone silent, so it gets a new connection. Other subscribers
//! keep theirs.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, Shared, select};
use futures_util::stream::{Stream, StreamExt};
use parking_lot::Mutex;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use redis::{Msg, RedisError, RedisResult};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::settings::CONNECT_TIMEOUT;

/// Most messages that one subscriber's queue holds.
const QUEUE: usize = 4096;

/// Most bytes that one subscriber's queue holds: a hostile publisher may send 512 MB at a time.
const QUEUE_BYTES: usize = 8 << 20;

/// How many departed subscribers one connection remembers.
const MOST_LEFT: usize = 4096;

/// What a subscriber receives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A message.
    #[non_exhaustive]
    Message {
        /// The channel's name on the server.
        channel: Arc<str>,
        /// The published bytes.
        payload: Bytes,
    },
    /// The subscriber did not keep up, and lost messages.
    Lagged,
}

impl Delivery {
    fn size(&self) -> usize {
        match self {
            Self::Message { payload, .. } => payload.len(),
            Self::Lagged => 0,
        }
    }
}

/// The channels of one subscriber.
pub(crate) type Channels = Arc<[Arc<str>]>;

/// An attempt to connect, shared by all callers that wait for it.
type Attempt = Shared<BoxFuture<'static, RedisResult<Arc<SharedConnection>>>>;

/// The connection for the subscriptions of a client.
#[derive(Default)]
pub(crate) struct Listening {
    current: Mutex<Option<Attempt>>,
}

impl Listening {
    /// Subscribes to these channels. `open` opens a connection that can subscribe, with a future
    /// that resolves when its server stops answering; `explain` explains a refusal.
    pub(crate) async fn subscribe<O>(
        &self,
        channels: Channels,
        open: O,
        explain: impl FnOnce(RedisError) -> RedisError,
    ) -> RedisResult<Subscriber>
    where
        O: Future<Output = RedisResult<(PubSub, BoxFuture<'static, ()>)>> + Send + 'static,
    {
        let connecting = self.connection(open, &channels);
        let attempt = async {
            let connection = connecting.clone().await?;
            let subscriber = connection.join(channels)?;
            let confirmed = connection.confirm(&subscriber.channels).await;
            confirmed.map_err(explain)?;
            Ok(subscriber)
        };
        match timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(subscribed) => subscribed,
            Err(_) => {
                self.give_up(&connecting);
                Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)))
            }
        }
    }

    /// The connection to subscribe on, once it is open.
    fn connection<O>(&self, open: O, channels: &Channels) -> Attempt
    where
        O: Future<Output = RedisResult<(PubSub, BoxFuture<'static, ()>)>> + Send + 'static,
    {
        let mut current = self.current.lock();
        let usable = |attempt: &&Attempt| match attempt.peek() {
            None => true,
            Some(Ok(connection)) => connection.is_open_for(channels),
            Some(Err(_)) => false,
        };
        if let Some(attempt) = current.as_ref().filter(usable) {
            return attempt.clone();
        }
        let attempt = async move {
            let (pubsub, silent) = open.await?;
            Ok(SharedConnection::begin(pubsub, silent))
        };
        let attempt = attempt.boxed().shared();
        *current = Some(attempt.clone());
        attempt
    }

    /// The server does not confirm: the next call uses another connection.
    fn give_up(&self, attempt: &Attempt) {
        self.current.lock().take_if(|current| current.ptr_eq(attempt));
        if let Some(Ok(connection)) = attempt.peek() {
            connection.close();
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

/// One connection and its subscribers.
struct SharedConnection {
    routes: Mutex<Routes>,
    /// Held shared for a `SUBSCRIBE`, exclusively for an `UNSUBSCRIBE`: an `UNSUBSCRIBE` must not
    /// follow a newer `SUBSCRIBE` of the same channel.
    order: RwLock<()>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Routes {
    /// `None` once the connection is closed.
    sink: Option<PubSubSink>,
    subscribers: usize,
    next: u64,
    by_channel: HashMap<Arc<str>, Vec<Route>>,
    left: HashSet<Channels>,
}

/// One subscriber's queue, for one channel.
struct Route {
    id: u64,
    queue: mpsc::Sender<Delivery>,
    backlog: Arc<Backlog>,
}

/// What is in one subscriber's queue.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    lagged: AtomicBool,
}

impl Route {
    /// Never waits: a slow subscriber must not delay the others.
    fn send(&self, delivery: Delivery) {
        let Backlog { bytes, lagged } = &*self.backlog;
        let size = delivery.size();
        let has_room = bytes.fetch_add(size, Ordering::AcqRel) + size <= QUEUE_BYTES;
        if !has_room || self.queue.try_send(delivery).is_err() {
            bytes.fetch_sub(size, Ordering::AcqRel);
            lagged.store(true, Ordering::Release);
        }
    }
}

impl SharedConnection {
    fn new(sink: Option<PubSubSink>) -> Arc<Self> {
        let routes = Mutex::new(Routes { sink, ..Routes::default() });
        let (order, closed) = (RwLock::new(()), CancellationToken::new());
        Arc::new(Self { routes, order, closed })
    }

    fn begin(pubsub: PubSub, silent: BoxFuture<'static, ()>) -> Arc<Self> {
        let (sink, messages) = pubsub.split();
        let connection = Self::new(Some(sink));
        tokio::spawn(Arc::clone(&connection).read_messages(messages, silent));
        connection
    }

    /// Reads the connection until it ends, the server goes silent, or the last subscriber leaves.
    async fn read_messages(
        self: Arc<Self>,
        messages: PubSubStream,
        silent: BoxFuture<'static, ()>,
    ) {
        // Also closes the connection if the runtime drops the task.
        let _end = End(Arc::clone(&self));
        let stop = select(silent, Box::pin(self.closed.cancelled()));
        let mut messages = messages.take_until(stop);
        while let Some(message) = messages.next().await {
            self.deliver(&message);
        }
    }

    fn deliver(&self, message: &Msg) {
        let routes = self.routes.lock();
        if let Some((channel, listening)) =
            routes.by_channel.get_key_value(message.get_channel_name())
        {
            let payload = Bytes::copy_from_slice(message.get_payload_bytes());
            for route in listening {
                let (channel, payload) = (Arc::clone(channel), payload.clone());
                route.send(Delivery::Message { channel, payload });
            }
        }
    }

    fn is_open_for(&self, channels: &Channels) -> bool {
        let routes = self.routes.lock();
        routes.sink.is_some() && !routes.left.contains(channels)
    }

    /// Adds a subscriber before the `SUBSCRIBE`, so that it misses no message.
    fn join(self: &Arc<Self>, channels: Channels) -> RedisResult<Subscriber> {
        let mut routes = self.routes.lock();
        if routes.sink.is_none() {
            return Err(RedisError::from(io::Error::from(io::ErrorKind::ConnectionAborted)));
        }
        Ok(self.route(&mut routes, channels))
    }

    fn route(self: &Arc<Self>, routes: &mut Routes, channels: Channels) -> Subscriber {
        routes.next += 1;
        routes.subscribers += 1;
        let (id, backlog) = (routes.next, Arc::<Backlog>::default());
        let (sender, queue) = mpsc::channel(QUEUE);
        for channel in &*channels {
            let route = Route { id, queue: sender.clone(), backlog: Arc::clone(&backlog) };
            routes.by_channel.entry(Arc::clone(channel)).or_default().push(route);
        }
        Subscriber { connection: Arc::clone(self), id, channels, queue, backlog, next: None }
    }

    fn sink(&self) -> RedisResult<PubSubSink> {
        let closed = || RedisError::from(io::Error::from(io::ErrorKind::ConnectionAborted));
        self.routes.lock().sink.clone().ok_or_else(closed)
    }

    /// Subscribes and waits until the server confirms.
    async fn confirm(&self, channels: &Channels) -> RedisResult<()> {
        let _order = self.order.read().await;
        let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
        self.sink()?.subscribe(names).await
    }

    /// Removes a subscriber and unsubscribes from channels without subscribers. The last one closes
    /// the connection.
    fn leave(self: &Arc<Self>, id: u64, channels: &Channels) {
        let mut routes = self.routes.lock();
        routes.subscribers -= 1;
        let mut orphaned = false;
        for channel in &**channels {
            let Some(listening) = routes.by_channel.get_mut(channel) else { continue };
            listening.retain(|route| route.id != id);
            if listening.is_empty() {
                routes.by_channel.remove(channel);
                orphaned = true;
            }
        }
        if routes.left.len() < MOST_LEFT {
            routes.left.insert(Arc::clone(channels));
        }
        let last = routes.subscribers == 0;
        drop(routes);
        if last {
            return self.close();
        }
        // Without a runtime the server keeps sending messages that nobody reads.
        if orphaned && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).unsubscribe(Arc::clone(channels)));
        }
    }

    /// Unsubscribes from the channels that have no subscriber any more.
    async fn unsubscribe(self: Arc<Self>, channels: Channels) {
        let _order = self.order.write().await;
        let names = self.orphans(&channels);
        if let (Ok(mut sink), false) = (self.sink(), names.is_empty()) {
            // A failure only costs messages that nobody reads.
            let _ = timeout(CONNECT_TIMEOUT, sink.unsubscribe(names)).await;
        }
    }

    /// The channels that have no subscriber.
    fn orphans(&self, channels: &Channels) -> Vec<String> {
        let routes = self.routes.lock();
        let orphans = channels.iter().filter(|channel| !routes.by_channel.contains_key(*channel));
        orphans.map(|channel| channel.to_string()).collect()
    }

    /// Closes the connection, and ends every subscription on it.
    fn close(&self) {
        let mut routes = self.routes.lock();
        let sink = routes.sink.take();
        routes.by_channel.clear();
        drop(routes);
        drop(sink);
        self.closed.cancel();
    }
}

/// Closes the connection when the reading task ends.
struct End(Arc<SharedConnection>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Stream of the messages of some channels, until the connection ends. Dropping it unsubscribes.
#[must_use = "a stream does nothing until polled"]
pub struct Subscriber {
    connection: Arc<SharedConnection>,
    id: u64,
    channels: Channels,
    queue: mpsc::Receiver<Delivery>,
    backlog: Arc<Backlog>,
    next: Option<Delivery>,
}

impl Stream for Subscriber {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let this = self.get_mut();
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        let Some(delivery) = ready!(this.queue.poll_recv(cx)) else { return Poll::Ready(None) };
        let Backlog { bytes, lagged } = &*this.backlog;
        bytes.fetch_sub(delivery.size(), Ordering::AcqRel);
        if lagged.swap(false, Ordering::AcqRel) {
            this.next = Some(delivery);
            return Poll::Ready(Some(Delivery::Lagged));
        }
        Poll::Ready(Some(delivery))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.connection.leave(self.id, &self.channels);
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("channels", &self.channels).finish_non_exhaustive()
    }
}
