use std::fmt;
use std::sync::Arc;

use crate::error::BoxError;

/// An error of a backplane.
#[derive(Clone, Debug)]
pub struct BackplaneError {
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl BackplaneError {
    /// An error with what caused it.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: Arc::from(source.into()) }
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backplane failed: {}", self.source)
    }
}

impl std::error::Error for BackplaneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
