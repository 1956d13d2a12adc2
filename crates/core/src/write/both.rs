//! Keys and tags removed by one call.
//!
//! Each part is what its own call would be: it holds here before anything is awaited, and what L2 has not
//! confirmed is queued as that call queues it. They are sent at the same time, so the call is one round trip,
//! and a server that does not answer costs one timeout.

use std::sync::Arc;

use futures_util::future::join;

use super::{Receipt, removal};
use crate::cache::Inner;
use crate::error::Error;
use crate::options::EntryOptions;
use crate::protocol::ledger::Strength;
use crate::telemetry::spans;

/// Removes keys, by `removing`, and tags.
///
/// The tags have been checked: nothing may begin that is not wanted as a whole.
pub(crate) async fn remove_and_tags<C: Send + Sync + 'static>(
    inner: &Arc<Inner<C>>,
    removing: impl Future<Output = Result<Receipt, Error>> + Send,
    tags: &[String],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    if tags.is_empty() {
        return removing.await;
    }
    let span = spans::remove_by_tag(&inner.telemetry, tags.len());
    let numbering = spans::call(span, removal::by_tags(inner, Strength::Hard, tags, options));
    let (keys, tags) = join(removing, numbering).await;
    Ok(Receipt::both(keys?, tags?))
}
