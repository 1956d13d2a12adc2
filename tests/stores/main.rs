//! Stores built on less than an L2: over compare-and-swap, plain, memcached, a file.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

mod contracts;
mod disk;
mod guarantees;
mod ledger;
mod memcached;
mod mirror;
mod plain;
mod races;
mod shelf;
mod upgrade;
