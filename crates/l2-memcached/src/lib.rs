//! The memcached L2 of Crinkle. memcached has no scripts, so every change is a compare-and-swap
//! ([`CasL2`](crinkle_l2_cas::CasL2)), and no change is lost.
//!
//! ```no_run
//! use crinkle_core::Cache;
//! use crinkle_l2_cas::CasL2;
//! use crinkle_l2_memcached::Memcached;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Memcached::connect("tcp://127.0.0.1:11211")?;
//! let cache = Cache::builder("shop").l2(CasL2::new(store)).build()?;
//! cache.ready().await?;
//! # Ok(())
//! # }
//! ```
//!
//! memcached has no pub/sub: with several nodes, give the cache a backplane as well (such as Redis
//! pub/sub). Without one, nodes learn of removals by tag from their poll, and of changed keys when
//! the coherence TTL of their copy ends.
//!
//! # Properties and limits
//!
//! - One server, version 1.6 or newer: it needs the meta commands (`mg`, `ms`, `md`, `mn`).
//! - **Values** up to the server's item size, 1 MiB by default (option `-I`). A larger value fails
//!   with [`Full`](crinkle_core::l2::L2ErrorKind::Full) and stays in L1.
//! - **Keys** over 250 bytes, or with anything but visible ASCII, are stored under their hash. The
//!   record holds the full key, and reads compare it.
//! - **The ledger** keeps 200,000 barriers in chunks of at most 52 KiB, about 5 MB in all. If the
//!   server evicts a chunk for lack of memory, more entries are hidden, never fewer; an evicted
//!   root hides everything once. Give the server enough memory for them.
//! - **The clock** is the server's. The client asks for it with every connection and then once a
//!   minute. memcached reports whole seconds, so nodes agree on an expiry within about a second.
//! - **A restart** empties the server and begins a new epoch. Tokens name the server's process, so
//!   that an old token never matches a newer value by chance.
//!
//! The client is `async-memcached`. Of the Tokio clients only this one is maintained and speaks the
//! meta protocol. It also closes a connection whose call was dropped half way, instead of reading
//! one call's answer as that of the next.

mod error;
mod pool;
mod store;

pub use store::{Memcached, Token};

/// An L2 in memcached.
pub type MemcachedL2 = crinkle_l2_cas::CasL2<Memcached>;
