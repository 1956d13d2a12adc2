//! The servers of a chaos run, and the commands that they get.

use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use redis::{AsyncConnectionConfig, Cmd, FromRedisValue};
use tokio::time::{Instant, sleep};

use super::event::Way;
use super::proxy::Proxy;
use crate::cluster::{ClusterServers, SERVERS};
use crate::redis::RedisServer;
use crate::sentinel::{NAME, SentinelServers};

pub(super) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How the servers are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server that writes everything to its disk before it answers.
    Standalone,
    /// A primary, a replica, and three sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

impl Topology {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

impl FromStr for Topology {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Standalone, Self::Sentinel, Self::Cluster]
            .into_iter()
            .find(|t| t.name() == name)
            .ok_or(())
    }
}

/// How far each server's clock is ahead, in milliseconds; negative values mean behind.
pub type Ahead = [i64; SERVERS];

/// The running servers.
#[derive(Debug)]
pub(super) enum Cluster {
    /// The first worker connects through the proxy.
    Standalone {
        server: RedisServer,
        proxy: Proxy,
    },
    Sentinel {
        servers: SentinelServers,
        primary: usize,
    },
    Sharded {
        servers: ClusterServers,
        /// The server that gets the injected faults.
        primary: usize,
        primaries: Vec<usize>,
    },
}

/// The longest time that a server needs to reach a state.
const SETTLES: Duration = Duration::from_secs(40);

impl Cluster {
    /// Starts the servers. With `ahead`, each server's clock is ahead by this many milliseconds.
    pub(super) async fn start(topology: Topology, ahead: Option<Ahead>) -> Outcome<Self> {
        match topology {
            Topology::Standalone => {
                let durable = ["--appendonly", "yes", "--appendfsync", "always"];
                let server = match ahead {
                    Some(ms) => RedisServer::start_ahead(ms[0], &durable),
                    None => RedisServer::start_with(&durable),
                };
                let proxy = Proxy::start(server.port()).await?;
                Ok(Self::Standalone { server, proxy })
            }
            Topology::Sentinel => {
                let servers = match ahead {
                    Some(ms) => SentinelServers::start_ahead([ms[0], ms[1]]),
                    None => SentinelServers::start(),
                };
                let cluster = Self::Sentinel { servers, primary: 0 };
                cluster.replicated().await?;
                Ok(cluster)
            }
            Topology::Cluster => {
                let partly = ["--cluster-require-full-coverage", "no"];
                let patient = ["--cluster-node-timeout", "4000", "--repl-backlog-size", "16mb"];
                let user = ["--user", "replica", "on", ">secret", "+psync", "+replconf", "+ping"];
                let access = ["--masteruser", "replica", "--masterauth", "secret"];
                let args = [&partly[..], &patient, &user, &access].concat();
                let servers = match ahead {
                    Some(ms) => ClusterServers::start_ahead(ms, &args),
                    None => ClusterServers::start_with(&args),
                };
                Ok(Self::Sharded { primaries: servers.primaries(0)?, servers, primary: 0 })
            }
        }
    }

    pub(super) fn topology(&self) -> Topology {
        match self {
            Self::Standalone { .. } => Topology::Standalone,
            Self::Sentinel { .. } => Topology::Sentinel,
            Self::Sharded { .. } => Topology::Cluster,
        }
    }

    /// Returns the endpoints that a worker uses.
    pub(super) fn way(&self, worker: usize) -> Way {
        match self {
            Self::Standalone { proxy, .. } if worker == 0 => {
                Way::Url(format!("redis://127.0.0.1:{}", proxy.port()))
            }
            Self::Standalone { server, .. } => Way::Url(server.url()),
            Self::Sentinel { servers, .. } => {
                Way::Sentinels { urls: servers.urls(), name: NAME.to_owned() }
            }
            Self::Sharded { servers, .. } => Way::Cluster { urls: servers.urls() },
        }
    }

    pub(super) fn proxy(&self) -> Option<&Proxy> {
        match self {
            Self::Standalone { proxy, .. } => Some(proxy),
            Self::Sentinel { .. } | Self::Sharded { .. } => None,
        }
    }

