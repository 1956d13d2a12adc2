//! Options: what a call may choose ([`EntryOptions`]) and what a cache is ([`Settings`]).
//!
//! For each call they come from, in this order: the factory (through its context), the call, what
//! `default_options_for` says of the key, the cache's default. What comes first wins, field by field.

mod choices;
mod entry;
mod per_key;
mod policies;
mod settings;

pub(crate) use choices::Choices;
pub(crate) use entry::Choice;
pub use entry::EntryOptions;
#[cfg(test)]
pub(crate) use entry::LONGEST_HARD_TIMEOUT;
pub(crate) use per_key::PerKey;
pub use policies::{EagerRefresh, Eviction, FailSafe};
pub use settings::Settings;
