//! A real `redis-server` for one test, on a free port of the loopback address, with its own
//! directory.

use std::env;
use std::fs::{self, File};
use std::process::Command;
use std::time::SystemTime;

use crinkle_l2_redis::acl_rule;
use tempfile::TempDir;

use crate::process::{self, Process, free_port_below, happens};
use crate::skew;

/// The user of [`RedisServer::app_url`].
const APP: &str = "app";

/// More than the time of a round trip, and less than any clock step of a test.
const CLOCK_ERROR_MS: u64 = 500;

/// A running server; killed when dropped. The program is the environment variable `REDIS_SERVER`,
/// or `redis-server` on the PATH.
///
/// The calls block for the few milliseconds a server takes to start.
///
/// ```no_run
/// use crinkle_testkit::redis::RedisServer;
///
/// let mut server = RedisServer::start();
/// println!("listening at {}", server.url());
/// server.kill();
/// server.restart();
/// ```
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    args: Vec<String>,
    /// Whether the clock of the server can be set.
    has_clock: bool,
    process: Process,
}

impl RedisServer {
    /// Starts an empty server without persistence.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, for example `["--maxmemory", "2mb"]`.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        Self::down_with(free_port(), args).up()
    }

    /// Starts one server of a cluster with more arguments; `ahead` is as for
    /// [`start_ahead`](Self::start_ahead). `has_bus_port` says whether the port of the cluster bus
    /// can be chosen.
    pub(crate) fn start_member(has_bus_port: bool, ahead: Option<i64>, args: &[&str]) -> Self {
        let (port, bus);
        if has_bus_port {
            (port, bus) = (free_port(), vec!["--cluster-port".to_owned(), free_port().to_string()]);
        } else {
            (port, bus) = (free_port_below(10_000), Vec::new());
        }
        let mut server = Self::down_with(port, args);
        server.args.extend(["--cluster-enabled", "yes"].map(ToOwned::to_owned));
        server.args.extend(bus);
        if let Some(ms) = ahead {
            server.has_clock = true;
            server.set_ahead(ms);
        }
        server.up()
    }

    /// Starts a server with more arguments; returns its log if it does not start.
    pub(crate) fn try_start_with(args: &[&str]) -> Result<Self, String> {
        let mut server = Self::down_with(free_port(), args);
        server.try_spawn().map(|()| server)
    }

    /// Starts a server without these commands, as if its configuration renamed them. It has only
    /// the default user.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start_without(commands: &[&str]) -> Self {
        let mut server = Self::down();
        let renamed = commands.iter().flat_map(|command| ["--rename-command", command, ""]);
        server.args = renamed.map(ToOwned::to_owned).collect();
        server.spawn();
        server
    }

    /// Starts a server with more arguments. Its wall clock is ahead by this many milliseconds;
    /// negative values mean behind.
    ///
    /// # Panics
    ///
    /// If `redis-server` or `cc` is not installed, or it does not come up.
    #[must_use]
    pub fn start_ahead(ms: i64, args: &[&str]) -> Self {
        let mut server = Self::down_with(free_port(), args);
        server.has_clock = true;
        server.set_ahead(ms);
        server.up()
    }

    /// Sets at once how far the clock of a server is ahead that was started with
    /// [`start_ahead`](Self::start_ahead). Commands sent afterwards see the new time.
    ///
    /// # Panics
    ///
    /// If the server was started without its own clock, or does not answer.
    pub fn set_ahead(&self, ms: i64) {
        assert!(self.has_clock, "the server was not started with a clock of its own");
        skew::set(self.dir.path(), ms);
        // Valkey reads the clock once for several commands.
        let sees = || self.clock_ahead().is_some_and(|seen| seen.abs_diff(ms) < CLOCK_ERROR_MS);
        assert!(!self.process.runs() || happens(sees), "the server does not see its new clock");
    }

    /// Returns how far the server's clock is ahead of the host's, in milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the clock of the server is compared with it")]
    fn clock_ahead(&self) -> Option<i64> {
        let mut connection = redis::Client::open(self.url()).ok()?.get_connection().ok()?;
        let (s, us): (i64, i64) = redis::cmd("TIME").query(&mut connection).ok()?;
        let host = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(s * 1000 + us / 1000 - i64::try_from(host.as_millis()).ok()?)
    }

    /// Starts a server with the users of an ACL file that has these lines.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start_with_users(users: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("users.acl");
        fs::write(&file, users.join("\n") + "\n").expect("the ACL file is written");
        let args = vec!["--aclfile".to_owned(), file.display().to_string()];
        let mut server =
            Self { dir, port: free_port(), args, has_clock: false, process: Process::default() };
        server.spawn();
        server
    }

    /// Reserves a port without a server; [`restart`](Self::restart) starts one.
    ///
    /// # Panics
    ///
    /// If there is no temporary directory or no free port.
    #[must_use]
    pub fn down() -> Self {
        Self::down_with(free_port(), &[])
    }

    fn down_with(port: u16, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).chain(app()).collect();
        Self { dir, port, args, has_clock: false, process: Process::default() }
    }

    fn up(mut self) -> Self {
        self.spawn();
        self
    }

    /// The URL for the default user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL for a user with only the permissions that a cache needs, on all keys and channels.
    /// The user does not exist if the users come from an ACL file.
    #[must_use]
    pub fn app_url(&self) -> String {
        self.url_for(APP, "any")
    }

    /// The URL for a user of the ACL file.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The port of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the process (SIGKILL), if it runs.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the process and starts it again on the same port with the data on its disk.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Kills the process, empties its disk and starts it again on the same port.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn restart_empty(&mut self) {
        self.kill();
        drop(fs::remove_dir_all(self.dir.path().join("appendonlydir")));
        // Redis before 7.0 keeps its append-only file here.
        for file in ["dump.rdb", "appendonly.aof"] {
            drop(fs::remove_file(self.dir.path().join(file)));
        }
        self.spawn();
    }

    /// Freezes the process (SIGSTOP): connections stay open but get no answers.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn stop_process(&self) {
        self.process.signal("STOP");
    }

    /// Thaws the process (SIGCONT).
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn cont_process(&self) {
        self.process.signal("CONT");
    }

    fn spawn(&mut self) {
        if let Err(log) = self.try_spawn() {
            panic!("`redis-server` on port {} does not come up; its log:\n{log}", self.port);
        }
    }

    /// Starts the process; returns the log if the server does not come up.
    fn try_spawn(&mut self) -> Result<(), String> {
        let log = File::create(self.dir.path().join("log")).expect("the log file is created");
        // Servers before Redis 7.0 report errors of their settings on standard error.
        let errors = log.try_clone().expect("the log file is shared");
        let program = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdout(log)
            .stderr(errors);
        if self.has_clock {
            skew::prepare(&mut command, self.dir.path());
        }
        self.process.start(
            &mut command,
            "Put `redis-server` on the PATH or its path into REDIS_SERVER; `tests/run` installs it \
             (apt-get install redis-server)",
        );
        // A missing permission for `PING` is an answer; `LOADING` is not.
        if self.process.answers(self.port, "PING", &["+PONG", "-NOAUTH", "-NOPERM"]) {
            return Ok(());
        }
        Err(fs::read_to_string(self.dir.path().join("log")).unwrap_or_default())
    }
}

/// Returns a free port of the loopback address for anything else that a test starts.
///
/// # Panics
///
/// If none is free.
#[must_use]
pub fn free_port() -> u16 {
    process::free_port()
}

/// The arguments that create the user.
fn app() -> impl Iterator<Item = String> {
    let rule = acl_rule("");
    let words = ["--user", APP, "on", "nopass"].into_iter().chain(rule.split_whitespace());
    words.map(ToOwned::to_owned).collect::<Vec<_>>().into_iter()
}
