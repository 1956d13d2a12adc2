//! The memcached L2 of Crinkle: nothing is lost, though memcached has no scripts, since every change
//! is a compare-and-swap ([`CasL2`](crinkle_core::l2::CasL2)).
//!
//! ```no_run
//! use crinkle_core::{Cache, l2::CasL2};
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
//! memcached carries no notifications: for several nodes give the cache a backplane as well (Redis
//! pub/sub, say). Without one, nodes learn of removals by tag from their poll, and of changed keys
//! when the coherence TTL of their copy ends.
//!
//! # What memcached makes of it
//!
//! - One server, of version 1.6 or newer: it must know the meta commands (`mg`, `ms`, `md`, `mn`).
//! - **Values** up to the server's item size, 1 MiB unless it was started with `-I`. A larger one is an
//!   error, [`Full`](crinkle_core::l2::L2ErrorKind::Full), and stays in L1.
//! - **Keys** over 250 bytes, or with anything but visible ASCII, are stored under their hash; the record
//!   holds the key in full, and it is compared.
//! - **The ledger** keeps 200,000 barriers in pieces of at most 52 KiB, some 5 MB in all. What a server
//!   that is short of memory evicts of them hides more, never less; an evicted root hides everything
//!   once. Give the server room for them.
//! - **The clock** is the server's, asked for with every connection and then once a minute; memcached tells
//!   it in whole seconds, so the nodes agree on the end of a lifetime within about a second.
//! - **A restart** empties the server: another epoch. Tokens name the server's process, so that none fits
//!   by chance what came after it.
//!
//! The client is `async-memcached`: of those for Tokio it alone is maintained, speaks the meta protocol,
//! and closes a connection whose call was dropped half way, rather than reading the answer of one call
//! as that of the next.

mod error;
mod pool;
mod store;

pub use store::{Memcached, Token};

/// An L2 in memcached.
pub type MemcachedL2 = crinkle_core::l2::CasL2<Memcached>;
