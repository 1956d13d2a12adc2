//! Coalesces concurrent requests of one kind to one server into batches: one write, one parse and
//! one wake-up for all of them.
//!
//! ```text
//!  fewer than MAX_IN_FLIGHT batches in flight:   a request leaves at once, alone
//!  otherwise:                                    it waits, and leaves with the next batch
//! ```
//!
//! - **Y1** A request is sent after it was made: it never joins a batch that was sent before.
//! - **Y2** When a batch ends, or is dropped, the waiting requests leave.
//! - **Y3** A waiting request whose caller has gone is not sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_redis_client::RedisClient;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How many batches are in flight at most: the server answers one while this node prepares another.
const MAX_IN_FLIGHT: usize = 2;

/// How many requests a batch holds at most.
const MAX_BATCH: usize = 512;

/// Limit of a batch. Callers have shorter limits of their own; this one ends a batch that a server
/// never answers.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a batch and returns its answers, in order.
type SendBatch<A, R> =
    Box<dyn Fn(Vec<A>) -> BoxFuture<'static, Vec<Result<R, L2Error>>> + Send + Sync>;

/// Requests of one kind to one server.
pub(crate) struct Coalescer<A, R> {
    client: RedisClient,
    send_batch: SendBatch<A, R>,
    state: Mutex<State<A, R>>,
}

struct State<A, R> {
    in_flight: usize,
    waiting: Vec<Waiting<A, R>>,
}

struct Waiting<A, R> {
    ask: A,
    reply: oneshot::Sender<Result<R, L2Error>>,
}

/// How a request is sent.
pub(crate) enum Admission<A: Send + 'static, R: Send + 'static> {
    /// Alone and at once, by its caller, which drops the guard with the answer.
    Alone(InFlight<A, R>),
    /// With the next batch.
    Batched(oneshot::Receiver<Result<R, L2Error>>),
}

/// Counts a batch in flight. When dropped, the waiting requests leave (Y2).
pub(crate) struct InFlight<A: Send + 'static, R: Send + 'static>(Arc<Coalescer<A, R>>);

impl<A: Send + 'static, R: Send + 'static> Coalescer<A, R> {
    pub(crate) fn new<F, Fut>(client: RedisClient, send_batch: F) -> Arc<Self>
    where
        F: Fn(Vec<A>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Result<R, L2Error>>> + Send + 'static,
    {
        let send_batch: SendBatch<A, R> = Box::new(move |asks| Box::pin(send_batch(asks)));
        let state = Mutex::new(State { in_flight: 0, waiting: Vec::new() });
        Arc::new(Self { client, send_batch, state })
    }

    /// Admits a request. `ask` builds it if it has to wait.
    pub(crate) fn admit(self: &Arc<Self>, ask: impl FnOnce() -> A) -> Admission<A, R> {
        let mut state = self.state.lock();
        if state.in_flight < MAX_IN_FLIGHT {
            state.in_flight += 1;
            return Admission::Alone(InFlight(Arc::clone(self)));
        }
        let (reply, answer) = oneshot::channel();
        state.waiting.push(Waiting { ask: ask(), reply });
        Admission::Batched(answer)
    }

    /// The next batch; an empty one ends the place in flight.
    fn next_batch(&self) -> Vec<Waiting<A, R>> {
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.reply.is_closed());
        let size = state.waiting.len().min(MAX_BATCH);
        if size == 0 {
            state.in_flight -= 1;
            return Vec::new();
        }
        let rest = state.waiting.split_off(size);
        std::mem::replace(&mut state.waiting, rest)
    }

    async fn run(&self, batch: Vec<Waiting<A, R>>) {
        let (asks, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.ask, waiting.reply)).unzip();
        let answers = timeout(BATCH_TIMEOUT, (self.send_batch)(asks)).await.unwrap_or_default();
        for (reply, answer) in replies.into_iter().zip(answers) {
            // The caller may have gone.
            drop(reply.send(answer));
        }
    }
}

impl<A: Send + 'static, R: Send + 'static> Drop for InFlight<A, R> {
    fn drop(&mut self) {
        let batch = self.0.next_batch();
        if batch.is_empty() {
            return;
        }
        let next = Self(Arc::clone(&self.0));
        let run = async move {
            let next = next;
            next.0.run(batch).await;
        };
        drop(self.0.client.spawn(run));
    }
}

/// Awaits the answer of a request that left with a batch.
pub(crate) async fn answer<R>(reply: oneshot::Receiver<Result<R, L2Error>>) -> Result<R, L2Error> {
    let lost = |_| Err(L2Error::new(L2ErrorKind::Disconnected, "its batch was not answered"));
    reply.await.unwrap_or_else(lost)
}

impl<A, R> fmt::Debug for Coalescer<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_flight = self.state.lock().in_flight;
        f.debug_struct("Coalescer").field("in_flight", &in_flight).finish_non_exhaustive()
    }
}
