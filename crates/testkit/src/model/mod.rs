//! Explicit-state models that drive the real protocol code.
//!
//! Nothing here re-implements a rule. The nodes of the models hold a real
//! [`Replica`](crinkle_core::protocol::ledger::Replica) and a real
//! [`KeyState`](crinkle_core::protocol::flight::KeyState). The server is a real
//! [`Authority`](crinkle_core::protocol::ledger::Authority) or uses the real record rules. The real
//! [`judge`](crinkle_core::protocol::validity::judge) decides about entries. Only the network (it
//! loses, delays and reorders), the store and the application are abstract. A sabotaged variant
//! breaks one rule in how the model *uses* the protocol; the model must catch it, or it proves
//! nothing.

pub mod keys;
mod keys_failover;
mod keys_steps;
pub mod ledger;
mod ledger_configs;
mod ledger_steps;
mod ledger_sync;
mod same;

pub use keys::run as run_keys;
pub use ledger_configs::run as run_ledger;

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

/// The expected result of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a configuration either is the design or is not")]
pub enum Expect {
    /// The design: every property holds.
    Holds,
    /// A sabotaged variant: some property is violated.
    Caught,
}

/// The result of a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The configuration.
    pub name: String,
    /// What was expected.
    pub expect: Expect,
    /// How many distinct states the exploration visited.
    pub states: usize,
    /// How long the exploration took.
    pub time: Duration,
    /// The violated property and the steps that lead there.
    pub violation: Option<(&'static str, Vec<String>)>,
    /// Whether the exploration reached the interesting states at all.
    pub reached: bool,
    /// Whether the exploration visited every state; if not, the time was over.
    pub complete: bool,
}

impl Report {
    /// Returns whether the result is as expected.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        match self.expect {
            Expect::Holds => self.violation.is_none() && self.reached && self.complete,
            Expect::Caught => self.violation.is_some(),
        }
    }
}

/// What to explore.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written down by callers")]
pub struct Job {
    /// Whether to explore the large configurations too.
    pub deep: bool,
    /// Explores only configurations whose name contains this.
    pub filter: String,
    /// How many threads explore.
    pub threads: usize,
}

/// An exploration that takes longer is stopped.
const LONGEST: Duration = Duration::from_secs(1800);

/// The name of the property that shows that a model is not vacuous.
const REACH: &str = "reach";

/// Explores a configuration.
#[expect(clippy::disallowed_methods, reason = "a model checker is timed by the wall clock")]
fn explore<M>(job: &Job, name: String, model: M, expect: Expect) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + std::fmt::Debug + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
{
    let begun = Instant::now();
    let builder = model.checker().threads(job.threads).timeout(LONGEST);
    let builder = builder.finish_when(HasDiscoveries::AnyFailures);
    // Breadth first finds the shortest path to a violation, but keeps every state at its edge.
    let (mut discoveries, states) = if job.deep {
        let checker = builder.spawn_dfs().join();
        (checker.discoveries(), checker.unique_state_count())
    } else {
        let checker = builder.spawn_bfs().join();
        (checker.discoveries(), checker.unique_state_count())
    };
    let reached = discoveries.remove(REACH).is_some();
    let violation = discoveries.into_iter().next().map(|(property, path)| {
        let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        (property, steps)
    });
    Report {
        name,
        expect,
        states,
        time: begun.elapsed(),
        violation,
        reached,
        complete: begun.elapsed() < LONGEST,
    }
}
