//! A long run of real processes over a real server: their resource use must not grow.
//!
//! Three processes use one cache: always new keys, removals by tag, expiries, writes. Meanwhile the
//! run kills connections, restarts the server, and kills and replaces one of the processes. The
//! first two processes are measured after a warm-up. The medians of the first and the second half
//! must not differ by more than 5 %.

mod idle;
mod measure;
mod worker;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

pub use idle::idle;
pub use worker::work;

use crate::redis::RedisServer;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many processes use the cache; the run kills the last one.
const WORKERS: usize = 3;

/// The allowed growth of the second half over the first.
const MARGIN: f64 = 0.05;

/// Everything may grow during this time, which includes two sweeps of L1.
const WARM_UP: Duration = Duration::from_secs(80);

/// The time between two faults.
const CALM: Duration = Duration::from_secs(7);

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sample {
    rss_kib: f64,
    tasks: f64,
    descriptors: f64,
    entries: f64,
    calls: f64,
}

/// One row of the table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The process or server.
    pub of: String,
    /// What was measured.
    pub what: &'static str,
    /// The median of the first half.
    pub before: f64,
    /// The median of the second half.
    pub after: f64,
    /// Whether it is flat; `None` if it need not be.
    pub flat: Option<bool>,
}

impl Row {
    /// `slack` is an absolute growth that is always allowed.
    fn new(of: &str, what: &'static str, values: &[f64], slack: f64, judged: bool) -> Self {
        let (first, second) = values.split_at(values.len() / 2);
        let (before, after) = (median(first), median(second));
        let most = (before * (1.0 + MARGIN)).max(before + slack);
        Self { of: of.to_owned(), what, before, after, flat: judged.then_some(after <= most) }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The result of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The table.
    pub rows: Vec<Row>,
    /// How many faults were injected.
    pub troubles: usize,
    /// How many calls the measured processes made.
    pub calls: f64,
}

impl Report {
    /// Returns whether nothing grows.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.flat != Some(false))
    }
}

/// A process, and its samples since the warm-up.
struct Worker {
    child: Child,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Worker {
    fn start(url: &str, number: usize) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--worker", url, &number.to_string()]);
        // The process ends with its standard input.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("a worker has no output")?;
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let sink = Arc::clone(&samples);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(sample) = serde_json::from_str(&line) {
                    sink.lock().push(sample);
                }
            }
        });
        Ok(Self { child, samples })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only if the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs for this long and reports what has grown.
///
/// # Errors
///
/// If a process or the server cannot be started.
pub async fn run(lasting: Duration) -> Outcome<Report> {
    let mut server = RedisServer::start();
    let url = server.app_url();
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(Worker::start(&url, number)?);
    }
    let began = Instant::now();
    let warm = began + WARM_UP.min(lasting * 2 / 3);
    let (mut keys, mut troubles, mut calm_until) = (Vec::new(), 0, began + CALM);
    let mut measuring = false;
    while began.elapsed() < lasting {
        sleep(Duration::from_secs(1)).await;
        if !measuring && Instant::now() >= warm {
            measuring = true;
            workers.iter().for_each(|worker| worker.samples.lock().clear());
        }
        if measuring {
            keys.extend(measure::keys(&server.url()).await);
        }
        // The last interval has no faults, so that the last fault is over before the end.
        if Instant::now() >= calm_until && began.elapsed() + CALM < lasting {
            trouble(troubles, &mut server, &mut workers).await?;
            troubles += 1;
            calm_until = Instant::now() + CALM;
        }
    }
    let (mut rows, mut calls) = (Vec::new(), 0.0);
    for (number, worker) in workers.iter_mut().enumerate() {
        if let Some(status) = worker.child.try_wait()? {
            return Err(format!("process {number} has ended by itself: {status}").into());
        }
        let samples = worker.samples.lock().clone();
        let lasts = number + 1 < WORKERS;
        rows.extend(table(&format!("process {number}"), &samples, lasts));
        calls += samples.last().map_or(0.0, |sample| sample.calls);
    }
    rows.push(Row::new("redis", "keys", &keys, 20.0, true));
    Ok(Report { rows, troubles, calls })
}

fn table(of: &str, samples: &[Sample], judged: bool) -> Vec<Row> {
    let column = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
    vec![
        Row::new(of, "RSS, KiB", &column(|s| s.rss_kib), 512.0, judged),
        Row::new(of, "tasks", &column(|s| s.tasks), 3.0, judged),
        Row::new(of, "descriptors", &column(|s| s.descriptors), 1.0, judged),
        // This drops after each restart of the server; RSS shows whether entries are freed.
        Row::new(of, "entries in L1", &column(|s| s.entries), 0.0, false),
    ]
}

/// Injects the faults in turn, from the first again after the last.
async fn trouble(nth: usize, server: &mut RedisServer, workers: &mut [Worker]) -> Outcome<()> {
    match nth % 4 {
        0 => measure::kill_connections(&server.url(), "pubsub").await,
        1 => {
            let last = workers.len() - 1;
            // Replacing it drops, and so kills, the old process.
            workers[last] = Worker::start(&server.app_url(), last)?;
        }
        2 => measure::kill_connections(&server.url(), "normal").await,
        _ => server.restart(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_flat(values: &[f64]) -> bool {
        let rows = vec![Row::new("it", "KiB", values, 10.0, true)];
        Report { rows, troubles: 0, calls: 0.0 }.is_flat()
    }

    #[test]
    fn what_grows_by_more_than_the_margin_is_not_flat() {
        assert!(is_flat(&[1000.0, 1000.0, 1049.0, 1049.0]));
        assert!(!is_flat(&[1000.0, 1000.0, 1051.0, 1051.0]));
        assert!(is_flat(&[1000.0, 1000.0, 500.0, 500.0]), "less is no growth");
    }

    #[test]
    fn a_moment_of_trouble_is_not_growth() {
        assert!(is_flat(&[1000.0, 1000.0, 1000.0, 1000.0, 9000.0, 1000.0]));
        assert!(!is_flat(&[1000.0, 1.0, 1000.0, 2000.0, 1.0, 2000.0]));
    }

    #[test]
    fn a_few_are_nothing_however_much_of_the_whole_they_are() {
        assert!(is_flat(&[20.0, 20.0, 29.0, 29.0]));
        assert!(!is_flat(&[20.0, 20.0, 31.0, 31.0]));
    }
}
