//! Runs the work of one process of a row.

use anyhow::{Result, bail};
use tokio::runtime::Builder;

use super::over_redis::load;
use super::propagation::receive;
use super::stampede::crowd;
use crate::instructions;

/// Runs the work that the parent selected.
pub(crate) fn work(kind: &str, rest: &[String]) -> Result<()> {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    if let ("read", [name]) = (kind, words.as_slice()) {
        return instructions::read(name);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match (kind, words.as_slice()) {
            ("crowd", [url, key, callers]) => crowd(url, key, callers.parse()?).await,
            ("load", [who, url, callers, keys]) => {
                load(who, url, callers.parse()?, keys.parse()?).await
            }
            ("receive", [who, url]) => receive(who, url).await,
            _ => bail!("unknown worker {kind:?}"),
        }
    })
}
