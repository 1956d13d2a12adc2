//! How long it takes until another process knows.

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

/// How many of the first ones do not count: they connect and warm up.
const WARM: usize = 20;

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    if !board.wants_any(&[P50, P99]) {
        return Ok(());
    }
    let mut ears = Ears::start(env, 1)?;
    let (mut removals, mut messages) = (Vec::new(), Vec::new());
    for at in 0..env.pick(2_000, 300) {
        let sent = ears.send(env, Who::Crinkle, at)?;
        removals.push(ears.last_heard(Who::Crinkle, sent)?);
        let sent = ears.send(env, Who::Bare, at)?;
        messages.push(ears.last_heard(Who::Bare, sent)?);
    }
    let (mut removals, mut messages) = (removals.split_off(WARM), messages.split_off(WARM));
    for (name, part) in [(P50, 0.5), (P99, 0.99)] {
        let row = Row::new(name, "us", quantile(&mut removals, part))
            .floor("bare_publish", quantile(&mut messages, part));
        board.push(row.against(1.2, "bare_publish"));
    }
    Ok(())
}

/// Who says something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// A node removes a key.
    Crinkle,
    /// A client publishes a message.
    Bare,
}

/// Processes that listen, and those they listen to.
pub(crate) struct Ears {
    cache: Cache,
    connection: MultiplexedConnection,
    nodes: Vec<Worker>,
    subscribers: Vec<Worker>,
}

impl Ears {
    /// So many processes of each kind.
    pub(crate) fn start(env: &Env, count: usize) -> Result<Self> {
        let url = env.redis();
        let start = |who: &str| -> Result<Vec<Worker>> {
            let spawn = |_| Worker::spawn(&["hear", who, &url]);
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

    /// Says something; when that began, by the machine's clock.
    pub(crate) fn send(&mut self, env: &Env, who: Who, at: usize) -> Result<Duration> {
        let sent = machine_time();
        env.runtime.block_on(async {
            match who {
                Who::Crinkle => _ = self.cache.remove(&format!("product:{at}")).await?,
                Who::Bare => {
                    let mut publish = redis::cmd("PUBLISH");
                    publish.arg(CHANNEL).arg("product:1").exec_async(&mut self.connection).await?;
                }
            }
            Ok(sent)
        })
    }

    /// Microseconds from then until the last process has heard of it.
    pub(crate) fn last_heard(&mut self, who: Who, sent: Duration) -> Result<f64> {
        let workers = match who {
            Who::Crinkle => &mut self.nodes,
            Who::Bare => &mut self.subscribers,
        };
        let mut last = Duration::ZERO;
        for worker in workers {
            last = last.max(Duration::from_nanos(worker.hear()?.parse()?));
        }
        Ok(nanos(last.saturating_sub(sent)) / 1e3)
    }
}

/// The other process: says when it hears of something.
pub(crate) async fn hear(who: &str, url: &str) -> Result<()> {
    match who {
        "crinkle" => hear_crinkle(url).await,
        "bare" => hear_bare(url).await,
        _ => bail!("nobody is called {who:?}"),
    }
}

async fn hear_crinkle(url: &str) -> Result<()> {
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

async fn hear_bare(url: &str) -> Result<()> {
    let mut pubsub = redis::Client::open(url)?.get_async_pubsub().await?;
    pubsub.subscribe(CHANNEL).await?;
    println!("ready");
    let mut messages = pubsub.into_on_message();
    loop {
        messages.next().await.context("the subscription has ended")?;
        println!("{}", machine_time().as_nanos());
    }
}
