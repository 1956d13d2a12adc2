//! Libraries for the same purpose, each used as its own documentation shows.

mod amalgam;
mod cachet;
mod fusioncache;
mod multi_tier;
mod oxcache;

use anyhow::Result;

use crate::env::Env;
use crate::hits::{Hits, Tagged};
use crate::measure::LIMIT;
use crate::remote::Remote;
use crate::row::Numbers;
use crate::trace::{Input, NODES, Told, replay};
use crate::workload::Draws;

/// All peers, filled; L1 only.
pub(crate) fn all(env: &Env, draws: &Draws) -> Result<Vec<Box<dyn Hits>>> {
    env.runtime.block_on(async {
        Ok(vec![
            Box::new(amalgam::local(draws, 0).await?) as Box<dyn Hits>,
            Box::new(fusioncache::local(draws).await?),
            Box::new(cachet::local(draws).await?),
            Box::new(multi_tier::local(draws).await?),
            Box::new(oxcache::local(draws).await?),
        ])
    })
}

/// Peers with tags, filled with this many tags per entry.
pub(crate) fn tagged(env: &Env, draws: &Draws, count: usize) -> Result<Vec<Tagged>> {
    let amalgam = env.runtime.block_on(amalgam::local(draws, count))?;
    let cache = amalgam.0.clone();
    Ok(vec![Tagged {
        hits: Box::new(amalgam),
        remove: Box::new(move |tag| {
            let cache = cache.clone();
            Box::pin(async move { drop(cache.remove_by_tag(tag).await) })
        }),
    }])
}

/// Peers whose hits in L2 are measured.
pub(crate) fn hits_in_l2(url: &str) -> Vec<Box<dyn Remote>> {
    let mut remotes = misses(url);
    remotes.push(Box::new(multi_tier::InRedis { url: url.to_owned() }));
    remotes
}

/// Peers whose misses are measured.
pub(crate) fn misses(url: &str) -> Vec<Box<dyn Remote>> {
    vec![Box::new(amalgam::InRedis { url: url.to_owned() })]
}

/// Bytes per entry with this many tags.
pub(crate) fn memory(env: &Env, entries: usize, tags_each: usize) -> Result<Numbers> {
    Ok(Numbers::from([("amalgam", amalgam::bytes(env, entries, tags_each)?)]))
}

/// Peers whose replay of a trace is measured, with this L1 capacity on each node.
pub(crate) fn traced(
    env: &Env,
    url: &str,
    capacity: usize,
    input: &Input,
) -> Result<Vec<(&'static str, Told)>> {
    let told = env.runtime.block_on(async {
        let nodes = amalgam::Nodes::start(url, NODES, capacity).await?;
        replay(&nodes, input, Some(LIMIT)).await
    })?;
    Ok(vec![("amalgam", told)])
}
