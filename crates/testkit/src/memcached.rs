//! A real `memcached` for one test, on a free port of the loopback.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::port::free_port;

const TRIES: u32 = 2_000;
const PAUSE: Duration = Duration::from_millis(5);

/// A running server; killed when dropped. The program is `memcached` on the PATH, or what the
/// environment variable `MEMCACHED` says.
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
    child: Option<Child>,
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

    /// Starts a server with further arguments, for example `["-m", "8"]`.
    ///
    /// # Panics
    ///
    /// If `memcached` is not installed or does not come up.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { port: free_port(), args, child: None };
        server.spawn();
        server
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
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

    /// Kills the process and starts it again on the same port, empty.
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
        let child = Command::new(&program)
            .args(["-l", "127.0.0.1", "-p", &self.port.to_string(), "-U", "0"])
            // Asked for by memcached where it is started by root, and without effect elsewhere.
            .args(["-u", "nobody"])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!(
                "{program:?} cannot be run ({error}). Put `memcached` on the PATH or its path into \
                 MEMCACHED; `tests/run` installs it (apt-get install memcached)"
            ),
        }
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        for _ in 0..TRIES {
            if self.version().is_ok_and(|answer| answer.starts_with("VERSION")) {
                return;
            }
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if exited.is_some() {
                break;
            }
            thread::park_timeout(PAUSE);
        }
        panic!("`memcached` on port {} does not come up", self.port);
    }

    fn version(&self) -> io::Result<String> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"version\r\n")?;
        let mut answer = [0; 64];
        let len = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    }
}

impl Drop for MemcachedServer {
    fn drop(&mut self) {
        self.kill();
    }
}
