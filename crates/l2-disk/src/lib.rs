//! The L2 of Crinkle on disk: an application on one machine keeps its cache across restarts, and
//! its removals stay in force.
//!
//! ```no_run
//! use crinkle_core::Cache;
//! use crinkle_l2_cas::CasL2;
//! use crinkle_l2_disk::Disk;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::builder("shop").l2(CasL2::new(Disk::open("shop.cache")?)).build()?;
//! cache.ready().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Storage
//!
//! One file of [redb](https://docs.rs/redb) holds two tables: one with records and the ledger, one
//! with their expiry times. Every change is one transaction. Writes of a caller (`set`, `expire`,
//! `remove`, removals by tag, clears) are on the disk when the call returns, at the price of an
//! `fsync`. Results of a factory and load locks wait for the next `fsync`, at most one second while
//! there are writes. A crash may lose them: the next read is then a miss, or finds the older, stale
//! record.
//!
//! Each write drops up to 16 expired records, so no call pays for a sweep. The file reuses their
//! space and does not shrink.
//!
//! - **Values** up to 3 GiB, **keys** of any length.
//! - **The ledger** keeps 200,000 barriers in chunks, about 5 MB in all.
//! - **The clock** is that of the machine. If it is set back by more than 5 minutes, a new epoch
//!   begins: everything is loaded again.
//! - **One process** at a time can open the file. Its caches share the store: give them
//!   `Arc<CasL2<Disk>>`.
//!
//! # Why redb
//!
//! redb is one file in a format that is declared stable, and pure Rust without dependencies. It has
//! a single writer at a time, as a compare-and-swap needs. fjall, a log-structured tree, writes
//! bulk loads faster, but needs background threads, a directory of files and more dependencies. A
//! cache reads more than it writes.

mod store;

pub use store::Disk;

/// An L2 on disk.
pub type DiskL2 = crinkle_l2_cas::CasL2<Disk>;
