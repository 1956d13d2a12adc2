//! The names of keys and tags, and the values that the cache stores.

use super::plan::{KEYS, PROBES, TAGS};

/// The name of a key.
pub(super) fn name(key: u8) -> &'static str {
    let key = usize::from(key);
    if key < KEYS.len() { KEYS[key] } else { PROBES[key - KEYS.len()] }
}

/// The key of a name.
pub(super) fn key_of(name: &str) -> Option<u8> {
    let at = KEYS.iter().chain(&PROBES).position(|key| *key == name)?;
    u8::try_from(at).ok()
}

/// The names of these tags.
pub(crate) fn tags(bits: u8) -> Vec<&'static str> {
    TAGS.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0).map(|(_, tag)| *tag).collect()
}

/// The value that the cache stores for a load.
pub(super) fn write_value(key: u8, load: usize) -> String {
    format!("~sim.{key}.{load};")
}

/// Finds a value in these bytes and returns its key and its load.
pub(super) fn read_value(bytes: &[u8]) -> Option<(u8, usize)> {
    let at = bytes.windows(5).position(|w| w == b"~sim.")? + 5;
    let end = at + bytes[at..].iter().position(|b| *b == b';')?;
    let (key, load) = std::str::from_utf8(&bytes[at..end]).ok()?.split_once('.')?;
    Some((key.parse().ok()?, load.parse().ok()?))
}
