//! Spans: one for a call that is not a plain hit, with children for L2, factory and backplane. Each
//! background task has a root of its own. Level DEBUG, target [`TARGET`].
//!
//! A span stays open while work runs in it. A factory that continues after its caller timed out
//! keeps the call's span open.

use tracing::field::{Empty, debug, display};
use tracing::{Instrument, Span, debug_span};

use super::Telemetry;
use super::meters::Op;
use crate::entry::Cached;
use crate::error::Error;
use crate::events::Notice;
use crate::receipt::Receipt;

/// The `tracing` target of spans and log lines; the filter `crinkle=debug` shows them.
pub const TARGET: &str = "crinkle";

/// Spans of calls with one key.
macro_rules! calls {
    ($($name:ident,)*) => {
        $(pub(crate) fn $name(telemetry: &Telemetry, key: &str) -> Span {
            debug_span!(
                target: TARGET,
                stringify!($name),
                cache = &*telemetry.cache,
                key = telemetry.shown(key),
                source = Empty,
                stale = Empty,
                l2 = Empty,
                backplane = Empty,
                error = Empty,
            )
        })*
    };
}

/// Spans of calls with many keys or tags.
macro_rules! batches {
    ($($name:ident,)*) => {
        $(pub(crate) fn $name(telemetry: &Telemetry, count: usize) -> Span {
            debug_span!(
                target: TARGET,
                stringify!($name),
                cache = &*telemetry.cache,
                count,
                l2 = Empty,
                backplane = Empty,
                error = Empty,
            )
        })*
    };
}

calls! { get_or_set, get, contains, set, remove, expire, }
batches! { get_many, get_or_set_many, set_many, remove_many, expire_many, remove_by_tag, clear, }

/// What a call's span records of its result.
pub(crate) trait Outcome {
    fn record(&self, span: &Span);
}

impl<T> Outcome for Cached<T> {
    fn record(&self, span: &Span) {
        span.record("source", debug(self.meta().source()));
        span.record("stale", self.meta().is_stale());
    }
}

impl<T> Outcome for Option<Cached<T>> {
    fn record(&self, span: &Span) {
        if let Some(cached) = self {
            cached.record(span);
        }
    }
}

impl Outcome for Receipt {
    fn record(&self, span: &Span) {
        span.record("l2", debug(self.l2()));
        span.record("backplane", debug(self.backplane()));
    }
}

impl Outcome for bool {
    fn record(&self, _: &Span) {}
}

impl<T> Outcome for Vec<T> {
    fn record(&self, _: &Span) {}
}

/// Runs a call in its span.
pub(crate) async fn call<R: Outcome>(
    span: Span,
    call: impl Future<Output = Result<R, Error>> + Send,
) -> Result<R, Error> {
    let result = call.instrument(span.clone()).await;
    match &result {
        Ok(outcome) => outcome.record(&span),
        Err(error) => {
            span.record("error", display(error));
        }
    }
    result
}

/// A fresh hit of L1, if `trace_hits` is on.
pub(crate) fn hit(telemetry: &Telemetry, key: &str) {
    let (cache, key) = (&*telemetry.cache, telemetry.shown(key));
    debug_span!(target: TARGET, "hit", cache, key).in_scope(|| ());
}

/// A run of the user's factory.
pub(crate) fn factory() -> Span {
    debug_span!(target: TARGET, "factory")
}

/// One operation of L2.
pub(crate) fn l2(cache: &str, op: Op) -> Span {
    debug_span!(target: TARGET, "l2", cache, op = op.name(), error = Empty)
}

/// The publication of one message.
pub(crate) fn publish(cache: &str) -> Span {
    debug_span!(target: TARGET, "publish", cache)
}

/// An eager refresh: a root that follows from the call that started it.
pub(crate) fn refresh(telemetry: &Telemetry, key: &str) -> Span {
    let (cache, key) = (&*telemetry.cache, telemetry.shown(key));
    following(debug_span!(target: TARGET, parent: None, "refresh", cache, key))
}

/// The rest of a write after its caller has returned: a root that follows from the call.
pub(crate) fn write_behind(cache: &str) -> Span {
    following(debug_span!(target: TARGET, parent: None, "write_behind", cache))
}

/// One poll of the ledger, with the recovery after it: a root.
pub(crate) fn poll(cache: &str) -> Span {
    debug_span!(target: TARGET, parent: None, "poll", cache)
}

/// One queued invalidation.
pub(crate) fn recover(telemetry: &Telemetry, key: &str) -> Span {
    let (cache, key) = (&*telemetry.cache, telemetry.shown(key));
    debug_span!(target: TARGET, "recover", cache, key)
}

/// One received message: a root.
pub(crate) fn receive(cache: &str, notice: Option<Notice>, own: bool) -> Span {
    match notice {
        Some(notice) => {
            debug_span!(target: TARGET, parent: None, "receive", cache, notice = debug(notice), own)
        }
        None => Span::none(),
    }
}

fn following(span: Span) -> Span {
    span.follows_from(Span::current());
    span
}
