//! Errors of a backplane.

use std::fmt;
use std::sync::Arc;

use super::{BoxError, unsaid};

/// Why a publish or a subscription failed.
#[derive(Clone, Debug)]
pub struct BackplaneError {
    source: Arc<dyn std::error::Error + Send + Sync>,
    refused: bool,
}

impl BackplaneError {
    /// Wraps an error of the client.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: Arc::from(source.into()), refused: false }
    }

    /// An error for a command that the server refuses to this user. It fails until an administrator
    /// grants the command.
    pub fn refused(source: impl Into<BoxError>) -> Self {
        Self { refused: true, ..Self::new(source) }
    }

    /// Returns the error of the client, to downcast it.
    #[must_use]
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Whether the server refuses the command to this user.
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

/// The message contains the cause, so `source` returns only what the message does not say.
impl std::error::Error for BackplaneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        unsaid(&self.to_string(), &*self.source)
    }
}
