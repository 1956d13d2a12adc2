//! The replies of a server where those about a ledger belong.

use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::ledger::Replica;
use crinkle_l2_redis::{advance_reply, sync_reply};

/// What a node makes of a reply of Redis to `SYNC` and to `ADVANCE`, as it comes over the wire.
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
        assert!(reply.levels.len() + reply.ids.len() <= bytes.len(), "nothing is made up");
        known = true;
        let synced = replica.synced(&reply);
        assert!(replica.len() <= bytes.len(), "no barrier is made up");
        assert!(replica.highest() >= replica.frontier(), "the highest number is");
        if !synced.again {
            break;
        }
    }
    known
}
