//! The Redis backplane of Crinkle: plain pub/sub, at most once.
//!
//! Messages use the command connection of the store, so that they take the path that writes take. A
//! subscription has its own connection. This crate retries nothing: the cache detects what is lost
//! and recovers.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod heartbeats;
mod redis;

pub use self::redis::RedisBackplane;
pub use crinkle_redis_client::RedisClient;
