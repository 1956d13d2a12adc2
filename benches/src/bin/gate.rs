//! Guards allocations and instructions of a hit against regressions. It measures no times, so the
//! load of the machine does not matter.
//!
//! Instructions depend on the compiler, so they are compared with a baseline of the same compiler.
//! A compiler without a baseline passes. `--write` stores the present numbers as the baseline.
//!
//! A separate program, because other code compiled with it changes the code of a hit a little.
//! `cargo run --release -p crinkle-benches --no-default-features --bin gate [-- --write]`

#![expect(dead_code, reason = "the modules are those of the scoreboard")]
#![expect(clippy::cast_possible_truncation, reason = "counts and times of a benchmark are small")]
#![cfg_attr(feature = "peers", expect(unused_imports, reason = "as above"))]

#[path = "../env.rs"]
mod env;
#[path = "../hits.rs"]
mod hits;
#[path = "../instructions.rs"]
mod instructions;
#[path = "../measure.rs"]
mod measure;
#[path = "../text.rs"]
mod text;
#[path = "../workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Error, Result, ensure};

use crate::env::{Arguments, Env};
use crate::hits::{Get, GetOrSet, Hits, Peek, allocations, crinkle_of, crinkle_tagged};
use crate::instructions::{countable, per_read};
use crate::text::{number, rustc};
use crate::workload::Draws;

/// The largest allowed ratio of a count to its baseline.
const MARGIN: f64 = 1.03;

const COUNTED: [&str; 4] = ["crinkle", "crinkle_10_tags", "crinkle_get", "crinkle_peek"];

/// Instructions per read, by reader.
type Counts = BTreeMap<String, f64>;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse(std::env::args().skip(1)).map_err(Error::msg)?;
    if let [kind, name] = arguments.worker.as_slice() {
        ensure!(kind == "read", "no worker is called {kind:?}");
        instructions::read(name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let env = Env::new(arguments)?;
    let mut sound = no_allocations(&env)?;
    if countable() {
        sound &= no_more_instructions(&env)?;
    } else {
        println!("valgrind is not installed: instructions are not counted");
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn no_allocations(env: &Env) -> Result<bool> {
    let draws = Draws::hot();
    let (plain, tagged) = env.runtime.block_on(async {
        anyhow::Ok((crinkle_of(&draws, 0).await?, crinkle_tagged(&draws, 10).await?))
    })?;
    let readers: [(&str, Box<dyn Hits>); 4] = [
        ("crinkle", Box::new(GetOrSet(plain.clone()))),
        ("crinkle_10_tags", tagged.hits),
        ("crinkle_get", Box::new(Get(plain.clone()))),
        ("crinkle_peek", Box::new(Peek(plain))),
    ];
    let mut sound = true;
    for (name, reader) in readers {
        let allocs = allocations(env, &draws, &*reader);
        let within = allocs < MOST_ALLOCATIONS;
        println!("{name:<16} {allocs:.3} allocations a hit{}", verdict(within));
        sound &= within;
    }
    Ok(sound)
}

/// The loop itself makes one allocation; a hit makes none.
const MOST_ALLOCATIONS: f64 = 0.001;

fn no_more_instructions(env: &Env) -> Result<bool> {
    let compiler = format!("{} {}", rustc(), std::env::consts::ARCH);
    let mut baselines = baselines()?;
    let baseline = baselines.get(&compiler).cloned().unwrap_or_default();
    if baseline.is_empty() {
        println!("no baseline for {compiler}: instructions are printed and not compared");
    }
    let (mut sound, mut counts) = (true, Counts::new());
    for name in COUNTED {
        let count = per_read(name)?;
        counts.insert(name.to_owned(), count.round());
        let before = baseline.get(name).copied().unwrap_or(count);
        let within = count <= before * MARGIN;
        let (is, was) = (number(count), number(before));
        println!("{name:<16} {is} instructions a hit, baseline {was}{}", verdict(within));
        sound &= within;
    }
    if env.arguments.write {
        baselines.insert(compiler, counts);
        fs::write(file(), serde_json::to_string_pretty(&baselines)? + "\n")?;
        return Ok(true);
    }
    Ok(sound)
}

fn verdict(within: bool) -> &'static str {
    if within { "" } else { ": WORSE" }
}

fn baselines() -> Result<BTreeMap<String, Counts>> {
    Ok(serde_json::from_str(&fs::read_to_string(file())?)?)
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json")
}
