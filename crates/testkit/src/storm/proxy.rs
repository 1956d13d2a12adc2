//! A TCP proxy in front of one process, that cuts, delays and swallows.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What it does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Connections are closed, and new ones too.
    Cut,
    /// The same, but what is on its way to the server arrives later.
    CutLate(Duration),
    /// Every byte takes longer, each way.
    Delay(Duration),
    /// Connections stay, and swallow everything; they are closed when this ends.
    HalfOpen,
}

/// A running proxy; it ends with the runtime.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// In front of this port of the loopback.
    pub(super) async fn start(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let mode = watch::Sender::new(Mode::Pass);
        let modes = mode.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, modes.subscribe()));
            }
        });
        Ok(Self { port, mode })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(client: TcpStream, to: u16, mode: watch::Receiver<Mode>) {
    let now = *mode.borrow();
    if matches!(now, Mode::Cut | Mode::CutLate(_)) {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    // Small commands must not wait for each other.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(one_way(from_client, to_server, mode.clone(), true));
    one_way(from_server, to_client, mode, false).await;
    // What goes to the server may still be late.
    drop(up.await);
}

/// Carries bytes one way until a side closes, or the mode says so.
async fn one_way(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    to_server: bool,
) {
    let (send, queue) = mpsc::unbounded_channel();
    let writer = tokio::spawn(deliver(queue, to));
    let mut bytes = vec![0; 64 << 10];
    let mut swallowing = false;
    loop {
        let read = tokio::select! {
            changed = mode.changed() => {
                let now = *mode.borrow_and_update();
                match now {
                    _ if changed.is_err() => break,
                    Mode::Cut => {
                        writer.abort();
                        break;
                    }
                    Mode::CutLate(late) => {
                        if to_server {
                            let mut rest = vec![0; 64 << 10];
                            // What the client has sent and nobody has read.
                            if let Ok(read) = from.try_read(&mut rest) {
                                let _ = send.send((Instant::now() + late, rest[..read].to_vec()));
                            }
                        } else {
                            writer.abort();
                        }
                        break;
                    }
                    Mode::HalfOpen => swallowing = true,
                    _ if swallowing => break,
                    _ => {}
                }
                continue;
            }
            read = from.read(&mut bytes) => read,
        };
        let Ok(read @ 1..) = read else { break };
        let late = match *mode.borrow() {
            Mode::Delay(late) => late,
            Mode::HalfOpen => continue,
            _ => Duration::ZERO,
        };
        if send.send((Instant::now() + late, bytes[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(send);
    drop(from);
    drop(writer.await);
}

async fn deliver(mut queue: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = queue.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
