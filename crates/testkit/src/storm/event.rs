//! The protocol between coordinator and workers: lines of JSON, with times of the clock that all
//! processes of a machine share.

use serde::{Deserialize, Serialize};

use crate::history::{Operation, Outcome, Said, Scope, What};

/// Nanoseconds since the machine was started.
pub(crate) type Ns = u64;

/// A command from the coordinator to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Build a cache.
    Begin(Round),
    /// Use it.
    Go,
    /// Stop using the cache and wait for running calls.
    Rest,
    /// All faults have ended: read every key, close, and report the events.
    Finish,
}

/// The parameters of a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Name of the cache.
    pub(crate) name: String,
    pub(crate) worker: usize,
    pub(crate) seed: u64,
    pub(crate) way: Way,
    /// Where the source of truth is: a Unix socket.
    pub(crate) source: String,
    /// The tags of each key, as bits.
    pub(crate) tags: Vec<u8>,
    pub(crate) actors: usize,
    /// The mean time between two calls of an actor, in milliseconds.
    pub(crate) think_ms: u64,
    /// Whether little is written in this round.
    pub(crate) calm: bool,
    /// The bug to plant.
    pub(crate) bug: Option<String>,
}

/// The endpoints of the servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    Url(String),
    Sentinels { urls: Vec<String>, name: String },
    Cluster { urls: Vec<String> },
}

/// A reply from a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    Ready,
    Rests,
    Done(Box<WorkerReport>),
}

/// A worker's report of a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    pub(crate) frontier: u64,
    pub(crate) events: Vec<Event>,
}

/// One event. The ids of calls and loads are unique in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Call {
        at: Ns,
        id: usize,
        what: What,
        scopes: Vec<Scope>,
    },
    Ended {
        at: Ns,
        call: usize,
        outcome: Outcome,
        said: Said,
        has_barrier: bool,
        error: String,
    },
    Answer {
        call: usize,
        key: u8,
        load: usize,
        says_key: u8,
        stale: bool,
        source: String,
    },
    Load {
        at: Ns,
        id: usize,
        key: u8,
        call: usize,
        tags: u8,
        is_set: bool,
    },
    Loaded {
        at: Ns,
        load: usize,
        version: u32,
    },
    /// A factory confirms that a load is still current.
    Confirmed {
        began: Ns,
        at: Ns,
        load: usize,
    },
    /// A command changes the store. `at` is missing if its outcome is unknown.
    Applied {
        sent: Ns,
        at: Option<Ns>,
        key: Option<u8>,
        operation: Operation,
        call: Option<usize>,
        /// The hash of the message that announces it.
        message: Option<u64>,
        /// For a numbered removal: its epoch and its nonce.
        id: Option<(u64, u64)>,
    },
    Received {
        at: Ns,
        message: u64,
    },
    /// A wait for a token succeeded.
    Waited {
        at: Ns,
        token: u128,
    },
    Synced {
        sent: Ns,
        at: Ns,
    },
    Subscribed {
        at: Ns,
    },
    /// A violation that was noticed as it happened.
    Seen {
        at: Ns,
        rule: String,
        what: String,
    },
}
