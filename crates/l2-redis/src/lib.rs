//! The Redis L2 of Crinkle: records with load locks, and the barrier ledger. Each operation is one
//! Lua script on one key, so it is atomic on a single server and in a cluster alike.
//!
//! | key | type | TTL |
//! |---|---|---|
//! | a record | string: value or load lock, see [`crinkle_core::l2::record`] | its physical TTL |
//! | a ledger | one sorted set, see `scripts/ledger.lua` | twice the retention |
//!
//! The ledger is one key on purpose: a server can only lose it as a whole, and nodes notice that.
//! No command ever scans the keyspace. Needs Redis 6.2 or newer.
//!
//! # Permissions
//!
//! The server also checks commands inside scripts. A user needs the rights of [`acl_rule`]; a store
//! checks them before it first uses its ledger. If the backplane is another server, the user needs
//! `publish` and `subscribe` there instead of here.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `tls` | no | `rediss://` with rustls and ring; needs a C compiler |
//! | `testing` | no | unstable: what Crinkle's own tests and fuzz targets need |

#![cfg_attr(docsrs, feature(doc_cfg))]

// The store: `store` (the `L2` trait), `reading` (READ by plain commands), `coalesce`, `set`, `ledger` (its
// rows), `scripts`, `tag_index`, `replicas`, `rights`, `view` (a ledger for display),
// `replication_id`. The connections are in `crinkle-redis-client`.

mod coalesce;
mod ledger;
mod reading;
mod replicas;
mod replication_id;
mod rights;
mod scripts;
mod set;
mod store;
mod tag_index;
mod view;

pub use crinkle_redis_client::acl::acl_rule;
pub use crinkle_redis_client::{
    Credentials, Delivery, Primary, RedisClient, RedisClientBuilder, Subscriber, redis,
};
#[cfg(feature = "testing")]
pub use ledger::{advance_reply, sync_reply};
pub use rights::store_trials;
pub use store::RedisL2;
pub use view::{LedgerState, LedgerView, TagBarriers};
