//! The protocol rules, without clock, I/O or async.
//!
//! Plain state machines over plain data decide whether a value may be served, stored or joined.
//! Production, the in-memory L2, the model checker and the property tests run *this* code; there
//! is no second specification.
//!
//! | module | rule |
//! |---|---|
//! | [`ledger`] | barriers are numbered by one authority; every node keeps a contiguous replica |
//! | [`record`] | a fill replaces only the exact version it saw or created |
//! | [`commits`] | a node invalidates its own writes that a failover lost |
//! | [`flight`] | a caller never joins a load that began before an invalidation it came after |
//! | [`resync`] | after any resync, nothing verified before it is served as fresh |
//! | [`validity`] | one function judges an entry, for fresh use and for fallback |
//!
//! The `L2` trait uses these types, so authors of a store need this page.

#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "a protocol is closed: another case is another wire version"
)]

/// Whether this bug is planted on this thread. Always false without the feature `sabotage`.
macro_rules! sabotaged {
    ($bug:ident) => {{
        #[cfg(feature = "sabotage")]
        let planted = $crate::sabotage::is_planted($crate::sabotage::Sabotage::$bug);
        #[cfg(not(feature = "sabotage"))]
        let planted = std::convert::identity(false); // A literal is folded by lints.
        planted
    }};
}

#[cfg(feature = "sabotage")]
pub mod sabotage;

pub mod commits;
pub mod flight;
mod ids;
pub mod ledger;
pub mod record;
pub mod resync;
pub mod validity;

pub use ids::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};
