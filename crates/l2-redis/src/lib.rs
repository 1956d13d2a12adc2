//! The Redis L2 of Crinkle: records with load locks, and the barrier ledger, in one Lua script per
//! operation and one key per script, so that every operation is atomic in a single server and in a
//! cluster alike.
//!
//! | key | type | life |
//! |---|---|---|
//! | a record | string: a value or a load lock, see [`crinkle_core::l2::record`] | its physical life |
//! | a ledger | one sorted set, see `scripts/ledger.lua` | twice the retention |
//!
//! One key for the ledger on purpose: a server can lose it as a whole only, and that is noticed.
//! No command ever scans the keyspace. Needs Redis 6.2 or newer.
//!
//! # Permissions
//!
//! Commands inside scripts are checked too. A user needs what [`acl_rule`] says, which a store checks
//! by itself before it meets its ledger, and, where the backplane is another server, `publish` and
//! `subscribe` there instead of here.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `tls` | no | `rediss://` by rustls and ring; needs a C compiler |

mod builder;
mod client;
mod cluster;
mod connection;
mod doctor;
mod error;
mod ledger;
mod listening;
mod look;
mod primary;
mod reading;
mod refusal;
mod replicas;
mod replication_id;
mod rights;
mod routes;
mod scripts;
mod sentinels;
mod sentinels_agree;
mod set;
mod silence;
mod slots;
mod store;
mod tag_index;
mod view;

pub use builder::{Credentials, RedisClientBuilder};
pub use client::RedisClient;
pub use doctor::{Doctor, Finding, Report, Severity};
#[doc(hidden)]
pub use ledger::{advance_reply, sync_reply};
pub use listening::{Delivery, Subscriber};
pub use primary::Primary;
pub use redis;
pub use rights::acl_rule;
pub use store::RedisL2;
pub use view::{LedgerState, LedgerView, TagBarriers};
