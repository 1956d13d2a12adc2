//! A server process of one test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const TRIES: u32 = 2_000;
const PAUSE: Duration = Duration::from_millis(5);

/// A port of the loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A port of the loopback that nobody listens on, nor on the one that is so far above it.
pub(crate) fn free_port_below(distance: u16) -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let pairs = || free_port().checked_add(distance).filter(|above| is_free(*above));
    let above = (0..TRIES).find_map(|_| pairs()).expect("two free ports");
    above - distance
}

/// Looks until something is so; false if it is not in time.
pub(crate) fn happens(mut is: impl FnMut() -> bool) -> bool {
    (0..TRIES).any(|_| {
        is() || {
            thread::park_timeout(PAUSE);
            false
        }
    })
}

/// The process; killed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Process {
    child: Option<Child>,
}

impl Process {
    /// Starts it. `advice` says what to do if it cannot be run.
    pub(crate) fn start(&mut self, command: &mut Command, advice: &str) {
        match command.stdin(Stdio::null()).spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{:?} cannot be run ({error}). {advice}", command.get_program()),
        }
    }

    /// Says `hello` until the answer is the one that is waited for; false if it does not come, or
    /// the process is gone.
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

    /// Whether it was started, and not killed here.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it (SIGKILL), if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends it a signal by name.
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
