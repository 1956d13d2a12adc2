//! The Redis backplane of Crinkle: plain pub/sub, at most once.
//!
//! Messages are published on the command connection that the store uses, so that they take the path
//! that writes take; a subscription has a connection of its own. Nothing is retried here: the cache
//! notices what is lost and repairs it.

mod heartbeats;
mod redis;

pub use self::redis::RedisBackplane;
pub use crinkle_l2_redis::RedisClient;
