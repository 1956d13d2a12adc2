//! A real `memcached` for one test, on a free port of the loopback address.

use std::env;
use std::process::{Command, Stdio};

use crate::process::{Process, free_port};

/// A running server; killed when dropped. The program is the environment variable `MEMCACHED`, or
/// `memcached` on the PATH.
///
/// The calls block for the few milliseconds a server takes to start.
///
/// ```no_run
/// use crinkle_testkit::memcached::MemcachedServer;
///
/// let mut server = MemcachedServer::start();
/// println!("listening at {}", server.url());
/// server.kill();
/// server.restart();
/// ```
#[derive(Debug)]
pub struct MemcachedServer {
    port: u16,
    args: Vec<String>,
    process: Process,
}

impl MemcachedServer {
    /// Starts an empty server with 64 MiB.
    ///
    /// # Panics
    ///
    /// If `memcached` is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, for example `["-m", "8"]`.
    ///
    /// # Panics
    ///
    /// If `memcached` is not installed or does not come up.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { port: free_port(), args, process: Process::default() };
        server.spawn();
        server
    }

    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
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

    /// Kills the process and starts it again on the same port without data.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    fn spawn(&mut self) {
        let program = env::var_os("MEMCACHED").unwrap_or_else(|| "memcached".into());
        let mut command = Command::new(program);
        command.args(["-l", "127.0.0.1", "-p", &self.port.to_string(), "-U", "0"]);
        // Memcached requires this if root starts it; otherwise it has no effect.
        command.args(["-u", "nobody"]).args(&self.args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process.start(
            &mut command,
            "Put `memcached` on the PATH or its path into MEMCACHED; `tests/run` installs it \
             (apt-get install memcached)",
        );
        let up = self.process.answers(self.port, "version", &["VERSION"]);
        assert!(up, "`memcached` on port {} does not come up", self.port);
    }
}
