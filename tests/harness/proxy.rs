//! A TCP proxy that can silence its connections and redirect new ones.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A proxy in front of a server on the loopback address. It ends with its runtime.
#[derive(Clone, Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: AtomicU16,
    /// Connections of an earlier generation swallow all bytes.
    generation: AtomicU64,
    accepted: AtomicU64,
}

impl Proxy {
    /// Starts a proxy in front of this port.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server),
            generation: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let proxy = Self { port, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, Arc::clone(&shared)));
            }
        });
        proxy
    }

    /// The address of the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections the proxy has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Silences the present connections: they stay open and acknowledge bytes, but forward nothing.
    /// New ones work.
    pub fn silence(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Redirects new connections to this port; present ones stay.
    pub fn lead_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let born = shared.generation.load(Ordering::SeqCst);
    let server = shared.server.load(Ordering::SeqCst);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, &shared, born) => {}
        () = pump(from_server, to_client, &shared, born) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, born: u64) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let is_silent = shared.generation.load(Ordering::SeqCst) != born;
        if read == 0 && is_silent {
            // The proxy does not even forward the end of the connection.
            std::future::pending::<()>().await;
        }
        if read == 0 || !is_silent && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
