//! Instructions per read, counted by callgrind. The number does not depend on the load of the
//! machine.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::env::one_thread;
use crate::hits::{Get, GetOrSet, Hits, Peek, crinkle_of, crinkle_tagged, floors};
use crate::workload::Draws;

/// How many reads are counted.
const READS: u64 = 65_536;

/// Each cache has its own hash seeds, and so its own collisions. The count is the mean of this many
/// caches.
const CACHES: u64 = 32;

/// Returns whether `valgrind` is installed.
pub(crate) fn countable() -> bool {
    let status = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Instructions per read of a cache that [`named`] knows.
pub(crate) fn per_read(name: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counted_reads*")
        .arg(std::env::current_exe()?)
        .args(["--worker", "read", name])
        .stdin(Stdio::null())
        .output()
        .context("valgrind could not be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, n)| n);
    let collected = collected.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(collected.trim().parse::<f64>()? / READS as f64)
}

/// Reads in a loop, for callgrind.
pub(crate) fn read(name: &str) -> Result<()> {
    let runtime = one_thread()?;
    let draws = Draws::hot();
    for _ in 0..CACHES {
        let hits = runtime.block_on(named(name, &draws))?;
        let each = READS / CACHES;
        // The first read of an entry does more work than later ones, so it is not counted.
        runtime.block_on(hits.read(&draws, each));
        let sum = counted_reads(&runtime, &draws, &*hits, each);
        ensure!(sum == draws.sum(each), "a read found nothing, or another product");
    }
    Ok(())
}

/// The only function that callgrind counts.
#[inline(never)]
fn counted_reads(runtime: &Runtime, draws: &Draws, hits: &dyn Hits, reads: u64) -> u64 {
    runtime.block_on(hits.read(draws, reads))
}

/// Creates a cache by its name.
async fn named(name: &str, draws: &Draws) -> Result<Box<dyn Hits>> {
    Ok(match name {
        "crinkle" => Box::new(GetOrSet(crinkle_of(draws, 0).await?)),
        "crinkle_10_tags" => crinkle_tagged(draws, 10).await?.hits,
        "crinkle_get" => Box::new(Get(crinkle_of(draws, 0).await?)),
        "crinkle_peek" => Box::new(Peek(crinkle_of(draws, 0).await?)),
        _ => {
            let floor = floors(draws).into_iter().find(|hits| hits.name() == name);
            floor.with_context(|| format!("no cache is called {name:?}"))?
        }
    })
}
