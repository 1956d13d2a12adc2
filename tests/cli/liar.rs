//! A server that says what a good one does not: a proxy that changes a few bytes of the answers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How the answer to TIME begins: an array of two, the first of ten digits.
const TIME: &[u8] = b"*2\r\n$10\r\n";

/// What is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    /// The clock is ahead by so many seconds.
    Clock(i64),
    /// What follows the first in INFO begins with the second.
    Info(&'static str, &'static str),
    /// What a script that writes answers is lost.
    LostAnswers,
    /// The server is older than Redis 7.0: it refuses `SET` with `NX` and `GET`.
    OlderServer,
    /// What time it is, it tells after so long.
    SlowClock(Duration),
}

/// Listens on a port of its own, for as long as the test runs.
pub(crate) fn before(port: u16, lie: Lie) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port))) else {
                return;
            };
            let (client, server) = (Arc::new(client), Arc::new(server));
            let (there, back) = ((Arc::clone(&client), Arc::clone(&server)), (server, client));
            let lost = matches!(lie, Lie::LostAnswers);
            thread::spawn(move || {
                copy(&there.0, &there.1, |bytes| {
                    if let Lie::OlderServer = lie {
                        refuse_load_locks(bytes);
                    }
                    !(lost && holds(bytes, b"EVALSHA"))
                })
            });
            thread::spawn(move || copy(&back.0, &back.1, |bytes| told(bytes, lie)));
        }
    });
    own
}

/// Until one side ends, or `pass` says that nothing more is to pass; then the other side waits
/// for bytes that never come.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut pass: impl FnMut(&mut [u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if !pass(&mut buffer[..len]) {
            return;
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Makes every `SET .. NX GET` a syntax error.
fn refuse_load_locks(bytes: &mut [u8]) {
    const OPTIONS: &[u8] = b"$2\r\nNX\r\n$3\r\nGET\r\n";
    while let Some(at) = find(bytes, OPTIONS) {
        bytes[at + 12..at + 15].copy_from_slice(b"BAD");
    }
}

fn told(bytes: &mut [u8], lie: Lie) -> bool {
    match lie {
        Lie::LostAnswers | Lie::OlderServer => {}
        Lie::SlowClock(wait) => {
            if find(bytes, TIME).is_some() {
                thread::park_timeout(wait);
            }
        }
        Lie::Clock(ahead) => {
            if let Some(from) = find(bytes, TIME).map(|at| at + TIME.len())
                && let Some(digits) = bytes.get_mut(from..from + 10)
            {
                let seconds: i64 = str::from_utf8(digits).unwrap().parse().unwrap();
                digits.copy_from_slice((seconds + ahead).to_string().as_bytes());
            }
        }
        Lie::Info(head, said) => {
            if let Some(from) = find(bytes, head.as_bytes()).map(|at| at + head.len()) {
                bytes[from..from + said.len()].copy_from_slice(said.as_bytes());
            }
        }
    }
    true
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    find(bytes, what).is_some()
}