    /// The server that takes the writes.
    pub(super) fn primary(&mut self) -> &mut RedisServer {
        match self {
            Self::Standalone { server, .. } => server,
            Self::Sentinel { servers, primary } => servers.server(*primary),
            Self::Sharded { servers, primary, .. } => servers.server(*primary),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Standalone { server, .. } => server.port(),
            Self::Sentinel { servers, primary } => servers.ports()[*primary],
            Self::Sharded { servers, primary, .. } => servers.port(*primary),
        }
    }

    /// Sends a command to the primary.
    pub(super) async fn send<T: FromRedisValue>(&self, words: &[&str]) -> Outcome<T> {
        send(self.port(), words).await
    }

    /// Sends a command to every primary, with `replicas` to every server.
    pub(super) async fn send_to_all<T: FromRedisValue>(
        &self,
        words: &[&str],
        replicas: bool,
    ) -> Outcome<()> {
        let Self::Sharded { servers, primaries, .. } = self else {
            let _: T = self.send(words).await?;
            return Ok(());
        };
        for at in 0..SERVERS {
            if replicas || primaries.contains(&at) {
                let _: T = send(servers.port(at), words).await?;
            }
        }
        Ok(())
    }

    /// Chooses the next server that gets faults, if there are several: the owner of this key, or
    /// another one.
    pub(super) fn choose(&mut self, key: Option<&str>) -> Outcome<()> {
        let Self::Sharded { servers, primary, primaries } = self else { return Ok(()) };
        *primary = match key {
            Some(key) => servers.owner(primaries[0], key)?,
            None => *primaries.iter().find(|at| *at > primary).unwrap_or(&primaries[0]),
        };
        Ok(())
    }

