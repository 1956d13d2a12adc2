//! A node's connections, and the faults in force on them.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};

use super::copies::Demoted;
use super::wire::Wire;

/// A node's connections to the store and the bus, with the faults in force.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node: usize,
    pub(super) wire: Wire,
    pub(super) rng: Mutex<StdRng>,
    pub(super) trouble: Mutex<Trouble>,
    /// Notified when a subscription must check its state again.
    pub(super) moved: Arc<Notify>,
    /// True once the node is down.
    pub(super) down: watch::Sender<bool>,
}

/// How the store answers a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sick {
    Down,
    LosesReplies,
    Hangs,
    Slow,
    RunsLate,
    RunsLateBy(u64),
    AnswersLate(u64),
    Full,
    /// Any of the others, drawn for each call.
    Flaky,
}

/// Until when each fault lasts, in virtual milliseconds.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) sick: Option<(Sick, u64)>,
    pub(super) drops: u64,
    pub(super) repeats: u64,
    pub(super) reorders: u64,
    pub(super) mute: u64,
    /// The node receives only its own heartbeats.
    pub(super) own_heartbeats_only: u64,
    pub(super) refuses: u64,
    pub(super) publish_fails: u64,
    pub(super) publish_hangs: u64,
    /// Only the ledger does not answer.
    pub(super) ledger_silent: u64,
    /// Connections accept bytes and never answer.
    pub(super) swallows: u64,
    /// Whether the accepted bytes reach the server.
    pub(super) arrives: bool,
    pub(super) demoted: Option<Demoted>,
    /// The generation of the subscription; a change ends it.
    pub(super) generation: u64,
    pub(super) junk: u32,
    pub(super) lags: u32,
}
