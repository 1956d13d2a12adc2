//! Deterministic simulation: one seed is one simulate.
//!
//! A simulate has two to four real caches over one store and one bus in memory, on virtual time, each
//! with a clock of its own; callers that read, write the source and invalidate; and trouble of every
//! kind. Everything that callers, the source, the store and the bus saw is written down, and a judge
//! that knows nothing of how the cache works decides whether any of the numbered guarantees was
//! broken. Nothing in a simulate depends on anything but its seed.
//!
//! ```
//! use crinkle_testkit::sim;
//!
//! let report = sim::run(sim::Job { first: 1, seeds: 2, jobs: None, switches: sim::Switches::ON, bug: None });
//! assert!(report.violations.is_empty(), "{}", sim::timeline(report.violations[0].seed, sim::Switches::ON));
//! ```

mod actors;
mod bus;
mod coverage;
mod demotion;
mod episodes;
mod finale;
mod pace;
mod plan;
mod replica;
mod scribe;
mod source;
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

pub(crate) use plan::{HARD_MS, KEYS as ODD_KEYS, Plan as SimPlan, TAGS, options, rng};
pub(crate) use source::{Ends, PLANNED, Run, run as draw_run, tags};

pub use coverage::Coverage;
pub use switches::Switches;

/// Every reason for which the judge lets something pass, whether it was used or not.
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
    /// How many, one after the other.
    pub seeds: u64,
    /// How many threads simulate; `None` for one on every core.
    pub jobs: Option<usize>,
    /// What is on.
    pub switches: Switches,
    /// The bug to plant; the job ends with the first violation.
    pub bug: Option<Sabotage>,
}

/// A guarantee that was broken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// In which simulate.
    pub seed: u64,
    /// Which guarantee.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// What came of a job.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many clusters were run.
    pub seeds: u64,
    /// How many calls were made in them.
    pub ops: u64,
    /// Everything that was broken, by seed.
    pub violations: Vec<Violation>,
    /// How often each fault, race and path occurred.
    pub coverage: Coverage,
    /// How often the judge let something pass that looks like a violation, by the reason.
    pub excuses: BTreeMap<&'static str, u64>,
}

/// One simulate that is over.
struct Ended {
    log: Log,
    plan: Plan,
    coverage: Coverage,
}

/// Simulates, one simulate per thread at a time.
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

/// One in this many clusters is run twice.
const TWICE: u64 = 64;

fn one(job: Job, seed: u64, report: &mut Report) {
    let Job { switches, bug, .. } = job;
    let mut run = SimulatedCluster { seed, switches, bug, skew_s: 0, told: false };
    let ended = simulate(run);
    let check::Verdict { mut violations, excuses } = check::check(&ended.log, &ended.plan.terms());
    for (excuse, count) in excuses {
        *report.excuses.entry(excuse).or_default() += count;
    }
    if seed.is_multiple_of(TWICE) && bug.is_none() {
        // S11: with clocks that are hours apart, the same happens.
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
    let told = violations.into_iter().map(|v| Violation { seed, rule: v.rule, what: v.what });
    report.violations.extend(told);
}

/// Which simulate to run.
#[derive(Clone, Copy, Debug)]
struct SimulatedCluster {
    seed: u64,
    switches: Switches,
    bug: Option<Sabotage>,
    /// Added to the origin of the clocks of nodes.
    skew_s: u64,
    told: bool,
}

/// Runs a simulate to its end; more is written down if its story is `told`.
fn simulate(run: SimulatedCluster) -> Ended {
    let SimulatedCluster { seed, switches, bug, skew_s, told } = run;
    plant(bug);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output");
    let ended = runtime.block_on(async {
        let world = World::new(Plan::new(seed, skew_s, switches), told);
        tokio::time::sleep(Duration::from_millis(40)).await;
        let trouble = tokio::spawn(trouble::make(Arc::clone(&world)));
        let more = tokio::spawn(trouble::make_more(Arc::clone(&world)));
        drop(tokio::spawn(replica::follow(Arc::clone(&world))));
        let callers = actors::act(Arc::clone(&world)).await;
        let _ = (trouble.await, more.await);
        if world.plan.ends_deaf {
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

/// Keeps planned panics quiet.
pub fn hush() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PLANNED) {
            before(info);
        }
    }));
}

/// By name.
type Counts = BTreeMap<&'static str, u64>;
