//! A cluster of six servers for one test, on the loopback address: three primaries with a replica
//! each.

use std::error::Error;
use std::thread;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use crate::ability::Ability;
use crate::redis::RedisServer;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The number of servers.
pub const SERVERS: usize = 6;

/// The number of servers that hold slots.
const PRIMARIES: u16 = 3;

/// The number of slots.
const SLOTS: u16 = 16_384;

/// How long a server must be silent before the others consider it failed, in milliseconds.
const NODE_TIMEOUT_MS: &str = "2000";

/// How often to check whether the cluster has reached a state.
const TRIES: usize = 2000;
const PAUSE: Duration = Duration::from_millis(20);

/// Six servers. All are killed when dropped. The calls block until the servers are ready.
///
/// ```no_run
/// use crinkle_testkit::cluster::ClusterServers;
///
/// let mut servers = ClusterServers::start();
/// println!("one of {:?} is enough to find the others", servers.urls());
/// servers.fail_over(0).expect("its replica takes over");
/// ```
#[derive(Debug)]
pub struct ClusterServers {
    servers: Vec<RedisServer>,
    /// The node ids of the servers in the cluster.
    ids: Vec<String>,
}

impl ClusterServers {
    /// Starts all servers. The first three hold slots, and the others are their replicas.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed, or the servers do not find each other.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts all servers with more arguments, for example
    /// `["--cluster-require-full-coverage", "no"]`.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed, or the servers do not find each other.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::start_each(|_| args.clone())
    }

    /// Starts all servers, each with more arguments of its own.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed, or the servers do not find each other.
    #[must_use]
    pub fn start_each(args: impl Fn(usize) -> Vec<String>) -> Self {
        Self::join_all((0..SERVERS).map(|at| start(None, &args(at))).collect())
    }

    /// Starts all servers with more arguments. Each wall clock is ahead by this many milliseconds
    /// (negative values mean behind) and can be [set](RedisServer::set_ahead).
    ///
    /// # Panics
    ///
    /// If `redis-server` or `cc` is not installed, or the servers do not find each other.
    #[must_use]
    pub fn start_ahead(ms: [i64; SERVERS], args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::join_all(ms.iter().map(|ms| start(Some(*ms), &args)).collect())
    }

    fn join_all(servers: Vec<RedisServer>) -> Self {
        let mut cluster = Self { servers, ids: Vec::new() };
        cluster.join().expect("the servers become a cluster");
        cluster
    }

    /// The URLs of all servers.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }

    /// The URLs of all servers, for a user with only the permissions that a cache needs.
    #[must_use]
    pub fn app_urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::app_url).collect()
    }

    /// The port of one server.
    #[must_use]
    pub fn port(&self, at: usize) -> u16 {
        self.servers[at].port()
    }

    /// One server.
    pub fn server(&mut self, at: usize) -> &mut RedisServer {
        &mut self.servers[at]
    }

    /// Sends a command to one server.
    ///
    /// # Errors
    ///
    /// If it does not answer within five seconds, or answers with an error.
    pub fn ask<T: FromRedisValue>(&self, at: usize, words: &[&str]) -> Outcome<T> {
        let patience = Duration::from_secs(5);
        let client = redis::Client::open(self.servers[at].url())?;
        let mut connection = client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        let mut cmd = Cmd::new();
        for word in words {
            cmd.arg(*word);
        }
        Ok(cmd.query(&mut connection)?)
    }

    /// The servers that hold slots, as the one at `seen_by` sees it.
    ///
    /// # Errors
    ///
    /// If that server does not answer.
    pub fn primaries(&self, seen_by: usize) -> Outcome<Vec<usize>> {
        let nodes: String = self.ask(seen_by, &["CLUSTER", "NODES"])?;
        let holds = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            words.len() > 8 && words[2].contains("master") && !words[2].contains("fail")
        };
        let ids = nodes.lines().filter(holds).filter_map(|line| line.split(' ').next());
        let places = ids.filter_map(|id| self.ids.iter().position(|known| known == id));
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        Ok(places)
    }

    /// The server that holds the slot of a key.
    ///
    /// # Errors
    ///
    /// If `seen_by` does not answer, or knows no owner.
    pub fn owner(&self, seen_by: usize, key: &str) -> Outcome<usize> {
        let slot: u16 = self.ask(seen_by, &["CLUSTER", "KEYSLOT", key])?;
        let ranges: Vec<Vec<redis::Value>> = self.ask(seen_by, &["CLUSTER", "SLOTS"])?;
        for range in ranges {
            let (first, last, node): (u16, u16, (String, u16, String)) = (
                redis::from_redis_value(range[0].clone())?,
                redis::from_redis_value(range[1].clone())?,
                redis::from_redis_value(redis::Value::Array(match &range[2] {
                    redis::Value::Array(node) => node[..3].to_vec(),
                    _ => Vec::new(),
                }))?,
            );
            if (first..=last).contains(&slot) {
                let owner = self.ids.iter().position(|id| *id == node.2);
                return owner.ok_or_else(|| "the slot's owner is not one of these servers".into());
            }
        }
        Err("no server holds the slot".into())
    }

    /// Kills a primary; returns the server that replaced it.
    ///
    /// # Errors
    ///
    /// If no server replaces it in time.
    pub fn fail_over(&mut self, primary: usize) -> Outcome<usize> {
        // The others may not know its replica yet; the primary does.
        settled("it has a replica", || self.replica_of(primary).is_some())?;
        let replica = self.replica_of(primary).ok_or("it has no replica")?;
        self.servers[primary].kill();
        let others: Vec<_> = (0..SERVERS).filter(|at| *at != primary).collect();
        settled("the replica takes over", || {
            others.iter().all(|at| {
                self.primaries(*at).is_ok_and(|primaries| primaries.contains(&replica))
                    && self.is_whole(*at)
            })
        })?;
        Ok(replica)
    }

    /// Returns the replica of a primary, as the primary sees it.
    fn replica_of(&self, primary: usize) -> Option<usize> {
        let nodes: String = self.ask(primary, &["CLUSTER", "NODES"]).ok()?;
        let mut followers = nodes.lines().filter(|line| line.contains(&self.ids[primary]));
        followers.find_map(|line| {
            let own = line.split(' ').next()?;
            let at = self.ids.iter().position(|known| known == own)?;
            (at != primary).then_some(at)
        })
    }

    /// Restarts a killed server; returns when the cluster is healthy and the server is a replica in
    /// sync.
    ///
    /// # Errors
    ///
    /// If this takes too long.
    pub fn come_back(&mut self, at: usize) -> Outcome<()> {
        self.servers[at].restart();
        self.settle()
    }

    /// Waits until [the cluster is settled](Self::is_settled).
    ///
    /// # Errors
    ///
    /// If this takes too long.
    pub fn settle(&self) -> Outcome<()> {
        settled("the cluster is whole, and its replicas follow", || self.is_settled())
    }

    /// Returns whether all servers agree that the same primaries hold all slots, and every replica
    /// is in sync.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let Ok(primaries) = self.primaries(0) else { return false };
        let agrees = |at| self.primaries(at).is_ok_and(|seen| seen == primaries);
        primaries.len() == usize::from(PRIMARIES)
            && (0..SERVERS).all(|at| self.is_whole(at) && self.follows(at) && agrees(at))
    }

    /// Moves a slot with its keys from one primary to another, with `pause` between two keys.
    ///
    /// # Errors
    ///
    /// If a server answers with an error. The slot may then be moved in part.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize, pause: Duration) -> Outcome<()> {
        let slot = slot.to_string();
        let set = |at: usize, how: &str, id: usize| {
            self.ask::<()>(at, &["CLUSTER", "SETSLOT", &slot, how, &self.ids[id]])
        };
        set(to, "IMPORTING", from)?;
        set(from, "MIGRATING", to)?;
        let port = self.servers[to].port().to_string();
        loop {
            let ask = ["CLUSTER", "GETKEYSINSLOT", &slot, "1"];
            let keys: Vec<String> = self.ask(from, &ask)?;
            thread::park_timeout(pause);
            let Some(key) = keys.first() else { break };
            let _: String = self.ask(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])?;
        }
        set(to, "NODE", to)?;
        set(from, "NODE", to)?;
        for at in self.primaries(to)? {
            // The other servers learn of the move anyway.
            drop(set(at, "NODE", to));
        }
        Ok(())
    }

    /// The slot of a key.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn slot(&self, at: usize, key: &str) -> Outcome<u16> {
        self.ask(at, &["CLUSTER", "KEYSLOT", key])
    }

    fn is_whole(&self, at: usize) -> bool {
        let info: Outcome<String> = self.ask(at, &["CLUSTER", "INFO"]);
        info.is_ok_and(|info| {
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
        })
    }

    fn follows(&self, at: usize) -> bool {
        let info: Outcome<String> = self.ask(at, &["INFO", "replication"]);
        info.is_ok_and(|info| info.contains("role:master") || info.contains("_link_status:up"))
    }

    fn join(&mut self) -> Outcome<()> {
        let ids = (0..SERVERS).map(|at| self.ask(at, &["CLUSTER", "MYID"]));
        self.ids = ids.collect::<Outcome<_>>()?;
        let share = SLOTS / PRIMARIES + 1;
        for at in 0..SERVERS {
            let () = self.ask(at, &["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])?;
        }
        for at in 1..SERVERS {
            let port = self.servers[at].port();
            let bus: Option<(String, String)> =
                self.ask(at, &["CONFIG", "GET", "cluster-port"]).ok();
            // Before Redis 7.0 the bus port cannot be chosen.
            let bus = bus.map_or_else(|| (port + 10_000).to_string(), |(_, bus)| bus);
            let () = self.ask(0, &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus])?;
        }
        for at in 0..PRIMARIES {
            let first = share * at;
            let slots = (first..(first + share).min(SLOTS)).map(|slot| slot.to_string());
            let slots: Vec<_> = slots.collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            let () = self.ask(at.into(), &words.collect::<Vec<_>>())?;
        }
        settled("the servers know each other", || {
            (0..SERVERS).all(|at| {
                let nodes: Outcome<String> = self.ask(at, &["CLUSTER", "NODES"]);
                nodes.is_ok_and(|nodes| self.ids.iter().all(|id| nodes.contains(id)))
            })
        })?;
        let primaries = usize::from(PRIMARIES);
        for at in primaries..SERVERS {
            let () = self.ask(at, &["CLUSTER", "REPLICATE", &self.ids[at - primaries]])?;
        }
        self.settle()
    }
}

fn start(ahead: Option<i64>, args: &[String]) -> RedisServer {
    let fast = ["--cluster-node-timeout", NODE_TIMEOUT_MS, "--repl-diskless-sync-delay", "0"];
    let args: Vec<_> = fast.into_iter().chain(args.iter().map(String::as_str)).collect();
    RedisServer::start_member(Ability::ClusterPort.is_there(), ahead, &args)
}

fn settled(what: &str, is: impl Fn() -> bool) -> Outcome<()> {
    for _ in 0..TRIES {
        if is() {
            return Ok(());
        }
        thread::park_timeout(PAUSE);
    }
    Err(format!("waited too long until {what}").into())
}
