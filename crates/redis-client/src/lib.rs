//! Connections to Redis: one server, the primary that sentinels name, or a cluster.
//!
//! [`RedisClient`] connects in the background and follows failovers. It replaces a connection that
//! is lost, leads to a demoted server, or answers nothing. It never repeats a command that may have
//! run. It holds one connection for commands, in a cluster one to each server, and one for all
//! subscriptions.
//!
//! The crate knows no records and no ledger. A store adds the texts of its scripts with
//! [`RedisClient::add_scripts`], and keeps what it knows of one connection in [`Attachments`]. The
//! crate has the [rights](acl) of a cache's user, since the store and the backplane share a user.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `tls` | no | `rediss://` with rustls and ring; needs a C compiler |

#![cfg_attr(docsrs, feature(doc_cfg))]

// `builder` creates a `client`: its `connection` to one server, its `cluster`, `sentinels` that
// name the server, `listening` for subscriptions.
//
// Shared: `settings`, `credentials`, `error`, `refusal` (failed connection attempts).

pub mod acl;
mod builder;
mod client;
mod cluster;
mod connection;
mod credentials;
pub mod error;
mod listening;
mod refusal;
mod sentinels;
mod settings;

pub use builder::RedisClientBuilder;
pub use client::RedisClient;
pub use client::servers::Member;
pub use cluster::primary::Primary;
pub use cluster::slots::{Address, server_name, slot};
pub use connection::call::{Attachments, Call, Hop};
pub use credentials::Credentials;
pub use listening::{Delivery, Subscriber};
pub use redis;
pub use settings::CONNECT_TIMEOUT;
