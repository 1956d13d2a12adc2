//! Coherence: how this node knows what it knows.
//!
//! - [`Node`] holds the ledger replica and judges entries; the hit path reads its atomics only.
//! - [`poll`] asks the ledger every second, and sends the heartbeat.
//! - [`mend`] sends what waited for L2, once the ledger has answered.
//! - [`receive`](crate::backplane) applies what other nodes announce.
//!
//! ```text
//!  every P:  heartbeat out ──▶ own subscription ──▶ heard_at ─┐
//!            SYNC ──▶ answered ──▶ synced_at ─────────────────┴─▶ coherent until min(both) + X
//! ```
//!
//! Both times are those of *sending*: a stalled process finds its lease over when it wakes.

mod ears;
mod lease;
pub(crate) mod mend;
mod node;
pub(crate) mod poll;
mod shadow;

pub(crate) use lease::CoherenceLease;
pub(crate) use node::Node;
pub(crate) use shadow::Shadow;
