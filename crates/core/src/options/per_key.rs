use std::fmt;
use std::sync::Arc;

use super::EntryOptions;

/// The default options of each key, as the user's function says.
#[derive(Clone)]
pub(crate) struct PerKey(Arc<Choose>);

type Choose = dyn Fn(&str) -> Option<EntryOptions> + Send + Sync;

impl PerKey {
    pub(crate) fn new(
        choose: impl Fn(&str) -> Option<EntryOptions> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(choose))
    }

    /// The options of a key; `None` for the cache's default.
    pub(crate) fn options(&self, key: &str) -> Option<EntryOptions> {
        (self.0)(key)
    }
}

impl fmt::Debug for PerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerKey")
    }
}
