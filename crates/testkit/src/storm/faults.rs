//! The faults that a chaos run injects into servers and processes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Outcome, Topology};
use super::diary::now;
use super::event::Ns;
use super::name;
use super::proxy::{Mode, Proxy};
use crate::history::STOPPED;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    KilledEmpty,
    KilledWithData,
    ServerStopped,
    WorkerStopped,
    SubscriptionsKilled,
    ClientsPaused,
    FlushAll,
    FullRefusing,
    FullEvicting,
    LedgerDeleted,
    ScriptFlush,
    ProxyCut,
    ProxyCutLate,
    ProxyDelay,
    ProxyHalfOpen,
    ProxySilent,
    /// The last writes are lost, and the old primary returns.
    FailoverLosing,
    /// The same, with everything replicated.
    Failover,
    /// The primary is frozen until its replica has replaced it.
    FailoverFrozen,
    /// The slots of the ledger and of some keys move to other servers.
    SlotsMoved,
}

use Kind::{
    ClientsPaused, Failover, FailoverFrozen, FailoverLosing, FlushAll, FullEvicting, FullRefusing,
    KilledEmpty, KilledWithData, LedgerDeleted, ProxyCut, ProxyCutLate, ProxyDelay, ProxyHalfOpen,
    ProxySilent, ScriptFlush, ServerStopped, SlotsMoved, SubscriptionsKilled, WorkerStopped,
};

/// Faults of a standalone server.
const STANDALONE: &[Kind] = &[
    KilledEmpty,
    KilledWithData,
    ServerStopped,
    SubscriptionsKilled,
    ClientsPaused,
    FlushAll,
    FullRefusing,
    FullEvicting,
    LedgerDeleted,
    ScriptFlush,
];

/// Faults of one process, injected at the same time.
const OF_A_PROCESS: &[Kind] =
    &[WorkerStopped, ProxyCut, ProxyCutLate, ProxyDelay, ProxyHalfOpen, ProxySilent];

/// Faults of one process while the servers are healthy, so that S3 bounds every answer. The
/// subscription is silent longer than a cache may go without noticing, and commands run long after
/// their callers gave up.
const OF_A_PROCESS_ALONE: &[Kind] =
    &[ProxySilent, ProxyCutLate, ProxyCutLate, ProxySilent, ProxyCutLate, ProxyCutLate];

/// Rounds that fail over wipe nothing, and the other way round: otherwise the judge could not know
/// what is left.
const FAILING_OVER: &[Kind] =
    &[FailoverLosing, SubscriptionsKilled, Failover, ScriptFlush, FailoverLosing];

const NOT_FAILING_OVER: &[Kind] = &[
    SubscriptionsKilled,
    FlushAll,
    FullRefusing,
    LedgerDeleted,
    FullEvicting,
    ScriptFlush,
    ClientsPaused,
];

const FAILING_OVER_IN_CLUSTER: &[Kind] = &[
    Failover,
    SlotsMoved,
    FailoverLosing,
    SubscriptionsKilled,
    ScriptFlush,
    SlotsMoved,
    FailoverFrozen,
];

const NOT_FAILING_OVER_IN_CLUSTER: &[Kind] = &[
    SlotsMoved,
    SubscriptionsKilled,
    FlushAll,
    LedgerDeleted,
    ScriptFlush,
    ClientsPaused,
    ServerStopped,
    SlotsMoved,
];

impl Kind {
    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            KilledEmpty => "kill -9, restart empty",
            KilledWithData => "kill -9, restart with data",
            ServerStopped => "SIGSTOP server",
            WorkerStopped => "SIGSTOP process",
            SubscriptionsKilled => "CLIENT KILL pubsub",
            ClientsPaused => "CLIENT PAUSE",
            FlushAll => "FLUSHALL",
            FullRefusing => "maxmemory noeviction",
            FullEvicting => "maxmemory allkeys-random",
            LedgerDeleted => "ledger deleted",
            ScriptFlush => "SCRIPT FLUSH",
            ProxyCut => "proxy cut",
            ProxyCutLate => "proxy cut, late delivery",
            ProxyDelay => "proxy delay 500 ms",
            ProxyHalfOpen => "proxy half-open",
            ProxySilent => "proxy half-open, subscription",
            FailoverLosing => "failover losing writes",
            Failover => "failover",
            FailoverFrozen => "failover, SIGSTOP",
            SlotsMoved => "slots moved",
        }
    }

    /// The name by which the judge knows the fault: it says how the store behaves meanwhile.
    fn judged(self) -> &'static str {
        match self {
            SubscriptionsKilled | ProxySilent => "disconnect",
            FlushAll | LedgerDeleted => "wipe",
            ScriptFlush => "script flush",
            SlotsMoved => "slots moved",
            WorkerStopped => STOPPED,
            // Includes failovers: no server answers for the keys of a dead primary until another
            // replaces it.
            _ => "L2 does not answer",
        }
    }

    /// The worker that the fault concerns; `None` means all.
    fn worker(self) -> Option<usize> {
        match self {
            ProxyCut | ProxyCutLate | ProxyDelay | ProxyHalfOpen | ProxySilent => Some(0),
            WorkerStopped => Some(1),
            _ => None,
        }
    }
}

