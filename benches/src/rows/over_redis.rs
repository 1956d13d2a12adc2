//! A hit in L2, and a miss: the cost of a round trip with a cache around it.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use crate::board::Board;
use crate::env::Env;
use crate::measure::{Contender, machine_time, nanos, race, wall};
use crate::peers::{hits_in_l2, misses};
use crate::remote::{Crinkle, Node, Raw, Remote, loads};
use crate::row::{Numbers, Row};

const FLOOR_HIT: &str = "redis_get";
const FLOOR_MISS: &str = "redis_get_then_set_publish";

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    for callers in [1, 64] {
        let name = format!("l2_hit/c={callers}");
        if board.wants(&name) {
            board.push(hit(env, name, callers)?);
        }
    }
    for callers in [1, 64] {
        let name = format!("miss/c={callers}");
        if board.wants(&name) {
            board.push(miss(env, name, callers)?);
        }
    }
    Ok(())
}

fn hit(env: &Env, name: String, callers: usize) -> Result<Row> {
    let keys = keys(env, callers);
    let remotes = remotes(env, FLOOR_HIT, hits_in_l2(&env.redis()));
    let mut contenders = Vec::new();
    for remote in &remotes {
        env.runtime.block_on(round(&**remote, "hit", keys, 64))?;
        contenders.push(Contender::new(remote.name(), remote.side(), move |n| {
            loads();
            let took = env.runtime.block_on(round(&**remote, "hit", n, callers))?;
            ensure!(loads() == 0, "a value stored in Redis was not found there");
            Ok(took)
        }));
    }
    let scores = race(&mut contenders, env.counted(keys, keys))?;
    let mut row = match callers {
        1 => Row::of(name, "us", &scores, |ns| ns / 1e3).against(1.1, FLOOR_HIT),
        _ => Row::of(name, "op/s", &scores, |ns| 1e9 / ns).upwards().against(0.8, FLOOR_HIT),
    };
    row.allocs = allocations(&mut contenders, keys)?;
    Ok(row)
}

fn miss(env: &Env, name: String, callers: usize) -> Result<Row> {
    let keys = keys(env, callers);
    let remotes = remotes(env, FLOOR_MISS, misses(&env.redis()));
    // Keys that no earlier run against the same server has used.
    let rounds = Cell::new(machine_time().as_nanos());
    let mut contenders = Vec::new();
    for remote in &remotes {
        let rounds = &rounds;
        contenders.push(Contender::new(remote.name(), remote.side(), move |n| {
            rounds.set(rounds.get() + 1);
            let prefix = format!("miss:{callers}:{}", rounds.get());
            loads();
            let took = env.runtime.block_on(round(&**remote, &prefix, n, callers))?;
            ensure!(loads() == n, "a factory did not run once per key");
            Ok(took)
        }));
    }
    let scores = race(&mut contenders, env.counted(keys, keys))?;
    let allowed = 1.15;
    let mut row = match callers {
        1 => Row::of(name, "us", &scores, |ns| ns / 1e3).against(allowed, FLOOR_MISS),
        _ => {
            let row = Row::of(name, "op/s", &scores, |ns| 1e9 / ns).upwards();
            row.against((100.0 / allowed).round() / 100.0, FLOOR_MISS)
        }
    };
    row.allocs = allocations(&mut contenders, keys)?;
    Ok(row)
}

/// Allocations per load of all contenders, including the connection.
fn allocations(contenders: &mut [Contender<'_>], keys: u64) -> Result<Numbers> {
    let mut all = Numbers::new();
    for contender in contenders {
        let mut result = Ok(());
        let count = allocation_counter::measure(|| result = contender.run(keys).map(drop));
        result?;
        all.insert(contender.name, count.count_total as f64 / keys as f64);
    }
    Ok(all)
}

/// Runs only the loads of one contender, for a profiler: the first time they are misses, later hits
/// in L2.
pub(crate) async fn load(who: &str, url: &str, callers: usize, keys: u64) -> Result<()> {
    let url = url.to_owned();
    let remotes: [Box<dyn Remote>; 2] =
        [Box::new(Crinkle { url: url.clone() }), Box::new(Raw { url, name: FLOOR_HIT })];
    let remote = remotes.into_iter().find(|remote| remote.name() == who);
    let took =
        round(&*remote.context("no contender has this name")?, "profile", keys, callers).await?;
    println!("{:.2} us each, {} loads", nanos(took) / 1e3 / keys as f64, loads());
    Ok(())
}

/// The number of keys in a round.
fn keys(env: &Env, callers: usize) -> u64 {
    if callers == 1 { env.pick(2_000, 500) } else { env.pick(20_000, 5_000) }
}

fn remotes(env: &Env, floor: &'static str, peers: Vec<Box<dyn Remote>>) -> Vec<Box<dyn Remote>> {
    let url = env.redis();
    let mut remotes: Vec<Box<dyn Remote>> =
        vec![Box::new(Crinkle { url: url.clone() }), Box::new(Raw { url, name: floor })];
    remotes.extend(peers);
    remotes
}

/// A new node loads each key once, with this many concurrent callers. Returns the time of the
/// loads.
async fn round(
    remote: &dyn Remote,
    prefix: &str,
    keys: u64,
    callers: usize,
) -> Result<std::time::Duration> {
    let node = remote.node().await?;
    let begun = wall();
    let callers = callers as u64;
    try_join_all((0..callers).map(|caller| caller_of(&*node, prefix, caller, callers, keys)))
        .await?;
    let took = begun.elapsed();
    node.close().await;
    Ok(took)
}

async fn caller_of(
    node: &dyn Node,
    prefix: &str,
    first: u64,
    callers: u64,
    keys: u64,
) -> Result<()> {
    for id in (first..keys).step_by(callers as usize) {
        let found = node.load(&format!("{prefix}:{id}"), id as usize).await?;
        ensure!(found == id, "another product");
    }
    Ok(())
}
