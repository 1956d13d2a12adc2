//! A real `redis-server` for one test, on a free port of the loopback, with a directory of its own.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::free_port;

const TRIES: u32 = 2_000;
const PAUSE: Duration = Duration::from_millis(5);

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
    child: Option<Child>,
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
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { dir, port: free_port(), args, child: None };
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
        let mut server = Self { dir, port: free_port(), args, child: None };
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
        Self { dir, port: free_port(), args: Vec::new(), child: None }
    }

    /// Its URL, for the default user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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
        if let Some(mut child) = self.child.take() {
            // Fails only if it is gone already.
            drop(child.kill());
            drop(child.wait());
        }
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
        self.signal("STOP");
    }

    /// Thaws the process (SIGCONT).
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn cont_process(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the server runs").id();
        let script = format!("kill -s {name} {pid}");
        let status = Command::new("sh").args(["-c", &script]).status();
        assert!(status.is_ok_and(|status| status.success()), "`{script}` failed");
    }

    fn spawn(&mut self) {
        let log = File::create(self.dir.path().join("log")).expect("the log file is created");
        let program = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let child = Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!(
                "{program:?} cannot be run ({error}). Put `redis-server` on the PATH or its path \
                 into REDIS_SERVER; `tests/run` installs it (apt-get install redis-server)"
            ),
        }
        self.wait_until_ready();
    }

    /// Asks until it answers. A user who may not PING is an answer, `LOADING` is not.
    fn wait_until_ready(&mut self) {
        for _ in 0..TRIES {
            if let Ok(answer) = self.ping()
                && ["+PONG", "-NOAUTH", "-NOPERM"].iter().any(|ready| answer.starts_with(ready))
            {
                return;
            }
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if exited.is_some() {
                break;
            }
            thread::park_timeout(PAUSE);
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("`redis-server` on port {} does not come up; its log:\n{log}", self.port);
    }

    fn ping(&self) -> io::Result<String> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 64];
        let len = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
