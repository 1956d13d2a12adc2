//! Removes or expires keys and tags in one call.
//!
//! Each part does what its own call does: it applies locally before the first await, and queues
//! what L2 has not confirmed. Both parts are sent at the same time. So the call costs one round
//! trip, and a server that does not answer costs one timeout.

use std::sync::Arc;

use futures_util::future::join;

use super::removal;
use crate::error::Error;
use crate::node::Node;
use crate::options::EntryOptions;
use crate::protocol::ledger::Strength;
use crate::receipt::Receipt;
use crate::telemetry::spans;

/// Removes or expires keys, with the future `keys`, and tags.
///
/// The caller has checked the tags: no part may begin unless the whole call is valid.
pub(crate) async fn invalidate_and_tags(
    node: &Arc<Node>,
    keys: impl Future<Output = Result<Receipt, Error>> + Send,
    strength: Strength,
    tags: &[String],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    if tags.is_empty() {
        return keys.await;
    }
    let span = spans::remove_by_tag(&node.telemetry, tags.len());
    let numbering = spans::call(span, removal::by_tags(node, strength, tags, options));
    let (keys, tags) = join(keys, numbering).await;
    Ok(Receipt::both(keys?, tags?))
}
