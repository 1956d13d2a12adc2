//! Replays requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::input::Input;
use super::source::{Cluster, Source};
use crate::measure::wall;
use crate::workload::key;

/// The number of nodes.
pub(crate) const NODES: usize = 3;

/// The number of callers on each node.
const CALLERS: usize = 16;

/// One in this many requests changes its page.
pub(crate) const WRITES: usize = 50;

/// How long after a removal no node may answer the removed version: far more than a message takes.
const GRACE: Duration = Duration::from_millis(10);

/// The result of a replay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// How many requests were made.
    pub(crate) requests: u64,
    hits: u64,
    reads: u64,
    pub(crate) origin_calls: u64,
    pub(crate) stale: u64,
    pub(crate) seconds: f64,
}

impl Told {
    pub(crate) fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.reads as f64
    }
}

/// Replays all requests on the nodes, with alternating callers. It stops at `limit`.
pub(crate) async fn replay(
    cluster: &dyn Cluster,
    input: &Input,
    limit: Option<Duration>,
) -> Result<Told> {
    let source = Source::new(input.end());
    let told = Cell::new(Told::default());
    let begun = wall();
    let callers = NODES * CALLERS;
    let caller = |first: usize| {
        let (source, told) = (&source, &told);
        async move {
            for (at, page) in input.requests.iter().enumerate().skip(first).step_by(callers) {
                if limit.is_some_and(|limit| begun.elapsed() > limit) {
                    break;
                }
                request(cluster, source, first % NODES, at, *page as usize, told).await?;
                // A hit does not wait for anything, so yield to the other callers.
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        }
    };
    try_join_all((0..callers).map(caller)).await?;
    let origin_calls = source.calls.load(Ordering::Relaxed);
    Ok(Told { origin_calls, seconds: begun.elapsed().as_secs_f64(), ..told.get() })
}

async fn request(
    cluster: &dyn Cluster,
    source: &Arc<Source>,
    node: usize,
    at: usize,
    page: usize,
    told: &Cell<Told>,
) -> Result<()> {
    let key = key(page);
    let mut now = Told { requests: 1, ..Told::default() };
    if at % WRITES == WRITES - 1 {
        let version = source.change(page);
        cluster.remove(node, &key).await?;
        sleep(GRACE).await;
        source.settle(page, version);
    } else {
        let oldest = source.oldest(page);
        let mut read = cluster.read(node, &key, page, source);
        let mut polls = 0;
        let version = poll_fn(|cx| {
            polls += 1;
            read.as_mut().poll(cx)
        });
        now.stale = u64::from(version.await? < oldest);
        now.reads = 1;
        // An answer in the first poll came from L1: everything else waits for Redis.
        now.hits = u64::from(polls == 1);
    }
    let sum = told.get();
    told.set(Told {
        requests: sum.requests + now.requests,
        hits: sum.hits + now.hits,
        reads: sum.reads + now.reads,
        stale: sum.stale + now.stale,
        ..sum
    });
    Ok(())
}

/// The hit ratio of a moka with the same capacity on each node, for the same requests.
pub(crate) fn bare_moka(input: &Input, capacity: usize) -> f64 {
    let nodes: Vec<_> =
        (0..NODES).map(|_| moka::sync::Cache::<u32, ()>::new(capacity as u64)).collect();
    let (mut hits, mut reads) = (0_u64, 0_u64);
    for (at, page) in input.requests.iter().enumerate() {
        if at % WRITES == WRITES - 1 {
            nodes.iter().for_each(|node| node.invalidate(page));
            continue;
        }
        let node = &nodes[at % NODES];
        reads += 1;
        match node.get(page) {
            Some(()) => hits += 1,
            None => node.insert(*page, ()),
        }
    }
    hits as f64 / reads as f64
}
