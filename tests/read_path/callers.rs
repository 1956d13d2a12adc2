//! Callers with random options on one key, against what each one's own options say of what happened.
//!
//! New cases each time; a failure names its seed: `CALLERS_SEED=7 CALLERS=1 cargo test -p crinkle-tests
//! --test read_path callers::` runs it again, `CALLERS=100000` runs more.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{Cache, EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_tests::{Boxed, TestError, World, go, ms, pass};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime;
use tokio::time::Instant;

/// What one caller wants, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Caller {
    starts: u64,
    batch: bool,
    fail_safe: bool,
    default: bool,
    require_l2: bool,
    soft: Option<u64>,
    hard: Option<u64>,
    flight: Option<u64>,
    deadline: u64,
    background: bool,
    /// Its own factory: how long it takes, and whether it fails.
    takes: u64,
    fails: bool,
}

/// What it got, and when.
#[derive(Clone, Copy, Debug)]
struct Got {
    caller: Caller,
    at: u64,
    answer: Result<(i32, Source, bool), ErrorKind>,
}

/// One run of a factory.
#[derive(Clone, Copy, Debug)]
struct Ran {
    began: u64,
    caller: usize,
    /// When it ended, and whether it failed; `None` if it was dropped.
    ended: Option<(u64, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    l2: bool,
    down: bool,
    fallback: bool,
}

const STALE: i32 = -1;
const DEFAULT: i32 = -2;

fn caller(rng: &mut StdRng) -> Caller {
    let mut some = |most: u64| rng.random_bool(0.4).then(|| rng.random_range(1..most));
    let (soft, hard, flight) = (some(200), some(300), some(300));
    Caller {
        starts: rng.random_range(0..300),
        batch: rng.random_bool(0.2),
        fail_safe: rng.random_bool(0.5),
        default: rng.random_bool(0.2),
        require_l2: rng.random_bool(0.2),
        soft,
        hard,
        flight,
        deadline: [50, 150, 10_000][rng.random_range(0..3)],
        background: rng.random_bool(0.6),
        takes: rng.random_range(1..250),
        fails: rng.random_bool(0.6),
    }
}

impl Caller {
    fn options(self) -> EntryOptions {
        let options = EntryOptions::new(ms(60_000))
            .require_l2(self.require_l2)
            .factory_soft_timeout(self.soft.map(ms))
            .factory_hard_timeout(self.hard.map(ms))
            .wait_timeout(self.flight.map(ms))
            .factory_deadline(ms(self.deadline))
            .background_completion(self.background);
        let fail_safe = FailSafe::for_up_to(ms(3_600_000)).throttle(ms(30));
        if self.fail_safe { options.fail_safe(fail_safe) } else { options }
    }
}

type Runs = Arc<Mutex<Vec<Ran>>>;

/// The factory of a caller, which writes down what becomes of it.
async fn made(me: usize, caller: Caller, runs: Runs, origin: Instant) -> Result<i32, TestError> {
    let place = {
        let mut runs = runs.lock();
        runs.push(Ran { began: since(origin), caller: me, ended: None });
        runs.len() - 1
    };
    pass(ms(caller.takes)).await;
    runs.lock()[place].ended = Some((since(origin), caller.fails));
    if caller.fails { Err(TestError::new()) } else { Ok(i32::try_from(me).unwrap_or(0)) }
}

fn since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn call(cache: Cache, me: usize, caller: Caller, runs: Runs, origin: Instant) -> Got {
    pass(ms(caller.starts)).await;
    let options = caller.options();
    let answer = if caller.batch {
        let load = move |keys: Vec<String>| {
            let made = made(me, caller, Arc::clone(&runs), origin);
            Box::pin(async move {
                let value = made.await?;
                Ok(keys.into_iter().map(|key| (key, value)).collect())
            }) as Boxed<Vec<(String, i32)>>
        };
        let batch = cache.get_or_set_many(["key"], load).options(options).await;
        batch.map(|mut all| all.remove(0))
    } else {
        let load = cache.get_or_set("key", move |_| made(me, caller, runs, origin));
        let load = load.options(options);
        if caller.default { load.fail_safe_default(DEFAULT).await } else { load.await }
    };
    let answer = answer.map(|read| (*read, read.meta().source(), read.meta().is_stale()));
    Got { caller, at: since(origin), answer: answer.map_err(|error| error.kind()) }
}

async fn run(seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let l2 = rng.random_bool(0.6);
    let plan = Plan { l2, down: l2 && rng.random_bool(0.4), fallback: rng.random_bool(0.6) };
    let callers: Vec<_> = (0..rng.random_range(2..7)).map(|_| caller(&mut rng)).collect();
    let world = World::new().await;
    let node = world.node().await;
    let cache = if plan.l2 { node.cache } else { world.alone() };
    if plan.fallback {
        let long = FailSafe::for_up_to(ms(3_600_000));
        let options = EntryOptions::new(ms(1000)).fail_safe(long);
        let _ = cache.set("key", STALE).options(options).await.map_err(|e| e.to_string())?;
        pass(ms(1500)).await;
    }
    if plan.down {
        node.l2.down();
    }
    let (runs, origin) = (Runs::default(), Instant::now());
    let calls = callers
        .iter()
        .enumerate()
        .map(|(me, caller)| go(call(cache.clone(), me, *caller, Arc::clone(&runs), origin)));
    let mut got = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        got.push(call.await.map_err(|error| error.to_string())?);
    }
    pass(ms(20_000)).await;
    let runs = runs.lock().clone();
    for (me, one) in got.iter().enumerate() {
        judge(plan, me, one, &got, &runs)
            .map_err(|why| format!("caller {me}: {why}\n{plan:?}\n{got:#?}\n{runs:#?}"))?;
    }
    if cache.health().in_flight == 0 { Ok(()) } else { Err("a key is stuck".to_owned()) }
}

