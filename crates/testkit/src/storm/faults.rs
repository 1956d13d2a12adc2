//! What befalls the servers and the processes, and how it ends.

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

/// One kind of trouble.
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
    ProxyDeaf,
    /// The last writes are lost, and the old primary comes back.
    FailoverLosing,
    /// The same, with everything replicated.
    Failover,
    /// The primary is frozen until its replica has taken its place.
    FailoverFrozen,
    /// The slots of the ledger and of some keys move to other servers.
    SlotsMoved,
}

use Kind::{
    ClientsPaused, Failover, FailoverFrozen, FailoverLosing, FlushAll, FullEvicting, FullRefusing,
    KilledEmpty, KilledWithData, LedgerDeleted, ProxyCut, ProxyCutLate, ProxyDeaf, ProxyDelay,
    ProxyHalfOpen, ScriptFlush, ServerStopped, SlotsMoved, SubscriptionsKilled, WorkerStopped,
};

/// What befalls the server of all.
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

/// What befalls one process, meanwhile.
const OF_A_PROCESS: &[Kind] =
    &[WorkerStopped, ProxyCut, ProxyCutLate, ProxyDelay, ProxyHalfOpen, ProxyDeaf];

/// What befalls one process while the servers are left alone, and every answer has its bound: longer deaf than
/// a cache may go without noticing, and commands that run when their caller has given them up long ago.
const OF_A_PROCESS_ALONE: &[Kind] =
    &[ProxyDeaf, ProxyCutLate, ProxyCutLate, ProxyDeaf, ProxyCutLate, ProxyCutLate];

/// In rounds that fail over nothing is wiped, and the other way round: nobody could say what is left.
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
            ProxyDeaf => "proxy half-open, subscription",
            FailoverLosing => "failover losing writes",
            Failover => "failover",
            FailoverFrozen => "failover, SIGSTOP",
            SlotsMoved => "slots moved",
        }
    }

    /// Whether the store does not answer as it should meanwhile. By the names that the judge knows.
    fn judged(self) -> &'static str {
        match self {
            SubscriptionsKilled | ProxyDeaf => "disconnect",
            FlushAll | LedgerDeleted => "wipe",
            ScriptFlush => "script flush",
            SlotsMoved => "slots moved",
            WorkerStopped => STOPPED,
            // Failovers, too: nobody answers for the keys of a primary until another has taken its place.
            _ => "L2 does not answer",
        }
    }

    /// Which worker it concerns; all, if none.
    fn worker(self) -> Option<usize> {
        match self {
            ProxyCut | ProxyCutLate | ProxyDelay | ProxyHalfOpen | ProxyDeaf => Some(0),
            WorkerStopped => Some(1),
            _ => None,
        }
    }
}

/// What befalls a round, in some order.
#[derive(Debug)]
pub(super) struct Deck {
    /// What befalls the servers.
    pub(super) servers: Vec<Kind>,
    /// What befalls one process meanwhile.
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
        // However short a run is, a primary dies in it and slots move.
        let first = if fails_over && topology == Topology::Cluster { 2 } else { 0 };
        servers[first..].shuffle(rng);
        processes.shuffle(rng);
        // What is late arrives, and is read, before the next one.
        let pause = if servers.is_empty() { 6000..7000 } else { 200..1400 };
        Self { servers, processes, fails_over, pause }
    }

    /// Everything that befalls servers set up like this.
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

    /// Whether the servers are left alone: then what is late shows, unless it is overwritten.
    pub(super) fn is_calm(&self) -> bool {
        self.servers.is_empty()
    }
}

/// A fault that was in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Struck {
    pub(super) kind: Kind,
    pub(super) from: Ns,
    pub(super) until: Ns,
}

impl Struck {
    pub(super) fn judged(&self) -> (&'static str, Option<usize>) {
        (self.kind.judged(), self.kind.worker())
    }
}

/// What a fault did to what the store holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    Wiped {
        from: Ns,
        until: Ns,
    },
    LedgerLost {
        from: Ns,
        until: Ns,
    },
    /// What was answered after `since` is lost from `at` on.
    FailedOver {
        since: Ns,
        at: Ns,
    },
}

/// Everything that injected a round.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) struck: Vec<Struck>,
    pub(super) blows: Vec<Blow>,
}

impl Trouble {
    fn note(&mut self, kind: Kind, from: Ns) {
        self.struck.push(Struck { kind, from, until: now() });
    }

