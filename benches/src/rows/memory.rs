//! The memory of an entry, and when it is freed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use crinkle::{Cache, EntryOptions};
use tokio::time::sleep;

use crate::board::Board;
use crate::env::Env;
use crate::hits::{TTL, tags};
use crate::measure::{per_entry, thread_time};
use crate::peers;
use crate::row::Row;
use crate::workload::{Product, key};

const ENTRIES: usize = 100_000;
const NAMES: [(&str, usize); 2] = [("memory/entry/0tags", 0), ("memory/entry/3tags", 3)];

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    for (name, count) in NAMES {
        if board.wants(name) {
            let mut row = Row::new(name, "B", crinkle(env, count)?).floor("moka_arc", moka());
            row.peers = peers::memory(env, ENTRIES, count)?;
            board.push(row.against(1.2, "moka_arc"));
        }
    }
    if board.wants(DEAD) && !env.quick() {
        board.push(env.runtime.block_on(dead())?);
    }
    Ok(())
}

/// Half of a million entries expire and are never read again.
async fn dead() -> Result<Row> {
    let cache = Cache::builder("bench").capacity(MANY as u64 * 2).build()?;
    for id in 0..MANY {
        let life = if id % 2 == 0 { SHORT } else { TTL };
        cache.set(key(id), Product::new(id)).duration(life).await?;
    }
    sleep(SHORT).await;
    let busy = thread_time();
    sleep(MINUTE).await;
    let busy = (thread_time() - busy).as_secs_f64() / MINUTE.as_secs_f64();
    let (held, living) = (cache.entry_count() as f64, MANY as f64 / 2.0);
    let left = (held - living) / living * 100.0;
    let row = Row::new(DEAD, "% still held", left)
        .goal("0 left".to_owned(), left, left <= 0.0)
        .goal("< 1 % of a core".to_owned(), busy * 100.0, busy < 0.01);
    Ok(row.note(format!(
        "{:.2} % of a core for {MANY} entries, half of which were dropped",
        busy * 100.0
    )))
}

const DEAD: &str = "memory/dead/after_60s";
const MANY: usize = 1_000_000;
const SHORT: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn crinkle(env: &Env, tags_each: usize) -> Result<f64> {
    let mut result = Ok(());
    let bytes = per_entry(ENTRIES, || {
        let cache = Cache::builder("bench")
            .capacity(ENTRIES as u64 * 2)
            .default_options(EntryOptions::new(TTL))
            .build();
        let filled = cache.map_err(anyhow::Error::from).and_then(|cache| {
            env.runtime.block_on(async {
                for id in 0..ENTRIES {
                    cache.set(key(id), Product::new(id)).tags(tags(tags_each)).await?;
                }
                _ = cache.entry_count();
                Ok(cache)
            })
        });
        filled.map_err(|error| result = Err(error)).ok()
    });
    result.map(|()| bytes)
}

fn moka() -> f64 {
    per_entry(ENTRIES, || {
        let cache = moka::sync::Cache::new(ENTRIES as u64 * 2);
        for id in 0..ENTRIES {
            cache.insert(key(id), Arc::new(Product::new(id)));
        }
        cache.run_pending_tasks();
        cache
    })
}
