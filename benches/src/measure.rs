//! Measures contenders in alternating rounds.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The longest time for a contender; after that, the median has fewer rounds.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The column of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Crinkle,
    Floor,
    Peer,
}

/// A contender in a row: it runs this many operations and returns their time.
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

    /// The same as a floor with this name.
    pub(crate) fn floor(self, name: &'static str) -> Self {
        Self { name, side: Side::Floor, ..self }
    }

    pub(crate) fn run(&mut self, ops: u64) -> Result<Duration> {
        (self.batch)(ops).with_context(|| self.name.to_owned())
    }
}

/// The length of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// As many operations as take about this long.
    Time(Duration),
    /// This many operations.
    Ops(u64),
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) amount: Amount,
}

/// The result of a contender: nanoseconds per operation, as the median of its rounds.
#[derive(Clone, Debug)]
pub(crate) struct Score {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    pub(crate) ns: f64,
    /// How far the contender got, if it did not finish.
    pub(crate) note: Option<String>,
}

/// Runs all contenders in turn: one round each, then the next round.
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

/// Returns how many operations take about `batch`; this also warms up.
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

/// Returns the quantile `part` of the values; NaN if there are none.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The processor time of this thread; other processes do not affect it.
pub(crate) fn thread_time() -> Duration {
    time_of(ClockId::ThreadCPUTime)
}

/// A clock that all processes of the machine share.
pub(crate) fn machine_time() -> Duration {
    time_of(ClockId::Monotonic)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Bytes on the heap per entry that `fill` leaves behind.
pub(crate) fn per_entry<T>(entries: usize, fill: impl FnOnce() -> T) -> f64 {
    let mut kept = None;
    let count = allocation_counter::measure(|| kept = Some(fill()));
    drop(kept);
    count.bytes_current as f64 / entries as f64
}

/// The wall time, to measure durations.
pub(crate) fn wall() -> Instant {
    Instant::now()
}
