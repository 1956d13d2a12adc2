//! The Lua scripts against the Rust rules they repeat, and against servers in trouble.

mod ledger;
mod records;
mod trouble;
