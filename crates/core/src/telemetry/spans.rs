//! Spans: one for a call that is not a plain hit, children for L2, factory and backplane, and a root
//! of its own for what happens in the background. Level DEBUG, target [`TARGET`].

use tracing::Span;
use tracing::field::Empty;

use super::Telemetry;
use super::meters::Op;

/// The target of every span and log line: `crinkle=debug` shows the spans, `crinkle=warn` the troubles.
pub const TARGET: &str = "crinkle";

/// A fresh answer of L1, if such spans are on.
pub(crate) fn hit(telemetry: &Telemetry, key: &str) {
    let key = telemetry.shown(key);
    drop(
        tracing::debug_span!(target: TARGET, "hit", cache = &*telemetry.cache, key, source = "l1"),
    );
}

/// One publication.
pub(crate) fn publish(cache: &str) -> Span {
    tracing::debug_span!(target: TARGET, "publish", cache)
}

/// One poll: a root.
pub(crate) fn poll(cache: &str) -> Span {
    tracing::debug_span!(target: TARGET, parent: None, "poll", cache)
}

/// The span of one operation of L2.
pub(crate) fn l2(cache: &str, op: Op) -> Span {
    tracing::debug_span!(target: TARGET, "l2", cache, op = op.name(), error = Empty)
}
