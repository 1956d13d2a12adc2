//! A hit in L1, of all contenders.

use anyhow::Result;

use crate::board::Board;
use crate::env::Env;
use crate::hits::{
    Get, GetOrSet, Hits, Peek, allocations, crinkle_of, fill, floors, on_one_thread, on_two_threads,
};
use crate::instructions;
use crate::measure::race;
use crate::remote::Crinkle;
use crate::row::Row;
use crate::workload::Draws;

const ONE: &str = "l1_hit/untagged/1t";
const TWO: &str = "l1_hit/untagged/2t";
const GET: &str = "l1_hit/get/1t";
const PEEK: &str = "l1_hit/peek/1t";
const SHARED: &str = "l1_hit/with_l2/1t";

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    let draws = Draws::hot();
    let local = env.runtime.block_on(crinkle_of(&draws, 0))?;
    if board.wants_any(&[ONE, TWO]) {
        let caches = caches(env, &draws, Box::new(GetOrSet(local.clone())))?;
        for (name, threads) in [(ONE, 1), (TWO, 2)] {
            if board.wants(name) {
                board.push(hit(env, &draws, name, threads, &caches)?);
            }
        }
    }
    let mut others: Vec<(&str, Box<dyn Hits>)> =
        vec![(GET, Box::new(Get(local.clone()))), (PEEK, Box::new(Peek(local.clone())))];
    if board.wants(SHARED) {
        let crinkle = Crinkle { url: env.redis() };
        let shared = env.runtime.block_on(async {
            let cache = crinkle.cache(100_000).await?;
            fill(&cache, &draws, 3).await?;
            anyhow::Ok(cache)
        })?;
        others.push((SHARED, Box::new(GetOrSet(shared))));
    }
    for (name, hits) in others {
        if board.wants(name) {
            let baseline = GetOrSet(local.clone());
            board.push(against_get_or_set(env, &draws, name, &*hits, &baseline)?);
        }
    }
    Ok(())
}

/// Crinkle, the floors, the peers.
fn caches(env: &Env, draws: &Draws, crinkle: Box<dyn Hits>) -> Result<Vec<Box<dyn Hits>>> {
    let mut caches = vec![crinkle];
    caches.extend(floors(draws));
    caches.extend(crate::peers::all(env, draws)?);
    Ok(caches)
}

fn hit(
    env: &Env,
    draws: &Draws,
    name: &str,
    threads: usize,
    caches: &[Box<dyn Hits>],
) -> Result<Row> {
    let mut contenders = Vec::new();
    for hits in caches {
        contenders.push(match threads {
            1 => on_one_thread(env, draws, &**hits),
            _ => on_two_threads(draws, &**hits),
        });
    }
    let scores = race(&mut contenders, env.timed())?;
    let mut row = Row::of(name, "ns", &scores, |ns| ns);
    for hits in caches {
        row.allocs.insert(hits.name(), allocations(env, draws, &**hits));
    }
    if threads == 1 && !env.quick() && instructions::countable() {
        for name in ["crinkle", "moka_sync_get", "dashmap_get_clone", "quick_cache_get"] {
            row.instructions.insert(name, instructions::per_read(name)?);
        }
    }
    Ok(row.against(0.5, "moka_sync_get").against_peers(0.3).no_allocations())
}

fn against_get_or_set(
    env: &Env,
    draws: &Draws,
    name: &str,
    hits: &dyn Hits,
    baseline: &GetOrSet,
) -> Result<Row> {
    let mut contenders =
        [on_one_thread(env, draws, hits), on_one_thread(env, draws, baseline).floor("get_or_set")];
    let scores = race(&mut contenders, env.timed())?;
    let mut row = Row::of(name, "ns", &scores, |ns| ns);
    row.allocs.insert("crinkle", allocations(env, draws, hits));
    Ok(row)
}
