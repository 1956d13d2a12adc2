use std::fmt;
use std::mem::replace;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::protocol::Version;

pub(super) type Running<'a, O> = Pin<Box<dyn Future<Output = O> + Send + 'a>>;

/// A request that a fresh value in L1 answers at once. Public only as a bound of [`RequestFuture`].
#[expect(unnameable_types, reason = "only the requests of this crate implement it")]
pub trait Request<'a>: Sized {
    /// What the call returns.
    type Output;

    /// The answer of L1, if there is one that the options allow; and the version to refresh, if an
    /// eager refresh is due.
    fn hit(&self) -> Option<(Self::Output, Option<Version>)>;

    /// Reloads in the background the value that [`hit`](Self::hit) returned.
    fn refresh(self, _version: Version) {}

    /// Starts the call on a miss. Neither inlined nor part of the hit path, because a boxed future
    /// is first built on the stack.
    fn run(self) -> Running<'a, Self::Output>;
}

/// The future of a request that reads. A hit completes in its first poll, without allocating; only
/// a miss is boxed.
pub struct RequestFuture<'a, R, O> {
    state: State<'a, R, O>,
}

enum State<'a, R, O> {
    New(R),
    Slow(Running<'a, O>),
    Done,
}

impl<R, O> RequestFuture<'_, R, O> {
    pub(super) fn new(request: R) -> Self {
        Self { state: State::New(request) }
    }
}

/// Sound because nothing in it is pinned: `poll` moves the request out before anything polls it.
impl<R, O> Unpin for RequestFuture<'_, R, O> {}

impl<'a, R: Request<'a>> Future for RequestFuture<'a, R, R::Output> {
    type Output = R::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::New(request) = &this.state {
            if let Some((answer, due)) = request.hit() {
                match due {
                    // The request is large, so it is dropped in place.
                    None => this.state = State::Done,
                    Some(version) => {
                        if let State::New(request) = replace(&mut this.state, State::Done) {
                            request.refresh(version);
                        }
                    }
                }
                return Poll::Ready(answer);
            }
            if let State::New(request) = replace(&mut this.state, State::Done) {
                this.state = State::Slow(request.run());
            }
        }
        let State::Slow(running) = &mut this.state else { return Poll::Pending };
        let output = ready!(running.as_mut().poll(cx));
        this.state = State::Done;
        Poll::Ready(output)
    }
}

impl<R, O> fmt::Debug for RequestFuture<'_, R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestFuture")
    }
}
