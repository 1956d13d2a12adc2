//! The time until another process knows of a change.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use crinkle::{Cache, Event, Notice};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;

use crate::board::Board;
use crate::env::Env;
use crate::measure::{machine_time, nanos, quantile};
use crate::remote::{Crinkle, raw};
use crate::row::Row;
use crate::worker::Worker;

const P50: &str = "propagation/p50";
const P99: &str = "propagation/p99";
const CHANNEL: &str = "bench:bare";

/// How many first rounds do not count: they connect and warm up.
const WARM: usize = 20;

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    if !board.wants_any(&[P50, P99]) {
        return Ok(());
    }
    let mut listeners = Listeners::start(env, 1)?;
    let (mut removals, mut messages) = (Vec::new(), Vec::new());
    for at in 0..env.pick(2_000, 300) {
        let sent = listeners.send(env, Sender::Crinkle, at)?;
        removals.push(listeners.last_received(Sender::Crinkle, sent)?);
        let sent = listeners.send(env, Sender::Bare, at)?;
        messages.push(listeners.last_received(Sender::Bare, sent)?);
    }
    let (mut removals, mut messages) = (removals.split_off(WARM), messages.split_off(WARM));
    for (name, part) in [(P50, 0.5), (P99, 0.99)] {
        let row = Row::new(name, "us", quantile(&mut removals, part))
            .floor("bare_publish", quantile(&mut messages, part));
        board.push(row.against(1.2, "bare_publish"));
    }
    Ok(())
}

/// The sender of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A node removes a key.
    Crinkle,
    /// A client publishes a message.
    Bare,
}

/// Processes that listen, and the senders.
pub(crate) struct Listeners {
    cache: Cache,
    connection: MultiplexedConnection,
    nodes: Vec<Worker>,
    subscribers: Vec<Worker>,
}

impl Listeners {
    /// Starts this many processes of each kind.
    pub(crate) fn start(env: &Env, count: usize) -> Result<Self> {
        let url = env.redis();
        let start = |who: &str| -> Result<Vec<Worker>> {
            let spawn = |_| Worker::spawn(&["receive", who, &url]);
            let mut workers = (0..count).map(spawn).collect::<Result<Vec<_>>>()?;
            workers.iter_mut().try_for_each(|worker| worker.expect("ready"))?;
            Ok(workers)
        };
        let (nodes, subscribers) = (start("crinkle")?, start("bare")?);
        env.runtime.block_on(async {
            let cache = Crinkle { url: url.clone() }.cache(100_000).await?;
            Ok(Self { cache, connection: raw(&url).await?, nodes, subscribers })
        })
    }

    /// Sends a change; returns when the sending began, by the machine's clock.
    pub(crate) fn send(&mut self, env: &Env, who: Sender, at: usize) -> Result<Duration> {
        let sent = machine_time();
        env.runtime.block_on(async {
            match who {
                Sender::Crinkle => _ = self.cache.remove(format!("product:{at}")).await?,
                Sender::Bare => {
                    let mut publish = redis::cmd("PUBLISH");
                    publish.arg(CHANNEL).arg("product:1").exec_async(&mut self.connection).await?;
                }
            }
            Ok(sent)
        })
    }

    /// Microseconds from then until the last process received the change.
    pub(crate) fn last_received(&mut self, who: Sender, sent: Duration) -> Result<f64> {
        let workers = match who {
            Sender::Crinkle => &mut self.nodes,
            Sender::Bare => &mut self.subscribers,
        };
        let mut last = Duration::ZERO;
        for worker in workers {
            last = last.max(Duration::from_nanos(worker.receive()?.parse()?));
        }
        Ok(nanos(last.saturating_sub(sent)) / 1e3)
    }
}

/// Runs the other process, which prints when it receives a change.
pub(crate) async fn receive(who: &str, url: &str) -> Result<()> {
    match who {
        "crinkle" => receive_crinkle(url).await,
        "bare" => receive_bare(url).await,
        _ => bail!("unknown sender {who:?}"),
    }
}

async fn receive_crinkle(url: &str) -> Result<()> {
    let cache = Crinkle { url: url.to_owned() }.cache(100_000).await?;
    let mut events = cache.events();
    println!("ready");
    while let Some(event) = events.next().await {
        if matches!(event, Event::Received { own: false, notice: Notice::Removed }) {
            println!("{}", machine_time().as_nanos());
        }
    }
    Ok(())
}

async fn receive_bare(url: &str) -> Result<()> {
    let mut pubsub = redis::Client::open(url)?.get_async_pubsub().await?;
    pubsub.subscribe(CHANNEL).await?;
    println!("ready");
    let mut messages = pubsub.into_on_message();
    loop {
        messages.next().await.context("the subscription has ended")?;
        println!("{}", machine_time().as_nanos());
    }
}
