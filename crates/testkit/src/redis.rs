//! A real `redis-server` for one test, on a free port of the loopback, with a directory of its own.

use std::env;
use std::fs::{self, File};
use std::process::Command;

use crinkle_l2_redis::acl_rule;
use tempfile::TempDir;

use crate::process::{Process, free_port};

/// The user of [`RedisServer::app_url`].
const APP: &str = "app";

/// A running server; killed when dropped. The program is `redis-server` on the PATH, or what the
/// environment variable `REDIS_SERVER` says.
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
    process: Process,
}

impl RedisServer {
    /// Starts an empty server that keeps nothing on disk.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments, for example `["--maxmemory", "2mb"]`.
    ///
    /// # Panics
    ///
    /// If `redis-server` is not installed or does not come up.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).chain(app()).collect();
        let mut server = Self { dir, port: free_port(), args, process: Process::default() };
        server.spawn();
        server
    }

    /// Starts a server whose users are these lines of an ACL file.
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
        let mut server = Self { dir, port: free_port(), args, process: Process::default() };
        server.spawn();
        server
    }

    /// A port with no server behind it yet: [`restart`](Self::restart) starts one.
    ///
    /// # Panics
    ///
    /// If there is no temporary directory or no free port.
    #[must_use]
    pub fn down() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, port: free_port(), args: app().collect(), process: Process::default() }
    }

    /// Its URL, for the default user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its URL for a user who may run what a cache needs, on all keys and channels, and nothing else. There
    /// is none where the users come from an ACL file.
    #[must_use]
    pub fn app_url(&self) -> String {
        self.url_for(APP, "any")
    }

    /// Its URL for a user of the ACL file.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the process (SIGKILL), if it runs.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the process and starts it again on the same port, with what is left on its disk.
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
        drop(fs::remove_file(self.dir.path().join("dump.rdb")));
        self.spawn();
    }

    /// Freezes the process (SIGSTOP): connections stay, nothing is answered.
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
        let log = File::create(self.dir.path().join("log")).expect("the log file is created");
        let program = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdout(log);
        self.process.start(
            &mut command,
            "Put `redis-server` on the PATH or its path into REDIS_SERVER; `tests/run` installs it \
             (apt-get install redis-server)",
        );
        // A user who may not PING is an answer, `LOADING` is not.
        if !self.process.answers(self.port, "PING", &["+PONG", "-NOAUTH", "-NOPERM"]) {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            panic!("`redis-server` on port {} does not come up; its log:\n{log}", self.port);
        }
    }
}

/// The arguments that make the user.
fn app() -> impl Iterator<Item = String> {
    let rule = acl_rule("");
    let words = ["--user", APP, "on", "nopass"].into_iter().chain(rule.split_whitespace());
    words.map(ToOwned::to_owned).collect::<Vec<_>>().into_iter()
}
