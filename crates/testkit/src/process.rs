//! A server process of one test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// The number of pauses that a server may take on a busy machine; half a minute in total.
const TRIES: u32 = 6_000;
const PAUSE: Duration = Duration::from_millis(5);

/// The ports of the servers. They lie below the range from which a system assigns ports. A port
/// from that range could be taken while its server is down, and a client that retries could connect
/// to itself.
const PORTS: Range<u16> = 10_000..20_000;

/// Returns a free port of the loopback address. The process gets the same port again only after all
/// others, so it stays free until its server starts or restarts.
pub(crate) fn free_port() -> u16 {
    free(is_free)
}

/// Returns a free port of the loopback address such that the port `distance` above it is free too.
pub(crate) fn free_port_below(distance: u16) -> u16 {
    free(|port| is_free(port) && port.checked_add(distance).is_some_and(is_free))
}

fn free(is: impl Fn(u16) -> bool) -> u16 {
    // Concurrent processes begin far from each other.
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(7919) % (1 << 20)));
    let mut ports = PORTS.map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % u32::from(PORTS.end - PORTS.start);
        PORTS.start + u16::try_from(next).expect("as many as there are ports")
    });
    ports.find(|port| is(*port)).expect("a free port")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Checks a condition until it holds; returns false after half a minute.
pub(crate) fn happens(mut is: impl FnMut() -> bool) -> bool {
    (0..TRIES).any(|_| {
        is() || {
            thread::park_timeout(PAUSE);
            false
        }
    })
}

/// A server process; it is killed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Process {
    child: Option<Child>,
}

impl Process {
    /// Starts the process. `advice` says what to do if the program cannot be run.
    pub(crate) fn start(&mut self, command: &mut Command, advice: &str) {
        match command.stdin(Stdio::null()).spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{:?} cannot be run ({error}). {advice}", command.get_program()),
        }
    }

    /// Sends `hello` until the answer starts with one of `ready`. Returns false if it does not
    /// come, or if the process has ended.
    pub(crate) fn answers(&mut self, port: u16, hello: &str, ready: &[&str]) -> bool {
        for _ in 0..TRIES {
            let answer = ask(port, hello).unwrap_or_default();
            if ready.iter().any(|ready| answer.starts_with(ready)) {
                return true;
            }
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if exited.is_some() {
                return false;
            }
            thread::park_timeout(PAUSE);
        }
        false
    }

    /// Returns whether the process was started and not killed here.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the process (SIGKILL) if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if the process is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends a signal to the process by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the server runs").id();
        let script = format!("kill -s {name} {pid}");
        let status = Command::new("sh").args(["-c", &script]).status();
        assert!(status.is_ok_and(|status| status.success()), "`{script}` failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ask(port: u16, hello: &str) -> io::Result<String> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "{hello}\r\n")?;
    let mut answer = [0; 64];
    let len = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}
