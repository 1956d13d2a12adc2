//! A TCP proxy in front of one process that cuts, delays and swallows bytes.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What the proxy does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Connections are closed, and new ones too.
    Cut,
    /// The same, but bytes in transit still reach the server.
    CutLate,
    /// Every byte takes longer in each direction.
    Delay(Duration),
    /// Connections stay open but swallow all bytes. They are closed when this mode ends.
    HalfOpen,
    /// The same, but only for messages to subscriptions.
    SilentSubscription,
}

/// A running proxy; it stops with the runtime.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Starts a proxy in front of this port of the loopback address.
    pub(super) async fn start(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let mode = watch::Sender::new(Mode::Pass);
        let modes = mode.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, to, modes.subscribe()));
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

async fn forward(client: TcpStream, to: u16, mode: watch::Receiver<Mode>) {
    let now = *mode.borrow();
    if matches!(now, Mode::Cut | Mode::CutLate) {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    // Small commands must not wait for each other.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let subscribes = Arc::new(AtomicBool::new(false));
    let up = Direction { to_server: true, subscribes: Arc::clone(&subscribes) };
    let up = tokio::spawn(up.forward(from_client, to_server, mode.clone()));
    Direction { to_server: false, subscribes }.forward(from_server, to_client, mode).await;
    // Bytes to the server may still be delayed.
    drop(up.await);
}

/// One direction of a connection.
struct Direction {
    to_server: bool,
    /// Whether the client has subscribed on this connection.
    subscribes: Arc<AtomicBool>,
}

impl Direction {
    /// Forwards bytes until a side closes or the mode demands it.
    async fn forward(
        self,
        mut from: OwnedReadHalf,
        to: OwnedWriteHalf,
        mut mode: watch::Receiver<Mode>,
    ) {
        let (send, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(deliver(queue, to));
        let mut bytes = vec![0; 64 << 10];
        let mut swallowed = false;
        loop {
            let read = tokio::select! {
                changed = mode.changed() => {
                    match *mode.borrow_and_update() {
                        // Bytes in transit to the server may be delayed and still reach it.
                        Mode::CutLate if self.to_server => break,
                        Mode::Cut | Mode::CutLate => {
                            writer.abort();
                            break;
                        }
                        now if changed.is_err() || swallowed && !self.swallows(now) => break,
                        _ => continue,
                    }
                }
                read = from.read(&mut bytes) => read,
            };
            let Ok(read @ 1..) = read else { break };
            self.watch_for_subscribe(&bytes[..read]);
            let now = *mode.borrow();
            if self.swallows(now) {
                swallowed = true;
                continue;
            }
            let late = if let Mode::Delay(late) = now { late } else { Duration::ZERO };
            if send.send((Instant::now() + late, bytes[..read].to_vec())).is_err() {
                break;
            }
        }
        drop((send, from));
        drop(writer.await);
    }

    fn watch_for_subscribe(&self, bytes: &[u8]) {
        if self.to_server && bytes.windows(9).any(|word| word == b"SUBSCRIBE") {
            self.subscribes.store(true, Ordering::Relaxed);
        }
    }

    fn swallows(&self, mode: Mode) -> bool {
        match mode {
            Mode::HalfOpen => true,
            Mode::SilentSubscription => !self.to_server && self.subscribes.load(Ordering::Relaxed),
            _ => false,
        }
    }
}

async fn deliver(mut queue: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = queue.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
