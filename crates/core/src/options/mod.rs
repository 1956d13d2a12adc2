//! Options: what a call may choose ([`EntryOptions`]), and the settings of a cache ([`Settings`]).
//!
//! For each call they come from, in this order: the factory (through its context), the call,
//! `default_options_for` for the key, the default of the cache. The first one that sets a field
//! wins.
//!
//! `entry` and `settings` hold the two. `policies` holds the types of their fields. `choices` holds
//! the options that one call sets, `per_key` those of `default_options_for`, and `compression` how
//! payloads are compressed.

mod choices;
pub(crate) mod compression;
mod entry;
mod per_key;
mod policies;
mod settings;

pub(crate) use choices::Choices;
pub use compression::Compression;
pub(crate) use entry::Choice;
pub use entry::EntryOptions;
#[cfg(test)]
pub(crate) use entry::LONGEST_HARD_TIMEOUT;
pub(crate) use entry::SHORTEST;
pub(crate) use per_key::PerKey;
pub use policies::{EagerRefresh, Eviction, FailSafe};
pub use settings::Settings;
