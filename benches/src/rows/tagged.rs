//! A hit in L1 on entries with tags, with and without concurrent removals of other tags.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::future::LocalBoxFuture;
use tokio::time::interval;

use crate::board::Board;
use crate::env::{Env, one_thread};
use crate::hits::{GetOrSet, Tagged, allocations, crinkle_of, crinkle_tagged, on_one_thread};
use crate::measure::{Contender, race, wall};
use crate::row::Row;
use crate::workload::Draws;

const UNTAGGED: &str = "l1_hit_untagged";
const CHURN: &str = "l1_hit/churn";
const NAMES: [(&str, usize); 4] =
    [("l1_hit/tags=1", 1), ("l1_hit/tags=3", 3), ("l1_hit/tags=10", 10), ("l1_hit/tags=32", 32)];

/// How many other tags are removed repeatedly.
const OTHERS: u64 = 1_000;

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    let draws = Draws::hot();
    let untagged = GetOrSet(env.runtime.block_on(crinkle_of(&draws, 0))?);
    for (name, count) in NAMES {
        if board.wants(name) {
            board.push(peace(env, &draws, name, count, &untagged)?);
        }
    }
    if board.wants(CHURN) {
        board.push(churn(env, &draws, &untagged)?);
    }
    Ok(())
}

fn peace(env: &Env, draws: &Draws, name: &str, count: usize, untagged: &GetOrSet) -> Result<Row> {
    let caches = caches(env, draws, count)?;
    let mut contenders = vec![on_one_thread(env, draws, untagged).floor(UNTAGGED)];
    for tagged in &caches {
        contenders.push(on_one_thread(env, draws, &*tagged.hits));
    }
    let scores = race(&mut contenders, env.timed())?;
    let mut row = Row::of(name, "ns", &scores, |ns| ns);
    for tagged in &caches {
        row.allocs.insert(tagged.hits.name(), allocations(env, draws, &*tagged.hits));
    }
    Ok(row.against(1.1, UNTAGGED))
}

fn churn(env: &Env, draws: &Draws, untagged: &GetOrSet) -> Result<Row> {
    let caches = caches(env, draws, 10)?;
    let slowest = AtomicU64::new(u64::MAX);
    let mut contenders = vec![on_one_thread(env, draws, untagged).floor(UNTAGGED)];
    for tagged in &caches {
        let contender = on_one_thread(env, draws, &*tagged.hits);
        contenders.push(amid_removals(contender, &slowest, &tagged.remove));
    }
    let scores = race(&mut contenders, env.timed())?;
    let slowest = slowest.load(Ordering::Relaxed);
    let row = Row::of(CHURN, "ns", &scores, |ns| ns).against(2.0, UNTAGGED);
    Ok(row.note(format!("at least {slowest} removals a second in every round")))
}

/// Crinkle and the peers with tags.
fn caches(env: &Env, draws: &Draws, count: usize) -> Result<Vec<Tagged>> {
    let mut caches = vec![env.runtime.block_on(crinkle_tagged(draws, count))?];
    caches.extend(crate::peers::tagged(env, draws, count)?);
    Ok(caches)
}

type Remove = dyn Fn(String) -> LocalBoxFuture<'static, ()> + Send + Sync;

/// Runs the contender while another thread removes a thousand tags a second.
fn amid_removals<'a>(
    mut contender: Contender<'a>,
    slowest: &'a AtomicU64,
    remove: &'a Remove,
) -> Contender<'a> {
    let (name, side) = (contender.name, contender.side);
    Contender::new(name, side, move |n| {
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let remover = scope.spawn(|| removals(&begun, &over, remove));
            while !begun.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            let took = contender.run(n);
            over.store(true, Ordering::Release);
            let per_second = remover.join().map_err(|_| anyhow!("the remover panicked"))??;
            if n > 100_000 {
                slowest.fetch_min(per_second, Ordering::Relaxed);
            }
            took
        })
    })
}

/// Removes tags until `over`; returns how many per second.
fn removals(begun: &AtomicBool, over: &AtomicBool, remove: &Remove) -> Result<u64> {
    one_thread()?.block_on(async {
        let since = wall();
        let mut every = interval(Duration::from_millis(1));
        let mut done = 0;
        while !over.load(Ordering::Acquire) {
            every.tick().await;
            remove(format!("other:{}", done % OTHERS)).await;
            done += 1;
            begun.store(true, Ordering::Release);
        }
        Ok((done as f64 / since.elapsed().as_secs_f64()) as u64)
    })
}
