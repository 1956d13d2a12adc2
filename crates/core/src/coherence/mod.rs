//! Coherence: how this node knows what it knows.
//!
//! - [`Node`] holds the ledger replica and judges entries; the hit path reads its atomics only.
//! - [`poll`] asks the ledger every second, and sends the heartbeat.
//! - [`catch_up`] asks it beside a call how far it is, and compares at once if this node is behind.
//! - [`retry`] sends what waited for L2, once the ledger has answered.
//! - [`Owed`] is what a node says in the ledger while it cannot emit the others.
//! - [`receive`](crate::backplane) applies what other nodes announce.
//!
//! ```text
//!  every P:  heartbeat out ──▶ own subscription ──▶ last_heartbeat_at ─┐
//!            SYNC ──▶ answered ──▶ synced_at ─────────────────┴─▶ coherent until min(both) + X
//! ```
//!
//! Both times are those of *sending*: a stalled process finds its ttl over when it wakes.

mod catch_up;
mod heartbeat;
mod in_flight;
mod node;
mod owed;
mod own;
pub(crate) mod poll;
pub(crate) mod retry;
mod rounds;
mod shadow;
mod sync_mutex;
mod ttl;

pub(crate) use catch_up::{Mark, beside, catch_up};
pub(crate) use in_flight::{AT_ONCE, Sending};
pub(crate) use node::Node;
pub(crate) use owed::{Owed, Unannounced};
pub(crate) use shadow::Shadow;
pub(crate) use ttl::CoherenceTtl;
