//! Coalesces concurrent requests of one kind to one server into batches: one write, one parse and
//! one wake-up for all of them.
//!
//! ```text
//!  fewer than MAX_ALONE requests in flight, no batch:   its caller sends a request at once
//!  otherwise:                                           it waits for the task that sends batches
//!  the last batch was sent SLOW ago:                    another task sends the waiting requests
//! ```
//!
//! - **Y1** A request is sent after it was made: it never joins a batch that was sent before.
//! - **Y2** A waiting request depends on a task only, not on other callers, which may stop polling.
//! - **Y3** A waiting request whose caller was dropped is not sent. A batch ends when all its
//!   callers were dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_redis_client::RedisClient;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How many requests are sent by their own callers at the same time.
const MAX_ALONE: usize = 2;

/// How many requests a batch holds at most. All of them wait for the last answer.
const MAX_BATCH: usize = 64;

/// After this time, requests no longer wait for a batch: its answers may be large, or its server
/// frozen.
const SLOW: Duration = Duration::from_millis(20);

/// Limit of a batch: after that, the client replaces a connection that answers nothing.
const BATCH_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// How many callers send their request themselves.
    alone: usize,
    /// How many tasks send the waiting requests.
    tasks: usize,
    /// When the last batch was sent.
    sent: Instant,
    waiting: Vec<Waiting<A, R>>,
}

struct Waiting<A, R> {
    ask: A,
    reply: oneshot::Sender<Result<R, L2Error>>,
}

/// How a request is sent.
pub(crate) enum Admission<'a, A, R> {
    /// At once, by its caller, which drops the guard when it has the answer.
    Alone(Alone<'a, A, R>),
    /// With the next batch.
    Batched(oneshot::Receiver<Result<R, L2Error>>),
}

/// Counts a request that its caller sends.
pub(crate) struct Alone<'a, A, R>(&'a Coalescer<A, R>);

impl<A, R> Drop for Alone<'_, A, R> {
    fn drop(&mut self) {
        self.0.state.lock().alone -= 1;
    }
}

impl<A: Send + 'static, R: Send + 'static> Coalescer<A, R> {
    pub(crate) fn new<F, Fut>(client: RedisClient, send_batch: F) -> Arc<Self>
    where
        F: Fn(Vec<A>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Result<R, L2Error>>> + Send + 'static,
    {
        let send_batch: SendBatch<A, R> = Box::new(move |asks| Box::pin(send_batch(asks)));
        let state = State { alone: 0, tasks: 0, sent: Instant::now(), waiting: Vec::new() };
        Arc::new(Self { client, send_batch, state: Mutex::new(state) })
    }

    /// Admits a request. `ask` builds it if it has to wait.
    pub(crate) fn admit(self: &Arc<Self>, ask: impl FnOnce() -> A) -> Admission<'_, A, R> {
        let mut state = self.state.lock();
        if state.tasks == 0 && state.alone < MAX_ALONE {
            state.alone += 1;
            return Admission::Alone(Alone(self));
        }
        let (reply, answer) = oneshot::channel();
        state.waiting.push(Waiting { ask: ask(), reply });
        let starts = state.tasks == 0 || state.sent.elapsed() > SLOW;
        if starts {
            state.tasks += 1;
            state.sent = Instant::now();
        }
        drop(state);
        if starts {
            Batches { of: Arc::clone(self), has_ended: false }.start();
        }
        Admission::Batched(answer)
    }

    /// The next batch; `None` ends the task.
    fn next_batch(&self) -> Option<Vec<Waiting<A, R>>> {
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.reply.is_closed());
        let size = state.waiting.len().min(MAX_BATCH);
        if size == 0 {
            state.tasks -= 1;
            return None;
        }
        state.sent = Instant::now();
        let rest = state.waiting.split_off(size);
        Some(std::mem::replace(&mut state.waiting, rest))
    }

    async fn send(&self, batch: Vec<Waiting<A, R>>) {
        let (asks, mut replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.ask, waiting.reply)).unzip();
        let answers = timeout(BATCH_TIMEOUT, (self.send_batch)(asks));
        let answers = tokio::select! {
            biased;
            answers = answers => answers.unwrap_or_default(),
            () = all_closed(&mut replies) => return,
        };
        let mut answers = answers.into_iter();
        for reply in replies {
            let answer = answers.next().unwrap_or_else(|| Err(timed_out()));
            // The caller may have been dropped.
            drop(reply.send(answer));
        }
    }
}

/// The task that sends batches until no request waits.
struct Batches<A, R> {
    of: Arc<Coalescer<A, R>>,
    has_ended: bool,
}

