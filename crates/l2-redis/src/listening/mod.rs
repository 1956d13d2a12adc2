//! One connection for all subscriptions of a client, however many caches share it.
//!
//! A task reads the connection and hands each message to the subscribers of its channel, whose queues are
//! bounded: a subscriber that does not keep up is told that it has lost some ([`Delivery::Lagged`]).
//!
//! The last subscriber that goes closes the connection. A subscriber that comes back with the channels it had
//! has reason to think that it hears nothing there, so it is given a new connection; the others stay where
//! they are.

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

use crate::client::RedisClient;
use crate::connection::CONNECT_TIMEOUT;
use crate::rights;

/// How many messages may wait for one subscriber.
const QUEUE: usize = 4096;

/// How many bytes of messages may wait for one subscriber: a hostile publisher may send 512 MB at a time.
const QUEUE_BYTES: usize = 8 << 20;

/// How many subscribers that have left are remembered per connection.
const MOST_LEFT: usize = 4096;

/// What a subscriber hears.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A message.
    #[non_exhaustive]
    Message {
        /// The channel, as the server calls it.
        channel: Arc<str>,
        /// What was published.
        payload: Bytes,
    },
    /// The subscriber has not kept up: messages were dropped.
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
type Channels = Arc<[Arc<str>]>;

/// An attempt to connect that all who wait for it share.
type Attempt = Shared<BoxFuture<'static, RedisResult<Arc<Line>>>>;

/// The connection for the subscriptions of a client.
#[derive(Default)]
pub(crate) struct Listening {
    current: Mutex<Option<Attempt>>,
}

