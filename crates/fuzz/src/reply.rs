//! A server's replies to the ledger commands.

use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::ledger::Replica;
use crinkle_l2_redis::{advance_reply, sync_reply};

/// Decodes the bytes of a Redis reply to `SYNC` and to `ADVANCE`, and lets a node apply it.
///
/// # Panics
///
/// If a rule is broken.
#[must_use]
pub fn reply(bytes: &[u8]) -> bool {
    let mut known = advance_reply(bytes).is_some();
    let mut replica = Replica::default();
    // A page of two, so that short replies are cut.
    for page in [2, 4096, 2] {
        let ask = replica.ask(Epoch(1), page, 1_000_000);
        let Some(reply) = sync_reply(&ask, bytes) else { break };
        assert!(reply.levels.len() + reply.ids.len() <= bytes.len(), "no row is invented");
        known = true;
        let synced = replica.synced(&reply);
        assert!(replica.len() <= bytes.len(), "no barrier is invented");
        assert!(
            replica.highest() >= replica.frontier(),
            "the highest number is not below the frontier"
        );
        if !synced.again {
            break;
        }
    }
    known
}
