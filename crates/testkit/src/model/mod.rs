//! Explicit-state models that drive the real protocol code.
//!
//! Nothing here re-implements a rule: the nodes of the models hold a real
//! [`Replica`](crinkle_core::protocol::ledger::Replica) and a real
//! [`KeyState`](crinkle_core::protocol::flight::KeyState), the server is a real
//! [`Authority`](crinkle_core::protocol::ledger::Authority) or the real record rules, and entries are
//! judged by the real [`judge`](crinkle_core::protocol::validity::judge). Abstract are the network (it
//! loses, delays and reorders), the store and the application. A sabotaged variant breaks one rule in
//! how the model *uses* the protocol; it must be caught, or the model proves nothing.

pub mod keys;
mod keys_failover;
mod keys_steps;
pub mod ledger;
mod ledger_configs;
mod ledger_steps;

pub use keys::run as run_keys;
pub use ledger_configs::run as run_ledger;

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

/// What a configuration is expected to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a configuration either is the design or is not")]
pub enum Expect {
    /// The design: every property holds.
    Holds,
    /// A sabotaged variant: some property is violated.
    Caught,
}

/// How a configuration ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The configuration.
    pub name: String,
    /// What was expected.
    pub expect: Expect,
    /// How many distinct states were visited.
    pub states: usize,
    /// How long it took.
    pub time: Duration,
    /// The violated property and the steps that lead there.
    pub violation: Option<(&'static str, Vec<String>)>,
    /// Whether the interesting states were reached at all.
    pub reached: bool,
    /// Whether every state was visited; if not, the time was over.
    pub complete: bool,
}

impl Report {
    /// Whether it ended as expected.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        match self.expect {
            Expect::Holds => self.violation.is_none() && self.reached,
            Expect::Caught => self.violation.is_some(),
        }
    }
}

/// How long a configuration is explored at most; what there is of it beyond that is left out. Keeps the
/// states of the largest within a few gigabytes.
const LONGEST: Duration = Duration::from_secs(300);

/// The name of the property that says that a model is not vacuous.
const REACH: &str = "reach";

/// Explores a configuration.
#[expect(clippy::disallowed_methods, reason = "a model checker is timed by the wall clock")]
fn explore<M>(name: String, model: M, expect: Expect) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + std::fmt::Debug + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
{
    let begun = Instant::now();
    let builder = model.checker().threads(2).timeout(LONGEST);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let reached = discoveries.remove(REACH).is_some();
    let violation = discoveries.into_iter().next().map(|(property, path)| {
        let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        (property, steps)
    });
    Report {
        name,
        expect,
        states: checker.unique_state_count(),
        time: begun.elapsed(),
        violation,
        reached,
        complete: begun.elapsed() < LONGEST,
    }
}
