//! The running checks of L1 copies, each shared by its concurrent callers.

use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use futures_util::future::{BoxFuture, WeakShared};

use crate::protocol::{KeyHash, Version};

/// The result of checking a copy against L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// L2 holds this version and no conflicting message was received: the copy is fresh.
    Same,
    /// L2 holds another version, or an invalidation overtook the copy: read the record.
    Other,
    /// L2 does not answer.
    Failed,
}

/// A running check that all concurrent callers share, and its limit.
pub(crate) type Running = (WeakShared<BoxFuture<'static, Checked>>, Duration);

/// The running checks, by the copy's key and version.
#[derive(Debug, Default)]
pub(crate) struct Checks(pub(crate) DashMap<(KeyHash, Version), Option<Running>, RandomState>);