/// The faults of a round, in random order.
#[derive(Debug)]
pub(super) struct Deck {
    /// Faults of the servers.
    pub(super) servers: Vec<Kind>,
    /// Faults of one process, injected at the same time.
    pub(super) processes: Vec<Kind>,
    pub(super) fails_over: bool,
    /// How long to wait after each, in milliseconds.
    pub(super) pause: Range<u64>,
}

impl Deck {
    pub(super) fn shuffled(topology: Topology, round: u64, rng: &mut StdRng) -> Self {
        let (servers, processes, fails_over) = match topology {
            Topology::Standalone if !round.is_multiple_of(2) => {
                (&[][..], OF_A_PROCESS_ALONE, false)
            }
            Topology::Standalone => (STANDALONE, OF_A_PROCESS, false),
            Topology::Sentinel if round.is_multiple_of(2) => {
                (FAILING_OVER, &OF_A_PROCESS[..1], true)
            }
            Topology::Sentinel => (NOT_FAILING_OVER, &OF_A_PROCESS[..1], false),
            Topology::Cluster if round.is_multiple_of(2) => {
                (FAILING_OVER_IN_CLUSTER, &OF_A_PROCESS[..1], true)
            }
            Topology::Cluster => (NOT_FAILING_OVER_IN_CLUSTER, &OF_A_PROCESS[..1], false),
        };
        let (mut servers, mut processes) = (servers.to_vec(), processes.to_vec());
        // Even a short run has a failover and moved slots.
        let first = if fails_over && topology == Topology::Cluster { 2 } else { 0 };
        servers[first..].shuffle(rng);
        processes.shuffle(rng);
        // Late commands run, and their effects are read, before the next fault.
        let pause = if servers.is_empty() { 6000..7000 } else { 200..1400 };
        Self { servers, processes, fails_over, pause }
    }

    /// The names of all faults of this topology.
    pub(super) fn names(topology: Topology) -> BTreeSet<&'static str> {
        let decks: [&[Kind]; 3] = match topology {
            Topology::Standalone => [STANDALONE, OF_A_PROCESS, OF_A_PROCESS_ALONE],
            Topology::Sentinel => [FAILING_OVER, NOT_FAILING_OVER, &OF_A_PROCESS[..1]],
            Topology::Cluster => {
                [FAILING_OVER_IN_CLUSTER, NOT_FAILING_OVER_IN_CLUSTER, &OF_A_PROCESS[..1]]
            }
        };
        decks.into_iter().flatten().map(|kind| kind.name()).collect()
    }

    /// Returns whether the servers are healthy. Then a late command has visible effects unless
    /// another write replaces them.
    pub(super) fn is_calm(&self) -> bool {
        self.servers.is_empty()
    }
}

/// An injected fault that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Injected {
    pub(super) kind: Kind,
    pub(super) from: Ns,
    pub(super) until: Ns,
}

impl Injected {
    pub(super) fn judged(&self) -> (&'static str, Option<usize>) {
        (self.kind.judged(), self.kind.worker())
    }
}

/// How a fault changed the contents of the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum DataLoss {
    Wiped {
        from: Ns,
        until: Ns,
    },
    LedgerLost {
        from: Ns,
        until: Ns,
    },
    /// Writes acknowledged after `since` are lost from `at` on.
    FailedOver {
        since: Ns,
        at: Ns,
    },
}

/// All injected faults of a round.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) injected: Vec<Injected>,
    pub(super) losses: Vec<DataLoss>,
}

impl Trouble {
    fn note(&mut self, kind: Kind, from: Ns) {
        self.injected.push(Injected { kind, from, until: now() });
    }

    /// Merges the faults of both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.injected.extend(other.injected);
        self.losses.extend(other.losses);
        self
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What is needed to inject faults into a process.
pub(super) struct ProcessTarget {
    pub(super) proxy: Option<Proxy>,
    /// The process ids of the workers.
    pub(super) pids: Vec<u32>,
    pub(super) trouble: Trouble,
}

impl ProcessTarget {
    /// Injects one fault into a process and ends it.
    pub(super) async fn inject(&mut self, kind: Kind) -> Outcome<()> {
        let from = now();
        match kind {
            WorkerStopped => {
                signal("STOP", self.pids[1])?;
                sleep(Duration::from_millis(8500)).await;
                signal("CONT", self.pids[1])?;
            }
            ProxyCut => self.proxied(Mode::Cut, SECOND * 6).await,
            ProxyCutLate => {
                self.proxied(Mode::Delay(SECOND * 5), Duration::from_millis(600)).await;
                self.proxied(Mode::CutLate, Duration::from_millis(200)).await;
            }
            ProxyDelay => self.proxied(Mode::Delay(SECOND / 2), SECOND * 3).await,
            ProxyHalfOpen => self.proxied(Mode::HalfOpen, SECOND * 8).await,
            _ => self.proxied(Mode::SilentSubscription, SECOND * 8).await,
        }
        self.trouble.note(kind, from);
        Ok(())
    }

