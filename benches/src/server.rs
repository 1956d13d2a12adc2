//! What a Redis server has done: calls of commands, also from scripts, and processor time.

use std::collections::BTreeMap;
use std::ops::Sub;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;

/// Totals since the server started, or the difference of two.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    calls: BTreeMap<String, f64>,
    /// Microseconds in scripts, without reading requests and writing replies.
    pub(crate) script_us: f64,
    /// Microseconds of processor time of the thread that runs commands.
    pub(crate) cpu_us: f64,
}

impl Work {
    /// Reads the totals.
    pub(crate) async fn of(connection: &mut MultiplexedConnection) -> Result<Self> {
        let info: String = redis::cmd("INFO").arg("all").query_async(connection).await?;
        let lines = || info.lines().filter_map(|line| line.split_once(':'));
        let (mut calls, mut script_us) = (BTreeMap::new(), 0.0);
        for (name, fields) in lines().filter(|(name, _)| name.starts_with("cmdstat_")) {
            let field = |field: &str| {
                let found = fields.split(',').find_map(|part| part.strip_prefix(field));
                found.and_then(|number| number.strip_prefix('=')?.parse::<f64>().ok())
            };
            if name == "cmdstat_evalsha" {
                script_us = field("usec").context("evalsha has no usec")?;
            }
            calls.insert(name.to_owned(), field("calls").context("a command has no calls")?);
        }
        let seconds = |of: &str| {
            let found = lines().find(|(name, _)| *name == of);
            found.and_then(|(_, number)| number.parse::<f64>().ok()).context(of.to_owned())
        };
        let cpu = seconds("used_cpu_user")? + seconds("used_cpu_sys")?;
        Ok(Self { calls, script_us, cpu_us: cpu * 1e6 })
    }

    /// Calls of all commands except `INFO`, those from scripts included.
    pub(crate) fn calls(&self) -> f64 {
        let counted = self.calls.iter().filter(|(name, _)| *name != "cmdstat_info");
        counted.map(|(_, calls)| calls).sum()
    }

    /// Calls per operation of each command, for a note.
    pub(crate) fn calls_per(&self, operations: f64) -> String {
        let often = self.calls.iter().filter(|(_, calls)| **calls >= operations / 100.0);
        let each = often.map(|(name, calls)| {
            let name = name.trim_start_matches("cmdstat_");
            format!("{name} {:.2}", calls / operations)
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Sub<&Self> for Work {
    type Output = Self;

    fn sub(mut self, before: &Self) -> Self {
        for (name, calls) in &mut self.calls {
            *calls -= before.calls.get(name).copied().unwrap_or(0.0);
        }
        let (script_us, cpu_us) = (self.script_us - before.script_us, self.cpu_us - before.cpu_us);
        Self { script_us, cpu_us, ..self }
    }
}
