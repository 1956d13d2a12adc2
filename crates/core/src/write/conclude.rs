//! What a write returns to its caller.

use super::send::Sent;
use crate::error::{Error, ErrorKind, L2ErrorKind};
use crate::node::Node;
use crate::options::EntryOptions;
use crate::receipt::{Receipt, WriteStatus};

/// Returns how far a write got, or an error if that is not far enough for its caller.
pub(super) fn conclude(
    node: &Node,
    key: &str,
    sent: Sent,
    superseded: bool,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let status = if superseded && sent.l2.is_ok() { WriteStatus::Superseded } else { sent.status };
    let receipt = Receipt::new(status, sent.backplane);
    if status == WriteStatus::Superseded {
        return overtaken(node, key, receipt, options);
    }
    if !receipt.is_propagated() && node.closing.is_cancelled() {
        let what = "the write was applied locally but could not be sent to L2";
        return Err(node.error(ErrorKind::Closed, key, what));
    }
    if !options.require_propagation || receipt.is_propagated() {
        return Ok(receipt);
    }
    let place = node.place(Some(key));
    let Err(error) = sent.l2 else {
        let what = "it holds on this node and L2 has it, but its notification may be lost";
        return Err(Error::new(ErrorKind::NotPropagated, place, what));
    };
    let what = match error.kind() {
        L2ErrorKind::Late => "L2 has removed the key instead, and nothing is queued: set it again",
        _ => "it is queued as an invalidation and holds on this node",
    };
    Err(Error::with_source(ErrorKind::NotPropagated, place, what, error))
}

/// Reports an overtaken write: an error if its caller requires propagation.
pub(super) fn overtaken(
    node: &Node,
    key: &str,
    receipt: Receipt,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    if !options.require_propagation {
        return Ok(receipt);
    }
    let what = "the write was overtaken: the key, one of its tags or the whole cache was changed since, \
                and no node serves the value; read the source again, and set it if it is still right";
    Err(node.error(ErrorKind::NotPropagated, key, what))
}