impl<A: Send + 'static, R: Send + 'static> Batches<A, R> {
    fn start(self) {
        let client = self.of.client.clone();
        drop(client.spawn(async move {
            let mut batches = self;
            while let Some(batch) = batches.of.next_batch() {
                batches.of.send(batch).await;
            }
            batches.has_ended = true;
        }));
    }
}

impl<A, R> Drop for Batches<A, R> {
    /// If the runtime of the last task has ended, the waiting requests fail: their callers continue
    /// without L2, and the next request starts another task.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.of.state.lock();
        state.tasks -= 1;
        let failed = if state.tasks == 0 { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        drop(failed);
    }
}

/// Waits until every caller was dropped.
async fn all_closed<R>(replies: &mut [oneshot::Sender<R>]) {
    for reply in replies {
        reply.closed().await;
    }
}

fn timed_out() -> L2Error {
    let what = format!("no answer within {} s", BATCH_TIMEOUT.as_secs());
    L2Error::new(L2ErrorKind::Timeout, what)
}

/// Awaits the answer of a request that was sent with a batch.
pub(crate) async fn answer<R>(reply: oneshot::Receiver<Result<R, L2Error>>) -> Result<R, L2Error> {
    let what = "the runtime of the client's connection has ended";
    let lost = |_| Err(L2Error::new(L2ErrorKind::Disconnected, what));
    reply.await.unwrap_or_else(lost)
}

impl<A, R> fmt::Debug for Coalescer<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    type Batch = (Vec<u32>, oneshot::Sender<()>);

    /// A coalescer whose batches arrive here, and are answered with the number asked for.
    async fn coalescer() -> (Arc<Coalescer<u32, u32>>, UnboundedReceiver<Batch>) {
        let client = RedisClient::connect("redis://127.0.0.1:1").await.expect("a valid URL");
        let (sent, batches): (UnboundedSender<Batch>, _) = unbounded_channel();
        let send = move |asks: Vec<u32>| {
            let (release, released) = oneshot::channel();
            sent.send((asks.clone(), release)).expect("the test listens");
            async move {
                let _ = released.await;
                asks.into_iter().map(Ok).collect()
            }
        };
        (Coalescer::new(client, send), batches)
    }

    fn batched(admission: Admission<'_, u32, u32>) -> oneshot::Receiver<Result<u32, L2Error>> {
        match admission {
            Admission::Batched(reply) => reply,
            Admission::Alone(_) => panic!("sent alone"),
        }
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_callers_that_do_not_poll() {
        let (coalescer, mut batches) = coalescer().await;
        let _unpolled = [coalescer.admit(|| 1), coalescer.admit(|| 2)];
        let reply = batched(coalescer.admit(|| 3));
        let (asks, release) = batches.recv().await.expect("a batch");
        assert_eq!(asks, [3]);
        release.send(()).expect("the batch waits");
        assert_eq!(answer(reply).await.expect("an answer"), 3);
    }

    #[tokio::test]
    async fn requests_made_during_a_batch_are_sent_together_after_it() {
        let (coalescer, mut batches) = coalescer().await;
        let alone = [coalescer.admit(|| 1), coalescer.admit(|| 2)];
        let first = batched(coalescer.admit(|| 3));
        let (asks, release) = batches.recv().await.expect("a batch");
        assert_eq!(asks, [3]);
        drop(alone);
        let later = [4, 5, 6].map(|ask| batched(coalescer.admit(|| ask)));
        release.send(()).expect("the batch waits");
        assert_eq!(answer(first).await.expect("an answer"), 3);
        let (asks, release) = batches.recv().await.expect("a batch");
        assert_eq!(asks, [4, 5, 6]);
        release.send(()).expect("the batch waits");
        for (reply, ask) in later.into_iter().zip([4, 5, 6]) {
            assert_eq!(answer(reply).await.expect("an answer"), ask);
        }
    }

    #[tokio::test]
    async fn a_request_whose_caller_was_dropped_is_not_sent() {
        let (coalescer, mut batches) = coalescer().await;
        let _alone = [coalescer.admit(|| 1), coalescer.admit(|| 2)];
        let _first = batched(coalescer.admit(|| 3));
        let (_, release) = batches.recv().await.expect("a batch");
        drop(batched(coalescer.admit(|| 4)));
        let kept = batched(coalescer.admit(|| 5));
        release.send(()).expect("the batch waits");
        let (asks, release) = batches.recv().await.expect("a batch");
        assert_eq!(asks, [5]);
        release.send(()).expect("the batch waits");
        assert_eq!(answer(kept).await.expect("an answer"), 5);
    }
}