impl Listening {
    pub(crate) async fn subscribe(
        &self,
        client: &RedisClient,
        channels: &[String],
    ) -> RedisResult<Subscriber> {
        let channels: Channels =
            channels.iter().map(|channel| Arc::from(&*client.channel(channel))).collect();
        let connecting = self.line(client, &channels);
        let attempt = async {
            let line = connecting.clone().await?;
            let subscriber = line.join(channels)?;
            let confirmed = line.confirm(&subscriber.channels).await;
            let name = |channel: &Arc<str>| channel.to_string().into();
            let names: Vec<_> = subscriber.channels.iter().map(name).collect();
            confirmed.map_err(|error| rights::on_channels(error, client, "subscribe", &names))?;
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

    /// The connection to subscribe on, as soon as there is one.
    fn line(&self, client: &RedisClient, channels: &Channels) -> Attempt {
        let mut current = self.current.lock();
        let usable = |attempt: &&Attempt| match attempt.peek() {
            None => true,
            Some(Ok(line)) => line.is_open_for(channels),
            Some(Err(_)) => false,
        };
        if let Some(attempt) = current.as_ref().filter(usable) {
            return attempt.clone();
        }
        let client = client.clone();
        let attempt = async move {
            let (pubsub, silent) = client.pubsub().await?;
            Ok(Line::begin(pubsub, silent))
        };
        let attempt = attempt.boxed().shared();
        *current = Some(attempt.clone());
        attempt
    }

    /// The server does not confirm: it is asked on another connection next time.
    fn give_up(&self, attempt: &Attempt) {
        self.current.lock().take_if(|current| current.ptr_eq(attempt));
        if let Some(Ok(line)) = attempt.peek() {
            line.close();
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Subscribes on the connection that all subscribers of this client share; returns when every channel is
    /// confirmed. The stream ends with the connection. Who comes back with the channels that it has had gets
    /// a new connection.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn listen(&self, channels: &[String]) -> RedisResult<Subscriber> {
        self.listening().subscribe(self, channels).await
    }
}

/// One connection and who listens on it.
struct Line {
    routes: Mutex<Routes>,
    /// `SUBSCRIBE`s are sent under a shared lock, `UNSUBSCRIBE`s under an exclusive one: none of these may come
    /// after a `SUBSCRIBE` of the same channel that it does not know of.
    order: RwLock<()>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Routes {
    /// None once the connection is closed.
    sink: Option<PubSubSink>,
    subscribers: usize,
    next: u64,
    by_channel: HashMap<Arc<str>, Vec<Route>>,
    left: HashSet<Channels>,
}

/// The endpoint to one subscriber.
struct Route {
    id: u64,
    queue: mpsc::Sender<Delivery>,
    backlog: Arc<Backlog>,
}

/// What waits for one subscriber.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    lagged: AtomicBool,
}

impl Route {
    /// Never waits: one slow subscriber must not keep the others waiting.
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

impl Line {
    fn new(sink: Option<PubSubSink>) -> Arc<Self> {
        let routes = Mutex::new(Routes { sink, ..Routes::default() });
        let (order, closed) = (RwLock::new(()), CancellationToken::new());
        Arc::new(Self { routes, order, closed })
    }

    fn begin(pubsub: PubSub, silent: BoxFuture<'static, ()>) -> Arc<Self> {
        let (sink, messages) = pubsub.split();
        let line = Self::new(Some(sink));
        tokio::spawn(Arc::clone(&line).carry(messages, silent));
        line
    }

    /// Reads the connection until it ends, the server falls silent, or nobody listens any more.
    async fn carry(self: Arc<Self>, messages: PubSubStream, silent: BoxFuture<'static, ()>) {
        // Also if the task is dropped with its runtime.
        let _end = End(Arc::clone(&self));
        let over = select(silent, Box::pin(self.closed.cancelled()));
        let mut messages = messages.take_until(over);
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

    /// Registers a subscriber, before anything is sent: no message may come in between.
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
        Subscriber { line: Arc::clone(self), id, channels, queue, backlog, next: None }
    }

    fn sink(&self) -> RedisResult<PubSubSink> {
        let closed = || RedisError::from(io::Error::from(io::ErrorKind::ConnectionAborted));
        self.routes.lock().sink.clone().ok_or_else(closed)
    }

    /// Has the server confirm that it sends what is published on these channels.
    async fn confirm(&self, channels: &Channels) -> RedisResult<()> {
        let _order = self.order.read().await;
        let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
        self.sink()?.subscribe(names).await
    }

    /// A subscriber goes. Channels that nobody else listens to are left; the last one closes the connection.
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
        // Without a runtime the server goes on sending what nobody listens to.
        if orphaned && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).unsubscribe(Arc::clone(channels)));
        }
    }

    /// Unsubscribes from those of the channels that nobody listens to.
    async fn unsubscribe(self: Arc<Self>, channels: Channels) {
        let _order = self.order.write().await;
        let names = self.orphans(&channels);
        if let (Ok(mut sink), false) = (self.sink(), names.is_empty()) {
            // In vain it costs messages that nobody listens to.
            let _ = timeout(CONNECT_TIMEOUT, sink.unsubscribe(names)).await;
        }
    }

    /// Those of the channels that nobody listens to.
    fn orphans(&self, channels: &Channels) -> Vec<String> {
        let routes = self.routes.lock();
        let orphans = channels.iter().filter(|channel| !routes.by_channel.contains_key(*channel));
        orphans.map(|channel| channel.to_string()).collect()
    }

    /// Ends the connection, and every subscription on it.
    fn close(&self) {
        let mut routes = self.routes.lock();
        let sink = routes.sink.take();
        routes.by_channel.clear();
        drop(routes);
        drop(sink);
        self.closed.cancel();
    }
}

/// Closes what was read when it is dropped.
struct End(Arc<Line>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What is published on some channels, until the connection ends. Dropped, it is unsubscribed.
#[must_use = "a stream does nothing until polled"]
pub struct Subscriber {
    line: Arc<Line>,
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
        self.line.leave(self.id, &self.channels);
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("channels", &self.channels).finish_non_exhaustive()
    }
}
