use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, unsaid};

/// An error of a backplane.
#[derive(Clone, Debug)]
pub struct BackplaneError {
    source: Arc<dyn std::error::Error + Send + Sync>,
    refused: bool,
}

impl BackplaneError {
    /// An error with what caused it.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: Arc::from(source.into()), refused: false }
    }

    /// The server refuses this user the command: it will not work until somebody grants it.
    pub fn refused(source: impl Into<BoxError>) -> Self {
        Self { refused: true, ..Self::new(source) }
    }

    /// What caused it.
    #[must_use]
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Whether the server refuses this user the command.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backplane failed: {}", self.source)
    }
}

/// The message says what the cause says: the source is what is not said there.
impl std::error::Error for BackplaneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        unsaid(&self.to_string(), &*self.source)
    }
}
