//! Chaos runs against real Redis servers. Three processes use one cache while the coordinator
//! kills, freezes, fills and empties servers. The judge of the simulator checks what the processes
//! recorded.
//!
//! Every process records what its callers, its store and its bus saw, with times of the clock that
//! all processes of the machine share. The exact time of a command in the server is unknown: it
//! lies between sending the command and receiving the answer. Where two operations may have
//! overlapped, either outcome passes.

mod actors;
mod cluster;
mod diary;
mod event;
mod faults;
mod merge;
mod proxy;
mod rounds;
mod source;
mod tap;
mod worker;

use std::time::Duration;

pub use cluster::{Ahead, Topology};
pub use rounds::{Job, LONG, Report, TWICE, Violation, run};
pub use worker::work;

/// The planted bugs that real servers can reveal, by name; `storm --mutants` plants each.
pub const MUTANTS: [&str; 10] = [
    "fail-safe ignores hard",
    "epoch ignored",
    "a notification leaves the copy",
    "no fence on set",
    "reconnect keeps the session",
    "verify skipped",
    "recovery forgets",
    "coherence TTL never ends",
    "lost subscription unnoticed",
    "a delayed set runs late",
];

/// The number of processes that use the cache.
const WORKERS: usize = 3;

/// The number of keys.
const KEYS: usize = 16;

/// The poll interval of the caches.
const POLL: Duration = Duration::from_millis(500);

/// The coherence TTL of the caches.
const COHERENCE_TTL: Duration = Duration::from_secs(6);

/// The longest time that any call may take.
const LONGEST_CALL: Duration = Duration::from_secs(25);

/// Returns the name of a key. Some look like internal names of the cache.
fn name(key: u8) -> String {
    let odd = crate::sim::ODD_KEYS.get(usize::from(key));
    odd.map_or_else(|| format!("k:{key}"), |odd| (*odd).to_owned())
}

/// Returns the key with this name.
fn key_of(wanted: &str) -> Option<u8> {
    (0..u8::try_from(KEYS).unwrap_or(u8::MAX)).find(|key| name(*key) == wanted)
}

/// The contents of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    key: u8,
    load: usize,
    version: u32,
}

/// Encodes a value as the cache stores it.
fn write_value(Value { key, load, version }: Value) -> String {
    format!("~storm.{key}.{load}.{version};")
}

/// Finds a value in these bytes.
fn read_value(bytes: &[u8]) -> Option<Value> {
    let at = bytes.windows(7).position(|w| w == b"~storm.")? + 7;
    let end = at + bytes[at..].iter().position(|b| *b == b';')?;
    let mut parts = std::str::from_utf8(&bytes[at..end]).ok()?.split('.');
    let mut part = || parts.next();
    Some(Value {
        key: part()?.parse().ok()?,
        load: part()?.parse().ok()?,
        version: part()?.parse().ok()?,
    })
}
