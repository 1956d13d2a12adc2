//! The outcome of a load. It is independent of any caller's options: each caller applies its own.

use std::time::Duration;

use crate::entry::{ErasedEntry, Source};
use crate::error::Error;

/// The progress of a flight.
#[derive(Clone)]
pub(crate) enum Progress {
    /// It asks L2.
    Probing,
    /// Another node is loading; callers that allow it may get this stale value.
    Waiting(Option<ErasedEntry>),
    /// The factory runs; callers that allow it may get this stale value.
    Loading(Option<ErasedEntry>),
    /// It has ended.
    Done(Outcome),
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Probing => "Probing",
            Self::Waiting(_) => "Waiting",
            Self::Loading(_) => "Loading",
            Self::Done(_) => "Done",
        })
    }
}

/// The outcome of a flight.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// A value.
    Value(Completed),
    /// No load: the leader accepted this stale value.
    Stale(ErasedEntry, StaleReason),
    /// The load failed.
    Failed(Failure),
}

/// The value of a completed flight.
#[derive(Clone)]
pub(crate) struct Completed {
    pub(crate) erased: ErasedEntry,
    pub(crate) source: Source,
    pub(crate) usability: Usability,
}

/// The value's validity at the moment of completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usability {
    /// Valid for every caller.
    Fresh,
    /// An invalidation overtook it: only for callers that registered before it.
    Overtaken,
    /// L2 refused it because it holds another version: only for the leader, and for callers that
    /// came before the load began.
    Refused,
}

/// Why the leader accepted a stale value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StaleReason {
    /// Another node is loading, and the leader's limit for waiting has passed.
    Busy,
    /// The factory failed a moment ago and its throttle still holds.
    Throttled,
    /// L2 does not answer, so the copy in L1 cannot be verified.
    Unreachable,
}

/// A failed load.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The stale value that callers may get if their options allow it.
    pub(crate) stale: Option<ErasedEntry>,
    pub(crate) cause: Cause,
}

/// Whether a failure applies to every caller, or follows from one caller's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The load itself failed.
    Load,
    /// The factory exceeded the leader's deadline.
    Deadline(Duration),
    /// No caller was left whose options let the factory continue.
    Stopped,
    /// All callers left, and the leader's options stop the factory then.
    Abandoned,
    /// The leader requires L2, which did not answer.
    NoL2,
    /// The runtime of the load has ended.
    Lost,
}
