//! One of the processes: a cache on one thread, and the actors that use it.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crinkle_backplane::{RedisBackplane, RedisClient};
use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{Cache, Settings};
use crinkle_l2_redis::RedisL2;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::actors::{self, Node};
use super::diary::Diary;
use super::event::{Order, Round, Way, Word, WorkerReport};
use super::source::Source;
use super::tap::{TappedBus, TappedL2};
use super::{COHERENCE_TTL, LONGEST_CALL, POLL};
use crate::sim::SimPlan;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The allowed lag of replicas that the caches read.
const LAG: Duration = Duration::from_millis(300);

/// How many ids one worker may use in a round.
const IDS: usize = 100_000_000;

/// Runs the coordinator's commands, line by line, until the input ends.
///
/// # Errors
///
/// If the coordinator cannot be understood, or a cache cannot be built.
pub fn work() -> Outcome<()> {
    crate::sim::hush();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // A thread of its own reads standard input, so that the runtime never blocks on it.
    let (send, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(run_commands(orders))
}

/// A running round.
struct Running {
    round: Round,
    node: Arc<Node>,
    actors: JoinSet<()>,
}

async fn run_commands(mut orders: mpsc::UnboundedReceiver<String>) -> Outcome<()> {
    let mut running = None;
    while let Some(line) = orders.recv().await {
        let word = match (serde_json::from_str(&line)?, running.as_mut()) {
            (Order::Begin(round), _) => {
                running = Some(begin(round).await?);
                Some(Word::Ready)
            }
            (Order::Go, Some(running)) => {
                go(running);
                None
            }
            (Order::Rest, Some(running)) => {
                rest(running).await;
                Some(Word::Rests)
            }
            (Order::Finish, Some(running)) => Some(finish(running).await),
            (_, None) => return Err("the coordinator sent a command before `Begin`".into()),
        };
        if let Some(word) = word {
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, &word)?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
    }
    Ok(())
}

async fn begin(round: Round) -> Outcome<Running> {
    let bug = Sabotage::ALL.iter().find(|bug| round.bug.as_deref() == Some(bug.name()));
    plant(bug.copied());
    let diary = Diary::new(round.worker * IDS);
    let client = match &round.way {
        Way::Url(url) => RedisClient::connect(url).await?,
        Way::Sentinels { urls, name } => RedisClient::sentinel(urls, name).await?,
        Way::Cluster { urls } => RedisClient::cluster(urls).await?,
    };
    let mut store = RedisL2::new(client.clone());
    if !matches!(round.way, Way::Url(_)) {
        store = store.read_from_replicas(LAG);
    }
    let settings = Settings::default()
        .capacity(1000)
        .poll(POLL)
        .coherence_ttl(COHERENCE_TTL)
        .load_lock_ttl(Duration::from_secs(3))
        .breaker_failures(3);
    let cache = Cache::builder(&round.name)
        .settings(settings)
        .default_options(SimPlan::defaults())
        .l2(TappedL2::new(store, diary.clone()))
        .backplane(TappedBus { inner: RedisBackplane::new(client), diary: diary.clone() })
        .build()?;
    timeout(LONGEST_CALL, cache.ready()).await??;
    let source = Source::connect(&round.source).await?;
    let (tags, calm, rest) = (round.tags.clone(), round.calm, AtomicBool::new(false));
    let node = Arc::new(Node { cache, diary, source, tags, calm, rest });
    Ok(Running { round, node, actors: JoinSet::new() })
}

fn go(running: &mut Running) {
    let Round { seed, worker, actors, think_ms, .. } = running.round;
    for actor in 0..actors {
        let part = (worker * 1000 + actor) as u64;
        running.actors.spawn(actors::act(Arc::clone(&running.node), seed, part, think_ms));
    }
}

async fn rest(running: &mut Running) {
    running.node.rest.store(true, Ordering::Relaxed);
    let all = async { while running.actors.join_next().await.is_some() {} };
    if timeout(LONGEST_CALL, all).await.is_err() {
        running.node.diary.seen("L3", "a call does not end".to_owned());
        running.actors.shutdown().await;
    }
}

/// Checks **L1** no unverified copies, **L6** recovery finished, **L7** closing ends, **S14** no
/// key is stuck.
async fn finish(running: &Running) -> Word {
    let Node { cache, diary, .. } = &*running.node;
    let health = cache.health();
    if health.recovery_backlog + health.pending_removals > 0 {
        diary.seen("L6", format!("there are still invalidations for L2: {health:?}"));
    }
    if health.in_flight > 0 {
        diary.seen("S14", format!("{} loads do not end", health.in_flight));
    }
    if health.ledger_suspect || !health.coherent {
        diary.seen("L1", format!("not coherent although all faults have ended: {health:?}"));
    }
    let frontier = health.ledger_frontier;
    actors::last_reads(&running.node).await;
    match timeout(LONGEST_CALL, cache.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => diary.seen("L7", format!("closing failed: {error}")),
        Err(_) => diary.seen("L7", "closing does not end".to_owned()),
    }
    Word::Done(Box::new(WorkerReport { frontier, events: diary.take() }))
}
