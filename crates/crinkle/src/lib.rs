#![doc = include_str!("../../../README.md")]

pub use crinkle_core::*;

/// Redis as L2 and as backplane.
#[cfg(feature = "redis")]
pub mod redis {
    pub use crinkle_backplane::*;
    pub use crinkle_l2_redis::*;
}
