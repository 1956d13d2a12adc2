//! The rules, and nothing else: no clock, no I/O, no async.
//!
//! Everything that decides whether a value may be served, stored or joined lives here as plain
//! state machines over plain data. Production, the in-memory L2, the model checker and the
//! property tests drive *this* code; there is no second specification.
//!
//! | module | law |
//! |---|---|
//! | [`ledger`] | barriers are numbered by one authority; every node keeps a contiguous replica |
//! | [`record`] | a fill replaces only the exact version it saw or created |
//! | [`commits`] | what a failover took back of a key is invalidated by whoever wrote it |
//! | [`flight`] | a caller never joins a load that began before an invalidation it came after |
//! | [`session`] | after any resync, nothing verified before it is served as fresh |
//! | [`validity`] | one function judges an entry, for fresh use and for fallback |
//!
//! The [`L2`](crate::l2::L2) trait speaks these types, so an author of a store reads this page.

#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "a protocol is closed: another case is another wire version"
)]

pub mod commits;
pub mod flight;
mod ids;
pub mod ledger;
pub mod record;
pub mod session;
pub mod validity;

pub use ids::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};
