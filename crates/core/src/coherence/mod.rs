//! Coherence: keeps what this node knows up to date, and knows until when it is.
//!
//! | file | holds |
//! |---|---|
//! | `node` | [`Node`]: the ledger replica; judges entries; the hit path reads its atomics only |
//! | `ttl` | [`CoherenceTtl`]: until when the node trusts its entries without a check |
//! | `poll` | every second: sends the heartbeat, and compares with the ledger (`SYNC`) |
//! | `heartbeat` | notices heartbeats that do not come back |
//! | `catch_up` | asks the ledger beside a call, and compares at once if this node is behind |
//! | `retry` | the recovery worker: sends what waits for L2, once the ledger has answered |
//! | `owed` | [`Owed`] leaves a mark in the ledger while this node cannot announce its writes |
//! | `in_flight`, `own` | this node's removals: those that calls are sending, and recent ones |
//! | `rounds`, `sync_mutex` | counts comparisons with the ledger; allows one at a time |
//! | `shadow` | compares a few hits with L2, to count violations |
//!
//! [`receive`](crate::backplane) applies what other nodes announce, and begins a resync if a
//! message was lost.
//!
//! ```text
//!  every P:  heartbeat ──▶ subscription ──▶ last_heartbeat_at ─┐
//!            SYNC ──▶ answered ──▶ synced_at ──────────────────┴─▶ coherent until min(both) + X
//! ```
//!
//! Both times are those of *sending*: a stalled process finds its coherence TTL expired when it
//! wakes.

mod catch_up;
mod heartbeat;
mod in_flight;
mod owed;
mod own;
pub(crate) mod poll;
pub(crate) mod retry;
mod rounds;
mod shadow;
mod state;
mod sync_mutex;
mod ttl;

pub(crate) use catch_up::{Mark, beside, catch_up};
pub(crate) use in_flight::{AT_ONCE, Sending};
pub(crate) use owed::{Owed, Unannounced};
pub(crate) use shadow::Shadow;
pub(crate) use state::Coherence;
pub(crate) use ttl::CoherenceTtl;
