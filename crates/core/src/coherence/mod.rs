//! Coherence: how this node knows what it knows.
//!
//! - [`Node`] holds the ledger replica and judges entries; the hit path reads its atomics only.
//! - [`poll`] asks the ledger every second, and sends the heartbeat.
//! - [`catch_up`] asks it beside a call how far it is, and compares at once if this node is behind.
//! - [`mend`] sends what waited for L2, once the ledger has answered.
//! - [`Owed`] is what a node says in the ledger while it cannot tell the others.
//! - [`receive`](crate::backplane) applies what other nodes announce.
//!
//! ```text
//!  every P:  heartbeat out ──▶ own subscription ──▶ heard_at ─┐
//!            SYNC ──▶ answered ──▶ synced_at ─────────────────┴─▶ coherent until min(both) + X
//! ```
//!
//! Both times are those of *sending*: a stalled process finds its lease over when it wakes.

mod catch_up;
mod ears;
mod in_flight;
mod lease;
pub(crate) mod mend;
mod node;
mod owed;
mod own;
pub(crate) mod poll;
mod rounds;
mod shadow;
mod turns;

pub(crate) use catch_up::{Mark, beside, catch_up};
pub(crate) use in_flight::{AT_ONCE, Sending};
pub(crate) use lease::CoherenceLease;
pub(crate) use node::Node;
pub(crate) use owed::{Owed, Unannounced};
pub(crate) use shadow::Shadow;
