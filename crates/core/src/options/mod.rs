//! Options: what a call may choose ([`EntryOptions`]) and what a cache is ([`Settings`]).
//!
//! For each call they come from, in this order: the factory (through its context), the call, the
//! cache's default. What comes first wins, field by field.

mod entry;
mod settings;

pub use entry::{EntryOptions, FailSafe};
pub use settings::Settings;
