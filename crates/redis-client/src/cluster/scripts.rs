//! The texts of scripts, for servers that do not have them.

use std::collections::HashMap;

use parking_lot::RwLock;

/// Script texts by hash.
#[derive(Default)]
pub(crate) struct Scripts(RwLock<HashMap<String, &'static str>>);

impl Scripts {
    /// Adds scripts: hash and text.
    pub(crate) fn add<'a>(&self, scripts: impl IntoIterator<Item = (&'a str, &'static str)>) {
        let scripts = scripts.into_iter().map(|(hash, text)| (hash.to_owned(), text));
        self.0.write().extend(scripts);
    }

    /// The text of the script with this hash.
    pub(crate) fn text(&self, hash: &[u8]) -> Option<&'static str> {
        self.0.read().get(std::str::from_utf8(hash).ok()?).copied()
    }
}
