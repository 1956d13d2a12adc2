//! Deterministic simulation: one seed is one simulated cluster.
//!
//! A simulated cluster has two to four real caches over one store and one bus in memory, on virtual
//! time. Each cache has a clock of its own. Callers read, write the source and invalidate while
//! faults of every kind are injected. The history records everything that callers, the source, the
//! store and the bus saw. A judge that shares no code with the cache decides whether a numbered
//! guarantee was broken. Nothing in a cluster depends on anything but its seed.
//!
//! ```
//! use crinkle_testkit::sim;
//!
//! let report = sim::run(sim::Job { first: 1, seeds: 2, jobs: None, switches: sim::Switches::ON, bug: None });
//! assert!(report.violations.is_empty(), "{}", sim::timeline(report.violations[0].seed, sim::Switches::ON));
//! ```

mod actors;
mod bus;
mod clock;
mod copies;
mod coverage;
mod demotion;
mod episodes;
mod finale;
mod link;
mod names;
mod notes;
mod pace;
mod plan;
mod replica;
mod run;
mod scribe;
mod source;
mod start;
mod store;
mod switches;
mod timeline;
mod trouble;
mod wire;
mod wish;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::sabotage::{Sabotage, plant};
use parking_lot::Mutex;
use tokio::runtime::Builder;

use crate::check;
use crate::history::{At, Log};
use plan::Plan;
use world::World;

pub(crate) use names::tags;
pub(crate) use pace::HARD_MS;
pub(crate) use plan::{KEYS as ODD_KEYS, Plan as SimPlan, TAGS, options, rng};
pub(crate) use run::{Ends, Run, draw as draw_run};
pub(crate) use source::PLANNED;

pub use coverage::Coverage;
pub use switches::Switches;

/// The name of every reason for which the judge excuses a violation, used or not.
pub fn excuses() -> impl Iterator<Item = &'static str> {
    check::Excuse::ALL.iter().map(|excuse| excuse.name())
}

pub(crate) use timeline::story;
pub use timeline::{timeline, timeline_with};

/// What to simulate.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written down by callers")]
pub struct Job {
    /// The first seed.
    pub first: u64,
    /// How many seeds, consecutive from `first`.
    pub seeds: u64,
    /// How many threads simulate; `None` means one per core.
    pub jobs: Option<usize>,
    /// Which switches are on.
    pub switches: Switches,
    /// The bug to plant; the job ends with the first violation.
    pub bug: Option<Sabotage>,
}

/// A guarantee that was broken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// The seed of the cluster.
    pub seed: u64,
    /// The guarantee, such as `S3`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// The result of a job.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many clusters ran.
    pub seeds: u64,
    /// How many calls the clusters made.
    pub ops: u64,
    /// All violations, by seed.
    pub violations: Vec<Violation>,
    /// How often each fault, race and path occurred.
    pub coverage: Coverage,
    /// How often the judge excused a violation, by reason.
    pub excuses: BTreeMap<&'static str, u64>,
}

/// A finished cluster.
struct Ended {
    log: Log,
    plan: Plan,
    coverage: Coverage,
}

/// Simulates the clusters of a job, one per thread at a time.
#[must_use]
pub fn run(job: Job) -> Report {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let cores = job.jobs.unwrap_or_else(cores).max(1);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut mine = Report::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= job.seeds || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    one(job, job.first.wrapping_add(at), &mut mine);
                    stop.fetch_or(
                        job.bug.is_some() && !mine.violations.is_empty(),
                        Ordering::Relaxed,
                    );
                }
                report.lock().merge(mine);
            });
        }
    });
    let mut report = report.into_inner();
    report.violations.sort_by_key(|violation| violation.seed);
    report
}

impl Report {
    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.ops += other.ops;
        self.violations.extend(other.violations);
        self.coverage.merge(&other.coverage);
        for (excuse, count) in other.excuses {
            *self.excuses.entry(excuse).or_default() += count;
        }
    }
}

/// One in this many clusters runs twice.
const TWICE: u64 = 64;

fn one(job: Job, seed: u64, report: &mut Report) {
    let Job { switches, bug, .. } = job;
    let mut run = SimulatedCluster { seed, switches, bug, skew_s: 0, detailed: false };
    let ended = simulate(run);
    let check::Verdict { mut violations, excuses } = check::check(&ended.log, &ended.plan.terms());
    for (excuse, count) in excuses {
        *report.excuses.entry(excuse).or_default() += count;
    }
    if seed.is_multiple_of(TWICE) && bug.is_none() {
        // S11: clocks that are hours apart must not change the history.
        run.skew_s = 7200;
        let again = simulate(run);
        if again.log.digest() != ended.log.digest() {
            let what = "another history with the same seed and other clocks".to_owned();
            violations.push(check::Violation { rule: "S11", what, key: None, at: At::default() });
        }
    }
    report.seeds += 1;
    report.ops += ended.log.calls.len() as u64;
    report.coverage.merge(&ended.coverage);
    let found = violations.into_iter().map(|v| Violation { seed, rule: v.rule, what: v.what });
    report.violations.extend(found);
}

/// Which cluster to simulate, and how.
#[derive(Clone, Copy, Debug)]
struct SimulatedCluster {
    seed: u64,
    switches: Switches,
    bug: Option<Sabotage>,
    /// Added to the origin of the nodes' clocks, in seconds.
    skew_s: u64,
    detailed: bool,
}

/// Simulates a cluster to its end. With `detailed`, the log also records details for the timeline.
fn simulate(run: SimulatedCluster) -> Ended {
    let SimulatedCluster { seed, switches, bug, skew_s, detailed } = run;
    plant(bug);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output");
    let ended = runtime.block_on(async {
        let world = World::new(Plan::new(seed, skew_s, switches), detailed);
        for slot in 0..world.plan.nodes {
            start::start_node(&world, slot);
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        let trouble = tokio::spawn(trouble::make(Arc::clone(&world)));
        let more = tokio::spawn(trouble::make_more(Arc::clone(&world)));
        drop(tokio::spawn(replica::follow(Arc::clone(&world))));
        let callers = actors::act(Arc::clone(&world)).await;
        let _ = (trouble.await, more.await);
        if world.plan.ends_silent {
            tokio::time::sleep(Duration::from_millis(world.plan.poll_ms + 100)).await;
        } else {
            trouble::heal(&world);
            tokio::time::sleep(Duration::from_millis(100)).await;
            episodes::play(&world).await;
        }
        trouble::heal(&world);
        finale::play(&world, callers).await;
        let stats = world.everyone().iter().map(|node| node.cache.stats()).collect::<Vec<_>>();
        let log = std::mem::take(&mut *world.log.lock());
        let coverage = Coverage::of(&log, &world.plan, &stats);
        world.forget();
        Ended { log, plan: world.plan.clone(), coverage }
    });
    drop(runtime);
    plant(None);
    ended
}

/// Silences planned panics.
pub fn hush() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PLANNED) {
            before(info);
        }
    }));
}
