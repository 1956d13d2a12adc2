//! Codecs, compression and schemas: a written value is read, and anything else is a counted miss.

mod any_bytes;
mod compression;
mod forge;
mod round_trip;
mod schema;
#[path = "../../crates/protocol/tests/seed/mod.rs"]
mod seed;
mod shapes;
mod types;
mod unusable;
