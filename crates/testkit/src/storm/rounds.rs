//! The coordinator: it starts servers and processes, injects faults, and lets the judge check the
//! events.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use crinkle_core::sabotage::Sabotage;
use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Ahead, Cluster, Outcome, Topology};
use super::event::{Order, Round, Word, WorkerReport};
use super::faults::{Deck, ProcessTarget, ServerTarget, Trouble};
use super::merge::merge;
use super::{COHERENCE_TTL, KEYS, LONGEST_CALL, POLL, WORKERS, source};
use crate::check::{self, Terms};
use crate::history::Log;
use crate::sim::{self, HARD_MS};

/// The parameters of a chaos run.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written down by callers")]
pub struct Job {
    /// How the servers are set up.
    pub topology: Topology,
    /// The approximate duration.
    pub lasting: Duration,
    /// The bug to plant; the job ends with the first violation.
    pub bug: Option<Sabotage>,
    /// How far the wall clock of each server is ahead; `None` means the machine's clock.
    pub ahead: Option<Ahead>,
    /// The seed of the random faults. The same seed injects the same faults; nothing else repeats.
    pub seed: u64,
}

/// A guarantee that was broken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// The number of the round.
    pub round: u64,
    /// The guarantee, such as `S3`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
    /// The events around the violation, one per line.
    pub story: String,
}

/// The result of a chaos run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How often each fault occurred in judged rounds; faults that did not occur have a 0.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many calls the actors made.
    pub ops: u64,
    /// All violations.
    pub violations: Vec<Violation>,
    /// The longest time for which a fresh answer was older than an acknowledged write.
    pub worst_staleness_ms: u64,
}

impl Report {
    /// The faults that occurred less than [`TWICE`].
    #[must_use]
    pub fn rare(&self) -> Vec<&'static str> {
        let rare = self.faults.iter().filter(|(_, count)| **count < TWICE);
        rare.map(|(name, _)| *name).collect()
    }
}

/// A run of at least this length continues until every fault has occurred [`TWICE`].
pub const LONG: Duration = Duration::from_secs(600);

/// How often a fault must occur. After the first time, the caches must be able to handle another.
pub const TWICE: u64 = 2;

/// How many rounds a long run may add for rare faults.
const MORE_ROUNDS: u32 = 6;

/// How long the end of a round takes: nodes announce their sequence every ten polls, and a `set` in
/// progress delays recovery.
fn ends_after() -> Duration {
    POLL * 12 + Duration::from_millis(2500)
}

/// The time reserved for the end of a run.
const END: Duration = Duration::from_secs(12);

/// The longest time for which a round injects faults.
const LONGEST_ROUND: Duration = Duration::from_secs(75);

