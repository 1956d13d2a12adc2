//! Ten thousand callers of one absent key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crinkle::{Cache, EntryOptions};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::board::Board;
use crate::env::Env;
use crate::hits::TTL;
use crate::measure::{machine_time, median, nanos, quantile, wall};
use crate::remote::Crinkle;
use crate::row::Row;
use crate::worker::Worker;

const ONE: &str = "stampede/1proc";
const FOUR: &str = "stampede/4proc";
const CALLERS: usize = 10_000;

/// The duration of a load from the source.
const FACTORY: Duration = Duration::from_millis(100);

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    if board.wants(ONE) {
        let rounds = (0..env.pick(7, 5)).map(|_| on_one_node()).collect::<Result<_>>()?;
        push(board, ONE, rounds);
    }
    if board.wants(FOUR) {
        let rounds = (0..env.pick(7, 5)).map(|at| on_four(env, at)).collect::<Result<_>>()?;
        push(board, FOUR, rounds);
    }
    Ok(())
}

fn push(board: &mut Board, name: &str, rounds: Vec<Told>) {
    let calls = rounds.iter().map(|told| told.calls).max().unwrap_or_default();
    let factory = FACTORY.as_secs_f64() * 1e3;
    let added = median(rounds.iter().map(|told| told.p99_ms - factory).collect());
    let row = Row::new(name, "factory calls", calls as f64).floor("factory_calls", 1.0);
    let row = row.goal("= 1 factory call".to_owned(), calls as f64, calls == 1);
    let (within, text) = (added <= 2.0 * factory, "added p99 <= 2 x factory".to_owned());
    board.push(
        row.goal(text, added / factory, within)
            .note(format!("{CALLERS} callers; the factory takes {factory:.0} ms, and the 99th of a hundred callers {added:.1} ms more (median of {} rounds)", rounds.len())),
    );
}

/// The result of a crowd of callers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    calls: u64,
    p99_ms: f64,
}

fn on_one_node() -> Result<Told> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let options = EntryOptions::new(TTL);
        let cache = Cache::builder("bench").default_options(options).build()?;
        gather(&cache, "popular", CALLERS).await
    })
}

/// Runs four processes with a quarter of the callers each.
fn on_four(env: &Env, round: usize) -> Result<Told> {
    let url = env.redis();
    // A key that no earlier run against the same server has used.
    let key = format!("popular:{}:{round}", machine_time().as_nanos());
    let callers = (CALLERS / 4).to_string();
    let spawn = |_| Worker::spawn(&["crowd", &url, &key, &callers]);
    let mut workers = (0..4).map(spawn).collect::<Result<Vec<_>>>()?;
    for worker in &mut workers {
        worker.expect("ready")?;
    }
    for worker in &mut workers {
        worker.say("go")?;
    }
    let mut all = Told { calls: 0, p99_ms: 0.0 };
    for worker in &mut workers {
        let told: Told = serde_json::from_str(&worker.receive()?).context("a worker's answer")?;
        all.calls += told.calls;
        all.p99_ms = all.p99_ms.max(told.p99_ms);
    }
    Ok(all)
}

/// Runs one of the four processes.
pub(crate) async fn crowd(url: &str, key: &str, callers: usize) -> Result<()> {
    let cache = Crinkle { url: url.to_owned() }.cache(100_000).await?;
    println!("ready");
    crate::worker::wait_for("go").await?;
    println!("{}", serde_json::to_string(&gather(&cache, key, callers).await?)?);
    Ok(())
}

async fn gather(cache: &Cache, key: &str, callers: usize) -> Result<Told> {
    let calls = Arc::new(AtomicU64::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..callers {
        let (cache, key, calls) = (cache.clone(), key.to_owned(), Arc::clone(&calls));
        crowd.spawn(async move {
            let begun = wall();
            let load = move |_| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                sleep(FACTORY).await;
                crinkle::ok(42_u64)
            };
            let answer = cache.get_or_set(&key, load).await?;
            ensure!(*answer == 42, "another value");
            Ok(nanos(begun.elapsed()) / 1e6)
        });
    }
    let mut waited = Vec::with_capacity(callers);
    while let Some(one) = crowd.join_next().await {
        waited.push(one??);
    }
    Ok(Told { calls: calls.load(Ordering::SeqCst), p99_ms: quantile(&mut waited, 0.99) })
}
