//! The Lua scripts against the Rust rules that they repeat, and against failing servers.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

mod coalesce;
mod costs;
mod heads;
mod ledger;
#[expect(dead_code, reason = "the tests of the command line tell more lies")]
#[path = "../cli/liar.rs"]
mod liar;
mod previous;
mod records;
mod trouble;
mod words;
