use std::fmt;
use std::sync::Arc;

use super::EntryOptions;

/// The default options of each key: the user's `default_options_for`.
#[derive(Clone)]
pub(crate) struct PerKey(Arc<Choose>);

type Choose = dyn Fn(&str) -> Option<EntryOptions> + Send + Sync;

impl PerKey {
    pub(crate) fn new(
        choose: impl Fn(&str) -> Option<EntryOptions> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(choose))
    }

    /// Returns the options of a key; `None` selects the default of the cache.
    pub(crate) fn options(&self, key: &str) -> Option<EntryOptions> {
        (self.0)(key)
    }
}

impl fmt::Debug for PerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerKey")
    }
}
