//! Errors of L2.

use std::fmt;
use std::sync::Arc;

use super::{BoxError, unsaid};

/// The class of an L2 error: an outage, a refusal, or an unknown outcome. It decides what the cache
/// does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum L2ErrorKind {
    /// No connection, or it broke: the outcome of a write is unknown. Counts for the breaker.
    Disconnected,
    /// No answer in time: the outcome of a write is unknown. Counts for the breaker.
    Timeout,
    /// The server refuses this user or command: nothing was written. Check its permissions.
    Denied,
    /// The server is out of memory for writes: nothing was written.
    Full,
    /// The record under this key is not Crinkle's (another type): nothing was written.
    Foreign,
    /// A `set` was delayed past its deadline: it removed the record instead, and has no further
    /// effect. The server is healthy.
    Late,
    /// Another error of the server: the outcome of a write is unknown.
    Other,
}

/// An error of an L2 store. Contains no value.
#[derive(Clone, Debug)]
pub struct L2Error {
    kind: L2ErrorKind,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl L2Error {
    /// Creates an error of a kind with its cause.
    pub fn new(kind: L2ErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: Arc::from(source.into()) }
    }

    /// A `set` that ran after its deadline and removed the record instead.
    #[must_use]
    pub fn late() -> Self {
        let what = "it was delayed, and has removed the record instead of replacing it";
        Self::new(L2ErrorKind::Late, what)
    }

    /// The circuit breaker is open: nothing was sent.
    pub(crate) fn circuit_open() -> Self {
        let what = "the circuit breaker is open after repeated failures, until a poll is answered";
        Self::new(L2ErrorKind::Disconnected, what)
    }

    /// A `set` before the first answer of L2: nothing was sent. `refused`: L2 has refused this
    /// node; `last`: the last error of L2, which says what is missing.
    pub(crate) fn unmet(refused: bool, last: Option<&str>) -> Self {
        let kind = if refused { L2ErrorKind::Denied } else { L2ErrorKind::Disconnected };
        let what =
            "nothing was sent, as this node has not read its ledger yet; it tries with every poll";
        match last {
            Some(last) => Self::new(kind, format!("{what}. The last error: {last}")),
            None => Self::new(kind, what),
        }
    }

    /// There is no record to write, and the other nodes did not get the announcement.
    pub(crate) fn unannounced() -> Self {
        Self::new(L2ErrorKind::Disconnected, "the backplane did not confirm the announcement")
    }

    /// Returns the class of the error.
    #[must_use]
    pub fn kind(&self) -> L2ErrorKind {
        self.kind
    }

    /// Returns the error of the client, to downcast it.
    #[must_use]
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Whether a write that failed this way may still take effect.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        use L2ErrorKind::{Denied, Foreign, Full, Late};
        !matches!(self.kind, Denied | Full | Foreign | Late)
    }

    /// Whether the store itself has failed, rather than the operation on this key.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, L2ErrorKind::Disconnected | L2ErrorKind::Timeout)
    }
}

impl fmt::Display for L2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            L2ErrorKind::Disconnected => "L2 is not connected",
            L2ErrorKind::Timeout => "L2 did not answer in time",
            L2ErrorKind::Denied => "L2 refuses this client or command",
            L2ErrorKind::Full => "L2 is out of memory",
            L2ErrorKind::Foreign => "L2 holds something else under this key",
            L2ErrorKind::Late => "L2 got the write after its deadline",
            L2ErrorKind::Other => "L2 failed",
        };
        write!(f, "{what}: {}", self.source)
    }
}

/// The message includes the cause's message; `source` returns only what the message lacks.
impl std::error::Error for L2Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        unsaid(&self.to_string(), &*self.source)
    }
}
