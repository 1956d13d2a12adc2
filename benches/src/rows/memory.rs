//! What an entry takes.

use std::sync::Arc;

use anyhow::Result;
use crinkle::{Cache, EntryOptions};

use crate::board::Board;
use crate::env::Env;
use crate::hits::{LIFE, tags};
use crate::row::Row;
use crate::workload::{Product, key};

const ENTRIES: usize = 100_000;
const NAMES: [(&str, usize); 2] = [("memory/entry/0tags", 0), ("memory/entry/3tags", 3)];

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    for (name, count) in NAMES {
        if board.wants(name) {
            let mut row = Row::new(name, "B", crinkle(env, count)?).floor("moka_arc", moka());
            row.peers = crate::peers::memory(env, ENTRIES, count)?;
            board.push(row.against(1.2, "moka_arc"));
        }
    }
    Ok(())
}

/// Bytes on the heap per entry that this leaves behind.
pub(crate) fn per_entry<T>(entries: usize, fill: impl FnOnce() -> T) -> f64 {
    let mut kept = None;
    let count = allocation_counter::measure(|| kept = Some(fill()));
    drop(kept);
    count.bytes_current as f64 / entries as f64
}

fn crinkle(env: &Env, tags_each: usize) -> Result<f64> {
    let mut result = Ok(());
    let bytes = per_entry(ENTRIES, || {
        let cache = Cache::builder("bench")
            .capacity(ENTRIES as u64 * 2)
            .default_options(EntryOptions::new(LIFE))
            .build();
        let filled = cache.map_err(anyhow::Error::from).and_then(|cache| {
            env.runtime.block_on(async {
                for id in 0..ENTRIES {
                    cache.set(&key(id), Product::new(id)).tags(tags(tags_each)).await?;
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