    async fn proxied(&self, mode: Mode, lasting: Duration) {
        let Some(proxy) = &self.proxy else { return };
        proxy.set(mode);
        sleep(lasting).await;
        if mode != Mode::Delay(SECOND * 5) {
            proxy.set(Mode::Pass);
        }
    }
}

/// What is needed to inject faults into the servers.
pub(super) struct ServerTarget<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) ledger: String,
    pub(super) trouble: Trouble,
}

impl ServerTarget<'_> {
    /// Injects one fault into the servers and ends it.
    pub(super) async fn inject(&mut self, kind: Kind, some: Duration) -> Outcome<()> {
        let from = now();
        match kind {
            KilledEmpty | KilledWithData => self.killed(kind == KilledEmpty, some).await?,
            ServerStopped => {
                self.cluster.choose(None)?;
                self.cluster.primary().stop_process();
                sleep(self.cluster.longest_freeze()).await;
                self.cluster.primary().cont_process();
            }
            SubscriptionsKilled => self.subscriptions_killed().await?,
            ClientsPaused => {
                let () = self.cluster.send(&["CLIENT", "PAUSE", "1500", "ALL"]).await?;
                sleep(Duration::from_millis(1500)).await;
            }
            FlushAll => {
                self.cluster.send_to_all::<()>(&["FLUSHALL"], false).await?;
                self.trouble.losses.push(DataLoss::Wiped { from, until: now() });
            }
            FullRefusing => self.full("noeviction").await?,
            FullEvicting => self.full("allkeys-random").await?,
            LedgerDeleted => {
                self.cluster.choose(Some(&self.ledger))?;
                let _: u64 = self.cluster.send(&["DEL", &self.ledger]).await?;
                self.trouble.losses.push(DataLoss::LedgerLost { from, until: now() });
            }
            FailoverLosing | Failover | FailoverFrozen => self.failover(kind).await?,
            SlotsMoved => tokio::task::block_in_place(|| self.cluster.move_slots(&self.keys()))?,
            _ => self.cluster.send_to_all::<()>(&["SCRIPT", "FLUSH"], true).await?,
        }
        self.trouble.note(kind, from);
        Ok(())
    }

    async fn killed(&mut self, empty: bool, down: Duration) -> Outcome<()> {
        let from = now();
        self.cluster.primary().kill();
        sleep(down).await;
        let server = self.cluster.primary();
        // The start blocks until the server runs, but the proxy must keep running.
        tokio::task::block_in_place(
            || if empty { server.restart_empty() } else { server.restart() },
        );
        if empty {
            self.trouble.losses.push(DataLoss::Wiped { from, until: now() });
        }
        Ok(())
    }

    async fn subscriptions_killed(&self) -> Outcome<()> {
        let until = Instant::now() + SECOND * 2;
        while Instant::now() < until {
            self.cluster.send_to_all::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"], true).await?;
            sleep(Duration::from_millis(70)).await;
        }
        Ok(())
    }

    /// Fills the server and keeps it full for two seconds.
    async fn full(&self, policy: &str) -> Outcome<()> {
        let ballast = "x".repeat(20_000);
        for at in 0..100 {
            let key = format!("storm:ballast:{at}");
            let () = self.cluster.send(&["SET", &key, &ballast, "PX", "20000"]).await?;
        }
        let () = self.cluster.send(&["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        let until = Instant::now() + SECOND * 2;
        while Instant::now() < until {
            let info: String = self.cluster.send(&["INFO", "memory"]).await?;
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            let used: u64 = used.unwrap_or_default().trim().parse()?;
            let most = (used - used / 50).to_string();
            let () = self.cluster.send(&["CONFIG", "SET", "maxmemory", &most]).await?;
            sleep(Duration::from_millis(250)).await;
        }
        let () = self.cluster.send(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        Ok(())
    }

    async fn failover(&mut self, kind: Kind) -> Outcome<()> {
        self.cluster.choose((kind != Failover).then_some(&*self.ledger))?;
        // A write acknowledged after this moment may not precede the mark.
        let since = now();
        self.cluster.replicated().await?;
        if kind == FailoverLosing {
            self.cluster.cut_replica().await?;
            sleep(SECOND).await;
        }
        let at = now();
        self.cluster.fail_over(kind == FailoverFrozen).await?;
        self.trouble.losses.push(DataLoss::FailedOver { since, at });
        sleep(SECOND).await;
        self.cluster.come_back().await
    }

    /// Keys in slots of their own: the ledger and some records.
    fn keys(&self) -> Vec<String> {
        let prefix = self.ledger.trim_end_matches("v1:L");
        let records = (0..5).map(|key| format!("{prefix}v1:e:{}", name(key)));
        records.chain([self.ledger.clone()]).collect()
    }
}

fn signal(name: &str, pid: u32) -> Outcome<()> {
    let script = format!("kill -s {name} {pid}");
    let status = Command::new("sh").args(["-c", &script]).status()?;
    if status.success() { Ok(()) } else { Err(format!("`{script}` failed").into()) }
}