    /// Moves the slots of these keys to another server.
    pub(super) fn move_slots(&self, keys: &[String]) -> Outcome<()> {
        let Self::Sharded { servers, primaries, .. } = self else { return Ok(()) };
        for key in keys {
            let from = servers.owner(primaries[0], key)?;
            let place = primaries.iter().position(|at| *at == from).unwrap_or_default();
            let to = primaries[(place + 1) % primaries.len()];
            servers.move_slot(servers.slot(from, key)?, from, to, Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// How long a server may be silent, approximately, before the others act on it.
    pub(super) fn longest_freeze(&self) -> Duration {
        Duration::from_millis(if let Self::Sharded { .. } = self { 2500 } else { 10_000 })
    }

    /// Waits until another server has replaced the primary.
    pub(super) async fn taken_over(&mut self) -> Outcome<()> {
        let Self::Sharded { servers, primary, primaries } = self else { return Ok(()) };
        let old = *primary;
        let witness = (0..SERVERS).find(|at| *at != old).unwrap_or_default();
        let after = settled("taken over", async || {
            let now = servers.primaries(witness).ok()?;
            (now.len() == primaries.len() && !now.contains(&old)).then_some(now)
        });
        *primaries = after.await?;
        Ok(())
    }

    /// Waits until the replica has everything.
    pub(super) async fn replicated(&self) -> Outcome<()> {
        if let Self::Sharded { .. } = self {
            return self.caught_up().await;
        }
        let until = Instant::now() + SETTLES;
        loop {
            match replicas_with_mark(self.port()).await {
                Ok(1..) => return Ok(()),
                _ if Instant::now() > until => return Err("the replica does not follow".into()),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The same for a cluster, where the key of the mark could belong to another server.
    async fn caught_up(&self) -> Outcome<()> {
        let info: String = self.send(&["INFO", "replication"]).await?;
        let written = number(&info, "master_repl_offset:").ok_or("no offset")?;
        settled("copied", async || {
            let info: String = self.send(&["INFO", "replication"]).await.ok()?;
            let copied = info.split("offset=").nth(1)?.split(',').next()?.parse::<u64>().ok()?;
            (copied >= written).then_some(())
        })
        .await
    }

    /// Disconnects the replica: it will lack all later writes.
    pub(super) async fn cut_replica(&self) -> Outcome<()> {
        let _: () = self.send(&["ACL", "SETUSER", "replica", "off"]).await?;
        let _: u64 = self.send(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
        Ok(())
    }

    /// Returns whether the sentinels chose another primary on their own. They do so if a busy
    /// machine delays the servers.
    pub(super) async fn has_moved(&mut self) -> Outcome<bool> {
        if let Self::Sharded { servers, primaries, .. } = self {
            let before = std::mem::replace(primaries, servers.primaries(0)?);
            return Ok(before != *primaries);
        }
        let Self::Sentinel { servers, primary } = self else { return Ok(false) };
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let named: (String, u16) = send(servers.sentinel_ports()[0], &ask).await?;
        let now = servers.ports().iter().position(|port| *port == named.1);
        let before = std::mem::replace(primary, now.unwrap_or(*primary));
        Ok(before != *primary)
    }

    /// Returns a number that grows with every failover; the primary's address may move there and
    /// back.
    pub(super) async fn failovers(&self) -> Outcome<u64> {
        let Self::Sentinel { servers, .. } = self else { return Ok(0) };
        let ask = ["SENTINEL", "MASTER", NAME];
        let said: HashMap<String, String> = send(servers.sentinel_ports()[0], &ask).await?;
        Ok(said.get("config-epoch").ok_or("the sentinels know no primary")?.parse()?)
    }

    /// Kills or freezes the primary. Returns when another server is known as the primary.
    pub(super) async fn fail_over(&mut self, frozen: bool) -> Outcome<()> {
        if let Self::Sharded { .. } = self {
            if !frozen {
                self.primary().kill();
                return self.taken_over().await;
            }
            self.primary().stop_process();
            let taken_over = self.taken_over().await;
            self.primary().cont_process();
            return taken_over;
        }
        let Self::Sentinel { servers, primary } = self else { return Ok(()) };
        servers.server(*primary).kill();
        let other = 1 - *primary;
        let port = servers.ports()[other];
        settled("promoted", async || {
            let role: Vec<redis::Value> = send(port, &["ROLE"]).await.ok()?;
            (redis::from_redis_value::<String>(role.first()?.clone()).ok()? == "master")
                .then_some(())
        })
        .await?;
        *primary = other;
        Ok(())
    }

    /// Restarts the old primary; the sentinels make it a replica.
    pub(super) async fn come_back(&mut self) -> Outcome<()> {
        if let Self::Sharded { servers, primary, .. } = self {
            if send::<String>(servers.port(*primary), &["PING"]).await.is_err() {
                tokio::task::block_in_place(|| servers.server(*primary).restart());
            }
            return settled("in a whole cluster", async || servers.is_settled().then_some(()))
                .await;
        }
        let Self::Sentinel { servers, primary } = self else { return Ok(()) };
        let old = 1 - *primary;
        servers.server(old).restart();
        let port = servers.ports()[old];
        settled("a replica again", async || {
            let info: String = send(port, &["INFO", "replication"]).await.ok()?;
            (info.contains("role:slave") && info.contains("master_link_status:up")).then_some(())
        })
        .await?;
        self.replicated().await
    }
}

async fn settled<T>(what: &str, is: impl AsyncFn() -> Option<T>) -> Outcome<T> {
    let until = Instant::now() + SETTLES;
    loop {
        if let Some(found) = is().await {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("the server is not {what} in time").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Finds the number after a name in the output of `INFO`.
fn number(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

async fn connect(port: u16) -> Outcome<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

pub(super) async fn send<T: FromRedisValue>(port: u16, words: &[&str]) -> Outcome<T> {
    let mut connection = connect(port).await?;
    let mut cmd = Cmd::new();
    for word in words {
        cmd.arg(*word);
    }
    Ok(cmd.query_async(&mut connection).await?)
}

/// Writes a mark and returns how many replicas have it, and so everything before it.
async fn replicas_with_mark(port: u16) -> Outcome<u32> {
    let mut connection = connect(port).await?;
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg("storm:mark").arg(2).ignore().cmd("WAIT").arg(1).arg(1000);
    let (replicas,): (u32,) = pipe.query_async(&mut connection).await?;
    Ok(replicas)
}
