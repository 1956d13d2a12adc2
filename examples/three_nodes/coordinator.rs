//! The coordinator: it starts the server and the nodes, runs the rounds, and checks the results.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crinkle::Moment;
use crinkle_examples::{human, now, percentile};
use crinkle_testkit::redis::RedisServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::writer::Change;
use crate::{BOUND, PRICES};

const ROUNDS: usize = 200;
const READERS: usize = 2;

pub(crate) async fn run() -> Result<()> {
    let server = RedisServer::start();
    let mut cluster = Cluster::start(&server.url()).await?;
    println!("a private redis-server on port {}, and three processes:", server.port());
    println!(
        "  writer {}, reader 1 {}, reader 2 {}",
        cluster.pids[0], cluster.pids[1], cluster.pids[2]
    );
    println!(
        "entries live for 10 min; a reader asks for all {PRICES} prices about every ms, one by one;\n\
         loading one takes 2 ms or more\n"
    );

    let mut taken = Taken::default();
    for round in 1..=ROUNDS {
        if round == ROUNDS / 2 {
            taken.disconnected = cluster.change(Change::Disconnect).await?;
            taken.by_tag.push(taken.disconnected);
        } else {
            taken.by_tag.push(cluster.change(Change::Tag).await?);
        }
        if round % 5 == 0 {
            taken.by_key.push(cluster.change(Change::Remove(round / 5 % PRICES)).await?);
            taken.by_set.push(cluster.change(Change::Set((round / 5 + 3) % PRICES)).await?);
        }
    }
    println!("{:<31}{:>7}{:>11}{:>11}{:>11}", "time until served", "rounds", "p50", "p99", "max");
    print_times("change + remove_by_tag", &taken.by_tag);
    print_times("change + remove", &taken.by_key);
    print_times("change + set", &taken.by_set);
    println!("(from the call of the removal or set until all changed prices were served;");
    println!(
        " in round {} the server dropped every subscription just before the removal:",
        ROUNDS / 2
    );
    println!(
        " reader 1 took {}, reader 2 {})\n",
        human(taken.disconnected[0]),
        human(taken.disconnected[1])
    );

    // The bound of every round must have passed before the readers stop.
    sleep(BOUND + Duration::from_secs(1)).await;
    cluster.conclude().await
}

/// The times of each reader, by round.
type Times = Vec<[Duration; READERS]>;

#[derive(Debug, Default)]
struct Taken {
    by_tag: Times,
    by_key: Times,
    by_set: Times,
    disconnected: [Duration; READERS],
}

fn print_times(what: &str, times: &Times) {
    for reader in 0..READERS {
        let mut of: Vec<_> = times.iter().map(|round| round[reader]).collect();
        of.sort_unstable();
        let [p50, p99, max] = [50, 99, 100].map(|percent| human(percentile(&of, percent)));
        let who = format!("{what}, reader {}", reader + 1);
        println!("  {who:<29}{:>7}{p50:>11}{p99:>11}{max:>11}", of.len());
    }
}

/// The three processes.
#[derive(Debug)]
struct Cluster {
    writer: Process,
    readers: [Reader; READERS],
    pids: [u32; 1 + READERS],
    version: u64,
}

impl Cluster {
    async fn start(url: &str) -> Result<Self> {
        // Starts them one after the other: the writer fills the source of truth before a reader
        // reads it.
        let writer = Process::start("writer", url).await?;
        let readers = [
            Reader { process: Process::start("reader", url).await?, seen: [0; PRICES] },
            Reader { process: Process::start("reader", url).await?, seen: [0; PRICES] },
        ];
        let pids = [writer.pid(), readers[0].process.pid(), readers[1].process.pid()];
        let mut cluster = Self { writer, readers, pids, version: 1 };
        for reader in &mut cluster.readers {
            reader.right(0..PRICES, 1).await?;
        }
        Ok(cluster)
    }