/// What a caller's own options say of its answer, given what happened meanwhile.
fn judge(plan: Plan, me: usize, got: &Got, all: &[Got], runs: &[Ran]) -> Result<(), String> {
    let Got { caller, at, answer } = *got;
    let took = at - caller.starts;
    let may_be_stale = caller.fail_safe && plan.fallback;
    // Batches have no default of their own.
    let default = caller.default && !caller.batch;
    let own = |limit: Option<u64>| limit == Some(took);
    let failed = |run: &&Ran| run.ended.is_some_and(|(end, fails)| fails && end <= at);
    let within = |run: &&Ran| run.ended.is_some_and(|(end, _)| end >= caller.starts);
    // Ended by a deadline no longer than the caller's own.
    let cut = |run: &&Ran| {
        let limit = all[run.caller].caller.deadline;
        run.ended.is_none() && run.began + limit <= at && limit >= caller.deadline.min(limit)
    };
    let load_failed = runs.iter().any(|run| failed(&run) && within(&run));
    let late = caller.hard.is_some_and(|hard| took > hard);
    let check = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
    check(!late, "its hard timeout is over")?;
    match answer {
        Ok((STALE, _, stale)) => {
            check(stale && may_be_stale, "stale, and its options do not allow that")?;
            // A failure before it came, or somebody's timeout, has throttled the entry.
            let before = |other: &Got| other.at <= at && matches!(other.answer, Ok((STALE, ..)));
            let throttled = all.iter().enumerate().any(|(at, other)| at != me && before(other));
            let timed_out = own(caller.soft) || own(caller.hard) || own(caller.flight);
            let failed = runs.iter().any(|run| failed(&run) || cut(&run));
            check(throttled || timed_out || failed, "stale, and nothing had failed")
        }
        Ok((DEFAULT, source, _)) => {
            // One that leads keeps its default for the throttle: later callers find it there.
            let kept = |g: &Got| g.caller.default && g.caller.fail_safe;
            let mine = default && source == Source::Default;
            let kept = caller.fail_safe && all.iter().any(kept);
            check(mine || kept, "somebody else's default")?;
            check(!may_be_stale || kept, "a default in place of a fallback")
        }
        Ok((value, _, stale)) => {
            let ran = |run: &Ran| i32::try_from(run.caller) == Ok(value) && run.ended.is_some();
            check(!stale && runs.iter().any(ran), "a value that nobody made")?;
            let alone = |run: &&Ran| run.ended.is_some_and(|(end, _)| end == at);
            // A caller that requires L2 is not answered by a load without it, but by what L1 holds.
            let loaded = runs.iter().filter(alone).any(ran) && took > 0;
            check(!(caller.require_l2 && plan.down && loaded), "loaded without L2")
        }
        Err(ErrorKind::L2) => check(plan.down && caller.require_l2, "L2 is not required"),
        Err(kind) => {
            check(!default, "an error in place of its default")?;
            check(!may_be_stale, "an error in place of its fallback")?;
            check(!(caller.require_l2 && plan.down), "L2 is required, and was not asked")?;
            match kind {
                ErrorKind::Factory => check(load_failed, "no load had failed"),
                ErrorKind::FactoryTimeout => {
                    let cut = runs.iter().any(|run| cut(&run));
                    check(own(caller.hard) || cut, "another caller's timeout")
                }
                ErrorKind::WaitTimeout => check(own(caller.flight), "another caller's patience"),
                _ => Err(format!("{kind:?}")),
            }
        }
    }
}

fn from_env<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn check(seed: u64) -> Result<(), String> {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("no trouble").block_on(run(seed))
}

#[test]
fn every_caller_is_judged_by_its_own_options() {
    let first: u64 = from_env("CALLERS_SEED").unwrap_or_else(|| rand::rng().random());
    let count: u64 = from_env("CALLERS").unwrap_or(300);
    println!("CALLERS_SEED={first} CALLERS={count}");
    for seed in (0..count).map(|at| first.wrapping_add(at)) {
        if let Err(why) = check(seed) {
            panic!("CALLERS_SEED={seed} CALLERS=1: {why}");
        }
    }
}

/// Otherwise the judge would prove nothing.
#[test]
fn a_joiner_that_is_judged_by_other_options_is_noticed() {
    plant(Some(Sabotage::LeaderDecides));
    let noticed = (0..300).any(|seed| check(seed).is_err());
    plant(None);
    assert!(noticed);
}