    /// The trouble of both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.struck.extend(other.struck);
        self.blows.extend(other.blows);
        self
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Where a process is, for what befalls it.
pub(super) struct Stage {
    pub(super) proxy: Option<Proxy>,
    /// The process ids of the workers.
    pub(super) pids: Vec<u32>,
    pub(super) trouble: Trouble,
}

impl Stage {
    /// One fault of a process from its beginning to its end.
    pub(super) async fn strike(&mut self, kind: Kind) -> Outcome<()> {
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
            _ => self.proxied(Mode::Deaf, SECOND * 8).await,
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

/// Where the servers are, for what befalls them.
pub(super) struct Scene<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) ledger: String,
    pub(super) trouble: Trouble,
}

impl Scene<'_> {
    /// One fault of the servers from its beginning to its end.
    pub(super) async fn strike(&mut self, kind: Kind, some: Duration) -> Outcome<()> {
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
                let () = self.cluster.tell(&["CLIENT", "PAUSE", "1500", "ALL"]).await?;
                sleep(Duration::from_millis(1500)).await;
            }
            FlushAll => {
                self.cluster.tell_all::<()>(&["FLUSHALL"], false).await?;
                self.trouble.blows.push(Blow::Wiped { from, until: now() });
            }
            FullRefusing => self.full("noeviction").await?,
            FullEvicting => self.full("allkeys-random").await?,
            LedgerDeleted => {
                self.cluster.choose(Some(&self.ledger))?;
                let _: u64 = self.cluster.tell(&["DEL", &self.ledger]).await?;
                self.trouble.blows.push(Blow::LedgerLost { from, until: now() });
            }
            FailoverLosing | Failover | FailoverFrozen => self.failover(kind).await?,
            SlotsMoved => tokio::task::block_in_place(|| self.cluster.move_slots(&self.keys()))?,
            _ => self.cluster.tell_all::<()>(&["SCRIPT", "FLUSH"], true).await?,
        }
        self.trouble.note(kind, from);
        Ok(())
    }

    async fn killed(&mut self, empty: bool, down: Duration) -> Outcome<()> {
        let from = now();
        self.cluster.primary().kill();
        sleep(down).await;
        let server = self.cluster.primary();
        // Starting waits for the server, and must not hold up the proxy.
        tokio::task::block_in_place(
            || if empty { server.restart_empty() } else { server.restart() },
        );
        if empty {
            self.trouble.blows.push(Blow::Wiped { from, until: now() });
        }
        Ok(())
    }

    async fn subscriptions_killed(&self) -> Outcome<()> {
        let until = Instant::now() + SECOND * 2;
        while Instant::now() < until {
            self.cluster.tell_all::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"], true).await?;
            sleep(Duration::from_millis(70)).await;
        }
        Ok(())
    }

    /// Fills the server, and lets it run full for a while.
    async fn full(&self, policy: &str) -> Outcome<()> {
        let ballast = "x".repeat(20_000);
        for at in 0..100 {
            let key = format!("storm:ballast:{at}");
            let () = self.cluster.tell(&["SET", &key, &ballast, "PX", "20000"]).await?;
        }
        let () = self.cluster.tell(&["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        let until = Instant::now() + SECOND * 2;
        while Instant::now() < until {
            let info: String = self.cluster.tell(&["INFO", "memory"]).await?;
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            let used: u64 = used.unwrap_or_default().trim().parse()?;
            let most = (used - used / 50).to_string();
            let () = self.cluster.tell(&["CONFIG", "SET", "maxmemory", &most]).await?;
            sleep(Duration::from_millis(250)).await;
        }
        let () = self.cluster.tell(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        Ok(())
    }

    async fn failover(&mut self, kind: Kind) -> Outcome<()> {
        self.cluster.choose((kind != Failover).then_some(&*self.ledger))?;
        // What was answered after this may have missed the mark.
        let since = now();
        self.cluster.replicated().await?;
        if kind == FailoverLosing {
            self.cluster.cut_replica().await?;
            sleep(SECOND).await;
        }
        let at = now();
        self.cluster.fail_over(kind == FailoverFrozen).await?;
        self.trouble.blows.push(Blow::FailedOver { since, at });
        sleep(SECOND).await;
        self.cluster.come_back().await
    }

    /// What is in slots of its own: the ledger and some records.
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
