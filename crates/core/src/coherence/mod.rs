//! Coherence: keeps what this node knows up to date, and knows until when it is.
//!
//! | file | holds |
//! |---|---|
//! | `state` | [`Coherence`]: the ledger replica; judges entries; the hit path reads its atomics only |
//! | `coherence_ttl` | [`CoherenceTtl`]: until when the node trusts its entries without a check |
//! | `heartbeat` | [`HeartbeatMonitor`]: notices heartbeats that do not come back |
//! | `owed` | [`Owed`]: the mark of this node's missing announcements, and those of other nodes |
//! | `sending`, `recent_removals` | this node's removals: those that calls are sending, and recent ones |
//! | `reach` | waits until this node knows a number of the ledger |
//! | `rounds`, `sync_mutex` | counts comparisons with the ledger; allows one at a time |
//! | `shadow` | the copies that shadow verification compares |
//!
//! The loops that keep this state up to date are in [`background`](crate::background).
//!
//! ```text
//!  every P:  heartbeat ──▶ subscription ──▶ last_heartbeat_at ─┐
//!            SYNC ──▶ answered ──▶ synced_at ──────────────────┴─▶ coherent until min(both) + X
//! ```
//!
//! Both times are those of *sending*: a stalled process finds its coherence TTL expired when it
//! wakes.

mod coherence_ttl;
mod heartbeat;
mod owed;
mod reach;
mod recent_removals;
mod rounds;
mod sending;
mod shadow;
mod state;
mod sync_mutex;

pub(crate) use coherence_ttl::CoherenceTtl;
pub(crate) use heartbeat::{HeartbeatMonitor, Liveness};
pub(crate) use owed::{Due, Owed, Unannounced};
pub(crate) use sending::{AT_ONCE, Sending};
pub(crate) use shadow::Shadow;
pub(crate) use state::Coherence;
