//! What a load brings. It says nothing about the options of a caller: each caller applies its own.

use std::time::Duration;

use crate::entry::{ErasedEntry, Source};
use crate::error::Error;

/// How far a flight is.
#[derive(Clone)]
pub(crate) enum Progress {
    /// Asking L2.
    Probing,
    /// Another node is loading; this may be served stale, to callers that allow it.
    Waiting(Option<ErasedEntry>),
    /// The factory runs; this may be served stale, to callers that allow it.
    Loading(Option<ErasedEntry>),
    /// Over.
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

/// What a flight brought.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// A value.
    Value(Completed),
    /// Nothing was loaded, and the caller that led is content with this stale value.
    Stale(ErasedEntry, Pause),
    /// No value.
    Failed(Failure),
}

/// A value that a flight brought.
#[derive(Clone)]
pub(crate) struct Completed {
    pub(crate) erased: ErasedEntry,
    pub(crate) source: Source,
    pub(crate) standing: Standing,
}

/// What the node knew of a value when it completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Valid; for everybody.
    Fresh,
    /// Overtaken by an invalidation: for callers that came before it.
    Overtaken,
    /// L2 held something else by then: for the caller that started the load.
    Refused,
}

/// Why a stale value was enough for the caller that led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Another node has been loading for as long as that caller waits.
    Busy,
    /// The factory failed a moment ago and is left alone.
    Throttled,
    /// L2 does not answer, so what L1 has cannot be verified.
    Unreachable,
}

/// A load without a value.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// What may be served stale in its place, to callers that allow it.
    pub(crate) stale: Option<ErasedEntry>,
    pub(crate) cause: Cause,
}

/// Whether a failure is everybody's, or comes from the options of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The load itself failed.
    Load,
    /// The factory ran for as long as the caller that led lets it.
    Deadline(Duration),
    /// Every caller whose options wanted the factory to go on was gone.
    Stopped,
    /// Nobody waited for the factory any more, and the caller that led had it stopped then.
    Abandoned,
    /// The caller that led requires L2, which did not answer.
    NoL2,
    /// The runtime that it ran on has ended.
    Lost,
}