/// One of the processes.
#[derive(Debug)]
struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("a worker without input")?;
        let output = child.stdout.take().ok_or("a worker without output")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    async fn order(&mut self, order: &Order) -> Outcome<()> {
        let line = serde_json::to_string(order)? + "\n";
        Ok(self.input.write_all(line.as_bytes()).await?)
    }

    async fn word(&mut self) -> Outcome<Word> {
        let mut line = String::new();
        let read = timeout(LONGEST_CALL * 4, self.output.read_line(&mut line)).await??;
        if read == 0 {
            return Err("a worker died; see its standard error".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// The state of a chaos run.
struct Storm {
    job: Job,
    cluster: Cluster,
    workers: Vec<Worker>,
    dir: TempDir,
    rng: StdRng,
    report: Report,
}

/// Runs rounds until the time is over. Calls `progress` with lines of progress.
///
/// # Errors
///
/// If the servers or the processes cannot be run.
pub async fn run(job: Job, progress: impl Fn(&str) + Sync + Send) -> Outcome<Report> {
    let workers = (0..WORKERS).map(|_| Worker::start()).collect::<Outcome<Vec<_>>>()?;
    let (cluster, dir) = (Cluster::start(job.topology, job.ahead).await?, tempfile::tempdir()?);
    let rng = sim::rng(job.seed, 0);
    let names = Deck::names(job.topology);
    let report =
        Report { faults: names.into_iter().map(|n| (n, 0)).collect(), ..Report::default() };
    let mut storm = Storm { job, cluster, workers, dir, rng, report };
    let (mut over, mut more) = (Instant::now() + job.lasting, 0);
    for round in 0.. {
        storm.round(round, over, &progress).await?;
        if job.bug.is_some() && !storm.report.violations.is_empty() {
            break;
        }
        if Instant::now() + END > over {
            let rare = storm.report.rare();
            if job.bug.is_some() || job.lasting < LONG || rare.is_empty() || more == MORE_ROUNDS {
                break;
            }
            progress(&format!("continues: {} occurred less than twice", rare.join("; ")));
            more += 1;
            over = Instant::now() + LONGEST_ROUND + END;
        }
    }
    Ok(storm.report)
}

impl Storm {
    async fn round(
        &mut self,
        number: u64,
        over: Instant,
        progress: &(impl Fn(&str) + Sync),
    ) -> Outcome<()> {
        let name = format!("storm-{number}");
        let failovers = self.cluster.failovers().await?;
        let deck = Deck::shuffled(self.cluster.topology(), number, &mut self.rng);
        self.begin(number, &name, deck.is_calm()).await?;
        self.all(&Order::Go).await?;
        sleep(Duration::from_secs(1)).await;
        let ends = (Instant::now() + LONGEST_ROUND).min(over - END.min(self.job.lasting / 2));
        let (trouble, broke) = self.trouble(&name, &deck, ends, progress).await;
        let moved = self.cluster.has_moved().await?;
        if !moved {
            broke?;
        }
        progress(&format!("round {number}: ends, and is judged"));
        let reports = self.end().await?;
        // The sentinels may report only now what they decided during the last faults.
        let again = !deck.fails_over && self.cluster.failovers().await? != failovers;
        let moved = self.cluster.has_moved().await? || moved || again;
        // Judging blocks the thread, but the proxy must keep running.
        if moved {
            // Two primaries existed for a while, and it is unknown which commands went to which.
            progress(&format!(
                "round {number}: the sentinels failed over on their own; not judged"
            ));
            return self.cluster.come_back().await;
        }
        for injected in &trouble.injected {
            *self.report.faults.entry(injected.kind.name()).or_default() += 1;
        }
        let terms = terms(deck.fails_over);
        tokio::task::block_in_place(|| self.judge(number, &reports, &trouble, terms));
        Ok(())
    }

    /// Injects the faults of servers and processes at the same time.
    async fn trouble(
        &mut self,
        name: &str,
        deck: &Deck,
        ends: Instant,
        progress: &(impl Fn(&str) + Sync),
    ) -> (Trouble, Outcome<()>) {
        let pids = self.workers.iter().filter_map(|worker| worker.child.id()).collect();
        let proxy = self.cluster.proxy().cloned();
        let mut process_target = ProcessTarget { proxy, pids, trouble: Trouble::default() };
        let (ledger, trouble) = (format!("{name}:v1:L"), Trouble::default());
        let mut server_target = ServerTarget { cluster: &mut self.cluster, ledger, trouble };
        let pauses: [Vec<_>; 2] = [&deck.servers, &deck.processes].map(|kinds| {
            let pause = |_| Duration::from_millis(self.rng.random_range(deck.pause.clone()));
            kinds.iter().map(pause).collect()
        });
        let servers = async {
            for (kind, pause) in deck.servers.iter().zip(&pauses[0]) {
                if Instant::now() > ends {
                    break;
                }
                progress(&format!("{name}: {}", kind.name()));
                server_target.inject(*kind, *pause).await?;
                sleep(*pause).await;
            }
            Ok(())
        };
        let processes = async {
            for (kind, pause) in deck.processes.iter().zip(&pauses[1]) {
                if Instant::now() > ends {
                    break;
                }
                progress(&format!("{name}: {}", kind.name()));
                process_target.inject(*kind).await?;
                sleep(*pause).await;
            }
            Ok(())
        };
        let (one, two): (Outcome<()>, Outcome<()>) = tokio::join!(servers, processes);
        (server_target.trouble.and(process_target.trouble), one.and(two))
    }

    async fn begin(&mut self, number: u64, name: &str, calm: bool) -> Outcome<()> {
        let path = self.dir.path().join(format!("source-{number}"));
        source::serve(&path)?;
        let draw = |rng: &mut StdRng| if rng.random_bool(0.6) { rng.random_range(1..8) } else { 0 };
        let tags: Vec<u8> = (0..KEYS).map(|_| draw(&mut self.rng)).collect();
        let think_ms = [15, 40, 120][self.rng.random_range(0..3)];
        for (worker, process) in self.workers.iter_mut().enumerate() {
            let round = Round {
                name: name.to_owned(),
                worker,
                seed: self.job.seed ^ (number << 20),
                way: self.cluster.way(worker),
                source: path.display().to_string(),
                tags: tags.clone(),
                actors: 16,
                think_ms,
                calm,
                bug: self.job.bug.map(|bug| bug.name().to_owned()),
            };
            process.order(&Order::Begin(round)).await?;
        }
        for worker in &mut self.workers {
            worker.word().await?;
        }
        Ok(())
    }

    async fn all(&mut self, order: &Order) -> Outcome<()> {
        for worker in &mut self.workers {
            worker.order(order).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Outcome<Vec<WorkerReport>> {
        self.all(&Order::Rest).await?;
        for worker in &mut self.workers {
            worker.word().await?;
        }
        sleep(ends_after()).await;
        self.all(&Order::Finish).await?;
        let mut all = Vec::new();
        for worker in &mut self.workers {
            if let Word::Done(report) = worker.word().await? {
                all.push(*report);
            }
        }
        Ok(all)
    }

    fn judge(&mut self, round: u64, reports: &[WorkerReport], trouble: &Trouble, terms: Terms) {
        let log = merge(reports, trouble);
        let mut found = check::check(&log, &terms).violations;
        let frontiers: Vec<_> = reports.iter().map(|report| report.frontier).collect();
        if frontiers.iter().any(|frontier| *frontier != frontiers[0]) {
            let what = format!("the ledgers differ: {frontiers:?}");
            found.push(check::Violation { rule: "L1", what, key: None, at: Default::default() });
        }
        let stalest = check::staleness(&log, &terms);
        self.report.worst_staleness_ms = self.report.worst_staleness_ms.max(stalest);
        self.report.ops += log.calls.len() as u64;
        for violation in found {
            let story = story(&log, &violation);
            let check::Violation { rule, what, .. } = violation;
            self.report.violations.push(Violation { round, rule, what, story });
        }
    }
}

/// Returns the events around a violation.
fn story(log: &Log, violation: &check::Violation) -> String {
    sim::story(log, violation.key, violation.at)
}

fn terms(fails_over: bool) -> Terms {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Terms {
        poll_ms: ms(POLL),
        // A busy machine may not run a process for a while.
        coherence_ms: ms(COHERENCE_TTL) + 1000,
        hard_ms: HARD_MS,
        late_ms: 1500,
        heals_ms: 3000,
        late_set_ms: 2000,
        fused: true,
        fails_over,
        trip_ms: None,
        strict: true,
        written: true,
        options: false,
        mixed: false,
    }
}
