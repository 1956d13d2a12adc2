//! The L2 of Crinkle on disk: an application on one machine keeps its cache over a restart, and its
//! removals stay in force.
//!
//! ```no_run
//! use crinkle_core::{Cache, l2::CasL2};
//! use crinkle_l2_disk::Disk;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::builder("shop").l2(CasL2::new(Disk::open("shop.cache")?)).build()?;
//! cache.ready().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is on the disk
//!
//! One file of [redb](https://docs.rs/redb): records and the ledger in one table, and when they end in
//! another. Every change is one transaction. What a caller wrote (`set`, `expire`, `remove`, removals
//! by tag, clears) is on the disk when the call returns, at the price of an `fsync`; what a factory
//! loaded waits for the next one, a second at most while there are writes, and a crash may take it
//! back, together with load_locks: a miss, or the record as it was before the load, stale as it was.
//!
//! Expired records are dropped as others are written, up to 16 at a time, so that no call pays for a
//! sweep; the file reuses their place and does not shrink.
//!
//! - **Values** up to 3 GiB, **keys** of any length.
//! - **The ledger** keeps 200,000 barriers in pieces, some 5 MB in all.
//! - **The clock** is that of the machine. Set back by more than 5 minutes it begins a new epoch: everything
//!   is loaded again.
//! - **One process** at a time has the file open. Its caches share it: give them `Arc<CasL2<Disk>>`.
//!
//! # Why redb
//!
//! It is one file in a format that is declared stable, pure Rust without dependencies, and its only
//! writer at a time is what a compare-and-swap needs. fjall, a tree of logs, writes bulk loads faster,
//! for background threads, a directory of files and more dependencies; a cache reads more than it
//! writes.

mod store;

pub use store::Disk;

/// An L2 on disk.
pub type DiskL2 = crinkle_core::l2::CasL2<Disk>;
