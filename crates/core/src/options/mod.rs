//! Options: what a call may choose ([`EntryOptions`]) and what a cache is ([`Settings`]).
//!
//! For each call they come from, in this order: the factory (through its context), the call, what
//! `default_options_for` says of the key, the cache's default. What comes first wins, field by field.

mod entry;
mod per_key;
mod policies;
mod settings;

pub use entry::EntryOptions;
pub(crate) use per_key::PerKey;
pub use policies::{EagerRefresh, FailSafe};
pub use settings::Settings;
