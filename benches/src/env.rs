//! What the rows share: the arguments, the runtime, the server.

use std::cell::OnceCell;
use std::env::args;
use std::time::Duration;

use anyhow::Result;
use crinkle_testkit::redis::RedisServer;
use tokio::runtime::{Builder, Runtime};

use crate::measure::{Amount, Effort};

/// The command-line arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) write: bool,
    pub(crate) grow: bool,
    pub(crate) trace: Option<String>,
    pub(crate) redis: Option<String>,
    pub(crate) only: Option<String>,
    /// Internal: arguments of a process that is part of a row.
    pub(crate) worker: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--json" => found.json = true,
                "--quick" => found.quick = true,
                "--write" => found.write = true,
                "--grow" => found.grow = true,
                "--trace" => found.trace = Some(value()?),
                "--redis" => found.redis = Some(value()?),
                "--only" => found.only = Some(value()?),
                "--worker" => found.worker = words.by_ref().collect(),
                _ => return Err(format!("{word} is not known")),
            }
        }
        Ok(found)
    }
}

/// What the rows share.
pub(crate) struct Env {
    pub(crate) arguments: Arguments,
    /// One thread for all contenders: the rows compare the work of a call, not schedulers.
    pub(crate) runtime: Runtime,
    server: OnceCell<RedisServer>,
}

impl Env {
    pub(crate) fn new(arguments: Arguments) -> Result<Self> {
        Ok(Self { arguments, runtime: one_thread()?, server: OnceCell::new() })
    }

    pub(crate) fn quick(&self) -> bool {
        self.arguments.quick
    }

    /// Returns one of two values, depending on `--quick`.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick() { quick } else { full }
    }

    /// The URL of the server that was given, or of one that this process starts.
    pub(crate) fn redis(&self) -> String {
        match &self.arguments.redis {
            Some(url) => url.clone(),
            None => self.server.get_or_init(RedisServer::start).url(),
        }
    }

    /// Effort for rounds in memory, limited by time.
    pub(crate) fn timed(&self) -> Effort {
        let batch = Duration::from_millis(self.pick(60, 15));
        Effort { rounds: self.pick(9, 5), amount: Amount::Time(batch) }
    }

    /// Effort for rounds of a fixed number of operations.
    pub(crate) fn counted(&self, full: u64, quick: u64) -> Effort {
        Effort { rounds: self.pick(7, 5), amount: Amount::Ops(self.pick(full, quick)) }
    }
}

/// Creates a runtime on the calling thread.
pub(crate) fn one_thread() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The command that produced a result.
pub(crate) fn command() -> String {
    let words: Vec<_> = args().skip(1).collect();
    format!("cargo run --release -p crinkle-benches --bin scoreboard -- {}", words.join(" "))
}
