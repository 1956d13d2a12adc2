//! The Redis L2 of Crinkle: records with leases, and the barrier ledger, in one Lua script per
//! operation and one key per script, so that every operation is atomic in a single server and in a
//! cluster alike.
//!
//! | key | type | life |
//! |---|---|---|
//! | a record | string: a value or a lease, see [`crinkle_core::l2::record`] | its physical life |
//! | a ledger | one sorted set, see `scripts/ledger.lua` | twice the retention |
//!
//! One key for the ledger on purpose: a server can lose it as a whole only, and that is noticed.
//! No command ever scans the keyspace. Needs Redis 6.2 or newer.
//!
//! # Permissions
//!
//! Commands inside scripts are checked too. A user needs exactly this (`{p}` is the key prefix):
//!
//! ```text
//! resetkeys ~{p}* resetchannels &{p}* -@all +evalsha +script|load +time +publish +subscribe
//! +get +getrange +set +setrange +del +pttl +pexpire
//! +type +zadd +zrem +zremrangebyrank +zcount +zscore +zmscore +zrangebyscore
//! ```
//!
//! and, where the backplane is another server, `publish` and `subscribe` there instead of here.

mod client;
mod doctor;
mod error;
mod ledger;
mod reading;
mod scripts;
mod sentinel;
mod store;
mod tag_index;
mod view;

pub use client::RedisClient;
pub use doctor::{Doctor, Finding, Report, Severity};
pub use redis;
pub use store::RedisL2;
pub use view::{LedgerState, LedgerView, TagBarriers};
