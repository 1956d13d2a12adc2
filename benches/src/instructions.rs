//! Instructions per read, counted by callgrind: a number that does not depend on what else the machine
//! does.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::env::one_thread;
use crate::hits::{Get, GetOrSet, Hits, Peek, crinkle_of, crinkle_tagged, floors};
use crate::workload::Draws;

/// Two counts are taken, and their difference divided: what starts and fills the cache drops out.
const READS: [u64; 2] = [8_192, 24_576];

/// Whether `valgrind` is installed.
pub(crate) fn countable() -> bool {
    let status = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// How often that is done: the seeds of the hashes are others each time, and so are the collisions.
const TIMES: usize = 3;

/// Instructions per read of a cache that [`named`] knows; the fewest of several counts.
pub(crate) fn per_read(name: &str) -> Result<f64> {
    let mut fewest = f64::INFINITY;
    for _ in 0..TIMES {
        let [few, many] = READS.map(|reads| count(name, reads));
        fewest = fewest.min((many? - few?) / (READS[1] - READS[0]) as f64);
    }
    Ok(fewest)
}

fn count(name: &str, reads: u64) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--worker", "read", name, &reads.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("valgrind could not be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, n)| n);
    Ok(collected.with_context(|| format!("callgrind counted nothing: {said}"))?.trim().parse()?)
}

/// Reads in a loop, for callgrind.
pub(crate) fn read(name: &str, reads: u64) -> Result<()> {
    let runtime = one_thread()?;
    let draws = Draws::hot();
    let hits = runtime.block_on(named(name, &draws))?;
    let sum = runtime.block_on(hits.read(&draws, reads));
    ensure!(sum == draws.sum(reads), "a read found nothing, or another product");
    Ok(())
}

/// A cache by its name.
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
