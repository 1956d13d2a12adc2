//! The Lua scripts against the Rust rules they repeat, and against servers in trouble.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

mod heads;
mod ledger;
mod records;
mod trouble;
