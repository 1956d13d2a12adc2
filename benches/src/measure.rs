//! Rounds that take turns, and what is counted in them.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Longer than this nobody is waited for; the median is then of fewer rounds.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Which column a number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Crinkle,
    Floor,
    Peer,
}

/// Someone who does the work of a row: so many operations, and the time they took.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    batch: Box<dyn FnMut(u64) -> Result<Duration> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        name: &'static str,
        side: Side,
        batch: impl FnMut(u64) -> Result<Duration> + 'a,
    ) -> Self {
        Self { name, side, batch: Box::new(batch) }
    }

    /// The same as a floor of this name.
    pub(crate) fn floor(self, name: &'static str) -> Self {
        Self { name, side: Side::Floor, ..self }
    }

    pub(crate) fn run(&mut self, ops: u64) -> Result<Duration> {
        (self.batch)(ops).with_context(|| self.name.to_owned())
    }
}

/// How long a round is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// As many operations as take about this long.
    Time(Duration),
    /// So many operations.
    Ops(u64),
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) amount: Amount,
}

/// What a contender needed: nanoseconds per operation, the median of its rounds.
#[derive(Clone, Debug)]
pub(crate) struct Score {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) ns: f64,
    /// How far it came, if it did not finish.
    pub(crate) note: Option<String>,
}

/// Lets everybody run in turns: one round each, then the next.
pub(crate) fn race(contenders: &mut [Contender<'_>], effort: Effort) -> Result<Vec<Score>> {
    let mut ops = Vec::with_capacity(contenders.len());
    for contender in contenders.iter_mut() {
        ops.push(match effort.amount {
            Amount::Ops(ops) => ops,
            Amount::Time(batch) => calibrate(contender, batch)?,
        });
    }
    let mut rounds = vec![Vec::new(); contenders.len()];
    let mut spent = vec![Duration::ZERO; contenders.len()];
    for _ in 0..effort.rounds {
        for (at, contender) in contenders.iter_mut().enumerate() {
            if spent[at] < LIMIT {
                let took = contender.run(ops[at])?;
                spent[at] += took;
                rounds[at].push(nanos(took) / ops[at] as f64);
            }
        }
    }
    let score = |(contender, rounds): (&Contender<'_>, Vec<f64>)| Score {
        name: contender.name,
        side: contender.side,
        note: (rounds.len() < effort.rounds)
            .then(|| format!("{} of {} rounds within 20 s", rounds.len(), effort.rounds)),
        ns: median(rounds),
    };
    Ok(contenders.iter().zip(rounds).map(score).collect())
}

/// How many operations take about so long. Warms up, too.
fn calibrate(contender: &mut Contender<'_>, batch: Duration) -> Result<u64> {
    let mut ops = 1000_u64;
    loop {
        let took = contender.run(ops)?;
        if took * 2 > batch || took > LIMIT {
            let fit = ops as f64 * nanos(batch) / nanos(took).max(1.0);
            return Ok((fit as u64).max(1));
        }
        ops *= if took * 10 < batch { 8 } else { 2 };
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

/// The value below which this part of them is; NaN of none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The processor time of this thread: what another process does meanwhile does not count.
pub(crate) fn thread_time() -> Duration {
    time_of(ClockId::ThreadCPUTime)
}

/// A clock that is the same in every process of the machine.
pub(crate) fn machine_time() -> Duration {
    time_of(ClockId::Monotonic)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The time since.
pub(crate) fn wall() -> Instant {
    Instant::now()
}
