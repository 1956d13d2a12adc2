//! A primary, a replica and three sentinels for one test, on the loopback address.

use std::fs;
use std::process::{Command, Stdio};

use crinkle_l2_redis::acl_rule;
use tempfile::TempDir;

use crate::process::{Process, free_port};
use crate::redis::RedisServer;

/// The name of the primary.
pub const NAME: &str = "mymaster";

/// A user of both servers that accepts any password. It has only the permissions that a cache
/// behind sentinels needs, on all keys and channels.
pub const USER: &str = "behind-sentinels";

/// How long a server must be silent before the sentinels consider it failed, in milliseconds.
const DOWN_AFTER_MS: u32 = 2000;

/// A primary and its replica, watched by three sentinels. All are killed when dropped.
///
/// ```no_run
/// use crinkle_testkit::sentinel::{NAME, SentinelServers};
///
/// let mut servers = SentinelServers::start();
/// println!("ask {:?} for {NAME}", servers.urls());
/// servers.server(0).kill();
/// ```
#[derive(Debug)]
pub struct SentinelServers {
    servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl SentinelServers {
    /// Starts all servers. The first server is the primary. The other replicates as the user
    /// `replica`, which the primary can disable.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_each(RedisServer::start_with, RedisServer::start_with)
    }

    /// Starts all servers. Each wall clock of the two is ahead by this many milliseconds; negative
    /// values mean behind.
    ///
    /// # Panics
    ///
    /// If `redis-server` or `cc` is not installed, or a server does not come up.
    #[must_use]
    pub fn start_ahead(ms: [i64; 2]) -> Self {
        let [one, two] = ms.map(|ms| move |args: &[&str]| RedisServer::start_ahead(ms, args));
        Self::start_each(one, two)
    }

    fn start_each(
        first: impl Fn(&[&str]) -> RedisServer,
        second: impl Fn(&[&str]) -> RedisServer,
    ) -> Self {
        let user = ["--user", "replica", "on", ">secret", "+psync", "+replconf", "+ping"];
        let rule = acl_rule("");
        let app = ["--user", USER, "on", "nopass"].into_iter().chain(rule.split_whitespace());
        let app = app.collect::<Vec<_>>();
        let access = ["--masteruser", "replica", "--masterauth", "secret"];
        let access = [&user[..], &app[..], &access[..]].concat();
        let fast = ["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "16mb"];
        let args = [&access[..], &fast[..]].concat();
        let primary = first(&args);
        let port = primary.port().to_string();
        let of = ["--replicaof", "127.0.0.1", &port];
        let replica = second(&[&args[..], &of[..]].concat());
        let sentinels = (0..3).map(|_| Sentinel::start(primary.port())).collect();
        Self { servers: [primary, replica], sentinels }
    }

    /// One of the two servers.
    pub fn server(&mut self, at: usize) -> &mut RedisServer {
        &mut self.servers[at]
    }

    /// The ports of the two servers.
    #[must_use]
    pub fn ports(&self) -> [u16; 2] {
        [self.servers[0].port(), self.servers[1].port()]
    }

    /// The ports of the sentinels.
    #[must_use]
    pub fn sentinel_ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port).collect()
    }

    /// The URLs of the sentinels.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels
            .iter()
            .map(|sentinel| format!("redis://127.0.0.1:{}", sentinel.port))
            .collect()
    }
}

impl Sentinel {
    fn start(primary: u16) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let path = dir.path().join("sentinel.conf");
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 1\n",
            dir.path().display()
        );
        fs::write(&path, config).expect("the configuration is written");
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        let log = fs::File::create(dir.path().join("log")).expect("the log file is created");
        command.arg(path).arg("--sentinel").stdout(log).stderr(Stdio::null());
        let mut process = Process::default();
        process.start(&mut command, "See `RedisServer` on how to install it");
        assert!(process.answers(port, "PING", &["+PONG"]), "a sentinel does not come up");
        Self { port, _process: process, _dir: dir }
    }
}
