//! A web service with two instances behind one Redis. It has a cached route, an admin route that
//! removes by tag, `/metrics` for Prometheus, `/health`, and a graceful shutdown.
//!
//! ```text
//! cargo run --release --example axum_service                              # the demonstration
//! cargo run --release --example axum_service -- 127.0.0.1:3000 REDIS_URL  # one instance, to use
//! ```
//!
//! The demonstration needs `redis-server` on the PATH; it starts its own server on a free port.

#[path = "axum_service/client.rs"]
mod client;
#[path = "axum_service/service.rs"]
mod service;

use std::sync::Arc;
use std::time::Duration;

use crinkle_examples::Expectations;
use crinkle_testkit::redis::RedisServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use client::Client;
use service::{Database, Instance, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [] => demonstrate().await,
        [addr, redis] => {
            let instance = Instance::new("shop", redis, Arc::new(Database::new())).await?;
            let listener = TcpListener::bind(addr).await?;
            println!("serving on http://{}; stop with ctrl-c", listener.local_addr()?);
            let stopped = async { drop(tokio::signal::ctrl_c().await) };
            serve(instance, listener, stopped).await
        }
        _ => anyhow::bail!("usage: axum_service [ADDRESS REDIS_URL]"),
    }
}

async fn demonstrate() -> anyhow::Result<()> {
    let mut show = Expectations::new();
    let redis = RedisServer::start();
    let database = Arc::new(Database::new());
    let (stop, stopped) = watch::channel(false);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for name in ["shop-a", "shop-b"] {
        let instance = Instance::new(name, &redis.url(), Arc::clone(&database)).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        clients.push(Client::new(listener.local_addr()?));
        let mut stopped = stopped.clone();
        let until = async move { drop(stopped.wait_for(|stop| *stop).await) };
        servers.push(tokio::spawn(serve(instance, listener, until)));
    }
    let [a, b] = [&clients[0], &clients[1]];

    println!("Two instances, one product:");
    println!("  a: {}", a.get("/products/42").await?);
    println!("  b: {}", b.get("/products/42").await?);
    show.expect(database.queries() == 1, "the second instance reads it from Redis");

    println!("The price changes on instance a; instance b is read until it shows the change:");
    a.put("/products/42/price", "1999").await?;
    let seen = eventually(b, "/products/42", "1999").await?;
    show.expect(seen, "b has the new price");

    println!("An operator corrects the database by hand, and an admin removes the tag:");
    database.correct(42, 1_500);
    let stale = a.get("/products/42").await?;
    show.expect(!stale.contains("1500"), "the cache still has the old price");
    println!("  {}", a.delete("/admin/tags/products").await?);
    let seen = eventually(a, "/products/42", "1500").await?;
    show.expect(
        seen && eventually(b, "/products/42", "1500").await?,
        "a and b have loaded the new price",
    );

    let in_step = eventually(b, "/health", "coherent: true").await?;
    show.expect(in_step, "/health reports that b is coherent");
    let page = b.get("/metrics").await?;
    let hits = page.lines().filter(|line| line.starts_with("crinkle_")).count();
    println!("  /metrics has {hits} series of the cache");
    show.expect(hits > 10, "/metrics has the cache's counters, gauges and histograms");

    println!("Both instances shut down:");
    stop.send_replace(true);
    for server in servers {
        let ended = timeout(Duration::from_secs(20), server).await??;
        show.expect(ended.is_ok(), "requests are answered, the cache is drained and closed");
    }
    show.conclude()
}

/// Repeats a request until its answer contains a text, for at most ten seconds.
async fn eventually(client: &Client, path: &str, what: &str) -> anyhow::Result<bool> {
    for _ in 0..1_000 {
        if client.get(path).await?.contains(what) {
            return Ok(true);
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}
