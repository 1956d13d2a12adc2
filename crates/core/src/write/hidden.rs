//! Handles a `set` that an earlier removal hides.
//!
//! Another node's removal may return before the `set` is called, and this node may learn of it only
//! from the reply to the `set`. Then the node stores the value again, over exactly the version that
//! it stored first, and stamps it with its current knowledge. The value then counts as written
//! after the removal (S17). A removal that began on *this* node after the call is different: it
//! hides the value for good (S1).

use std::sync::Arc;
use std::time::Duration;

use super::conclude::conclude;
use super::encode::encode;
use super::send::{Sent, Write};
use crate::backplane::message::KeyOp;
use crate::clock::Moment;
use crate::entry::{Entry, Meta, Shared, Value};
use crate::error::Error;
use crate::factory::Choices;
use crate::l2::access::Access;
use crate::l2::change::Change;
use crate::node::{Coded, Fence, Node};
use crate::options::EntryOptions;
use crate::protocol::KeyHash;
use crate::protocol::record::Put;
use crate::protocol::validity::{Verdict, Why};
use crate::read::NewEntry;
use crate::read::catch_up::{AskLedger, LedgerPosition, beside, catch_up};
use crate::receipt::{Receipt, WriteStatus};

/// How often a hidden value is stored again.
const TIMES: usize = 3;

/// Whether a stored value is hidden from the start. The node judges after it has caught up with the
/// ledger. If it cannot catch up, the value counts as hidden.
pub(super) async fn is_hidden(
    node: &Node,
    meta: &Meta,
    mark: LedgerPosition,
    limit: Duration,
) -> bool {
    if sabotaged!(HiddenSetIsDone) {
        return false;
    }
    !catch_up(node, mark, limit).await || is_behind(node, meta)
}

/// Whether a removal hides the entry or makes it stale. The TTL does not count: a value that has
/// expired meanwhile was hidden as well, and its receipt says so.
fn is_behind(node: &Node, meta: &Meta) -> bool {
    match node.coherence.judge(meta, Moment::from_nanos(0)) {
        Verdict::Hidden(why) | Verdict::Stale(why) => {
            matches!(why, Why::Tag | Why::Clear | Why::Epoch)
        }
        Verdict::Fresh | Verdict::Unverified => false,
    }
}

/// Stores a hidden value again, unless a removal of this node hides it.
pub(super) async fn set_again<T: Value>(
    node: &Coded<T>,
    l2: &Access,
    first: &Arc<Entry<T>>,
    options: &EntryOptions,
    limit: Duration,
) -> Result<Receipt, Error> {
    let (key, called) = (&*first.meta.key, first.meta.state().origin);
    let hash = KeyHash::of(key);
    let mut before = first.meta.version;
    let mut superseded = None;
    for _ in 0..TIMES {
        // Stamp before the check of this node's own removals: a removal that begins after the stamp
        // hides this value by itself.
        let stamp = node.coherence.stamp(node.now());
        if node.coherence.has_removed_since(called, &first.meta.tags) {
            break;
        }
        let tags = first.meta.tags.iter().map(|tag| tag.name().to_owned()).collect();
        let new_entry = NewEntry { stamp, took: Duration::ZERO, degraded: false, shared: true };
        let (meta, deadlines) = new_entry.meta(node, key, &Choices::new(options.clone(), tags));
        let entry = Arc::new(Entry { meta, value: Shared::of(first) });
        let record = encode(node, &entry, deadlines, new_entry.took, false)?;
        let version = entry.meta.version;
        let fence = Fence::begin(node, hash, Some(version), || node.l1.keep_only(hash, version));
        let write = Write::new(node, key, version, KeyOp::Written, limit, options);
        let put = write.send(l2, Change::Put(before, record));
        let (mut sent, mark) =
            beside(node, l2, AskLedger::own_if(l2.is_ledger_near(key)), limit, put).await;
        let stored = matches!(sent.l2, Ok(Put::Stored));
        let hidden = stored && is_hidden(node, &entry.meta, mark, limit).await;
        let kept = fence.end(|received| {
            let keep = stored && !hidden && received.allows(version);
            if keep {
                node.l1.insert(hash, entry);
            } else {
                node.l1.keep_only(hash, version);
            }
            keep
        });
        if sent.l2.is_err() {
            // L2 holds the value stored before; the invalidation queued now removes it.
            sent.status = WriteStatus::Unknown;
        }
        if kept || !stored {
            return conclude(node, key, sent, stored && !kept, options);
        }
        (before, superseded) = (version, Some(sent));
        if !hidden {
            break;
        }
    }
    let backplane = superseded.map_or(WriteStatus::Skipped, |sent| sent.backplane);
    conclude(node, key, Sent { backplane, ..Sent::nowhere() }, true, options)
}
