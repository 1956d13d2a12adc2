//! Reads of a hundred keys in one call.

use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::Cache;

use crate::board::Board;
use crate::env::Env;
use crate::hits::{crinkle_of, fill};
use crate::measure::{Contender, Side, race, thread_time, wall};
use crate::remote::{Crinkle, raw};
use crate::row::Row;
use crate::workload::{Draws, Product};

const L1: &str = "get_many/l1/100";
const L2: &str = "get_many/l2/100";
const PAGE: usize = 100;

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    if board.wants(L1) {
        board.push(in_l1(env)?);
    }
    if board.wants(L2) {
        board.push(in_l2(env)?);
    }
    Ok(())
}

fn in_l1(env: &Env) -> Result<Row> {
    let draws = Draws::hot();
    let cache = env.runtime.block_on(crinkle_of(&draws, 3))?;
    let pages: Vec<&[String]> = draws.keys.chunks(PAGE).collect();
    let many = |n: u64| {
        let begun = thread_time();
        env.runtime.block_on(async {
            for page in pages.iter().cycle().take(n as usize) {
                let found = cache.get_many::<Product>(*page).await?;
                ensure!(found.iter().all(Option::is_some), "a key was not found");
            }
            Ok(())
        })?;
        Ok(thread_time() - begun)
    };
    let single = |n: u64| {
        let begun = thread_time();
        env.runtime.block_on(async {
            for page in pages.iter().cycle().take(n as usize) {
                let mut found = Vec::with_capacity(PAGE);
                for key in *page {
                    found.push(cache.get::<Product>(key).await?);
                }
                ensure!(found.iter().all(Option::is_some), "a key was not found");
            }
            Ok(())
        })?;
        Ok(thread_time() - begun)
    };
    let mut contenders = [
        Contender::new("crinkle", Side::Crinkle, many),
        Contender::new("single_gets", Side::Floor, single),
    ];
    let scores = race(&mut contenders, env.timed())?;
    Ok(Row::of(L1, "us", &scores, |ns| ns / 1e3).against(1.0, "single_gets"))
}

fn in_l2(env: &Env) -> Result<Row> {
    let crinkle = Crinkle { url: env.redis() };
    let draws = Draws::of(env.pick(20_000, 5_000));
    let pages = (draws.keys.len() / PAGE) as u64;
    let mut connection = env.runtime.block_on(async {
        let cache = crinkle.cache(100_000).await?;
        fill(&cache, &draws, 3).await?;
        let mut connection = raw(&crinkle.url).await?;
        for (id, key) in draws.keys.iter().enumerate() {
            let value = serde_json::to_vec(&Product::new(id))?;
            let mut set = redis::cmd("SET");
            set.arg(format!("raw:{key}")).arg(value).exec_async(&mut connection).await?;
        }
        anyhow::Ok(connection)
    })?;
    let many = |_| {
        env.runtime.block_on(async {
            let cache = crinkle.cache(100_000).await?;
            pages_of(&cache, &draws).await
        })
    };
    let mget = |_| {
        let begun = wall();
        env.runtime.block_on(async {
            for page in draws.keys.chunks(PAGE) {
                let mut mget = redis::cmd("MGET");
                page.iter().for_each(|key| _ = mget.arg(format!("raw:{key}")));
                let found: Vec<Option<Vec<u8>>> = mget.query_async(&mut connection).await?;
                ensure!(found.iter().all(Option::is_some), "a key was not found");
            }
            Ok(begun.elapsed())
        })
    };
    let mut contenders = [
        Contender::new("crinkle", Side::Crinkle, many),
        Contender::new("redis_mget", Side::Floor, mget),
    ];
    let scores = race(&mut contenders, env.counted(pages, pages))?;
    Ok(Row::of(L2, "us", &scores, |ns| ns / 1e3).against(1.2, "redis_mget"))
}

async fn pages_of(cache: &Cache, draws: &Draws) -> Result<Duration> {
    let begun = wall();
    for page in draws.keys.chunks(PAGE) {
        let found = cache.get_many::<Product>(page).await?;
        ensure!(found.iter().all(Option::is_some), "a key was not found");
    }
    Ok(begun.elapsed())
}