    /// Runs one round; returns how long each reader took to serve only the new version.
    async fn change(&mut self, change: Change) -> Result<[Duration; READERS]> {
        self.version += 1;
        let version = self.version;
        self.writer.send(&format!("{} {version}", change.encode())).await?;
        let answer = self.writer.receive().await?;
        let (called, acknowledged) = answer.split_once(' ').context("the writer's answer")?;
        let called = Moment::from_nanos(called.parse()?);
        for price in change.prices() {
            for reader in &mut self.readers {
                reader.process.send(&format!("{price} {version} {acknowledged}")).await?;
            }
        }
        let mut times = [Duration::ZERO; READERS];
        for (reader, time) in self.readers.iter_mut().zip(&mut times) {
            let right = timeout(BOUND * 3, reader.right(change.prices(), version)).await;
            *time = right
                .context("a reader did not serve the new version within three times the bound")??
                .since(called);
        }
        // Long enough for the caches to be warm again, and without a fixed period.
        sleep(Duration::from_millis(40 + now().as_nanos() % 60)).await;
        Ok(times)
    }

    /// Ends the processes and checks their results.
    async fn conclude(self) -> Result<()> {
        let Self { writer, readers, .. } = self;
        let (mut late, mut back) = (0, 0);
        for (number, reader) in readers.into_iter().enumerate() {
            let [reads, stale, reader_late, reader_back, l1, l2, loads] = reader.end().await?;
            println!(
                "reader {}: {reads} reads: {l1} from L1, {l2} from L2, {loads} factory calls; \
                 {stale} answers marked stale",
                number + 1
            );
            late += reader_late;
            back += reader_back;
        }
        writer.end().await?;
        println!("older after newer: {back}");
        println!("stale after bound: {late}");
        if late + back > 0 {
            bail!("a reader served an old value");
        }
        Ok(())
    }
}

/// A reader process, and the versions that it reported.
#[derive(Debug)]
struct Reader {
    process: Process,
    seen: [u64; PRICES],
}

impl Reader {
    /// Waits until the reader has served this version, or a newer one, of all these prices. Returns
    /// when it served the last of them.
    async fn right(&mut self, prices: std::ops::Range<usize>, version: u64) -> Result<Moment> {
        let mut at = Moment::default();
        while self.seen[prices.clone()].iter().any(|seen| *seen < version) {
            let line = self.process.receive().await?;
            let saw = line
                .strip_prefix("saw ")
                .with_context(|| format!("unexpected line from a reader: {line:?}"))?;
            let numbers: Vec<u64> = saw.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [price, version, when] = numbers[..] else {
                bail!("unexpected line from a reader: {line:?}")
            };
            self.seen[usize::try_from(price)?] = version;
            at = at.max(Moment::from_nanos(when));
        }
        Ok(at)
    }

    /// Ends the process; returns its counts.
    async fn end(mut self) -> Result<[u64; 7]> {
        drop(self.process.input.take());
        let line = self.process.receive().await?;
        let counts = line
            .strip_prefix("done ")
            .with_context(|| format!("unexpected line from a reader: {line:?}"))?;
        let counts: Vec<u64> = counts.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        self.process.end().await?;
        counts.try_into().map_err(|_| anyhow::anyhow!("a reader's counts: {line:?}"))
    }
}

/// A node process, driven line by line.
#[derive(Debug)]
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program in a role and waits until it is ready. It ends with its input, so it
    /// never outlives the coordinator.
    async fn start(role: &str, url: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut process = Self { child, input, output };
        let line = process.receive().await?;
        anyhow::ensure!(line == "ready", "unexpected line from the {role}: {line:?}");
        Ok(process)
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    async fn send(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        Ok(input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn receive(&mut self) -> Result<String> {
        self.output.next_line().await?.context("a node ended too early")
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input.take());
        let status = timeout(Duration::from_secs(10), self.child.wait()).await??;
        anyhow::ensure!(status.success(), "a node ended with {status}");
        Ok(())
    }
}
