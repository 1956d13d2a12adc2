//! The end of a universe: everything heals, and then what is promised of a healthy cache must hold.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::actors::{Wish, grant};
use super::plan::Plan;
use super::source::{Ends, Run};
use super::world::{Node, World};
use crate::history::Outcome;

/// How long a call may take at most, whatever happens.
const LONGEST_CALL: Duration = Duration::from_secs(40);

/// Waits, looks and closes. `callers` are still running.
pub(super) async fn play(world: &Arc<World>, callers: Vec<tokio::task::JoinHandle<usize>>) {
    for caller in callers {
        match timeout(LONGEST_CALL, caller).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => violated(world, "L3", "a call panicked".to_owned()),
            Err(_) => violated(world, "L3", "a call does not end".to_owned()),
        }
    }
    // A sequence is told every ten polls; a straggling `set` holds recovery back for two seconds.
    sleep(Duration::from_millis(12 * world.plan.poll_ms + 2500)).await;
    converged(world);
    for node in world.living() {
        for key in 0..world.plan.keys {
            call(world, &node, Wish::LastLook { key }).await;
        }
    }
    probe(world).await;
    close(world).await;
}

fn violated(world: &World, rule: &'static str, what: String) {
    let at = world.at();
    world.log.lock().seen.push((rule, what, None, at));
}

async fn call(world: &Arc<World>, node: &Arc<Node>, wish: Wish) -> usize {
    grant(Arc::clone(world), Arc::clone(node), wish, Plan::defaults(), None).await
}

/// **L1** equal ledgers, **L6** recovery drained, **S14** no key stuck, **S2** nothing in doubt.
fn converged(world: &World) {
    let nodes = world.living();
    let frontiers: Vec<_> = nodes.iter().map(|n| n.cache.health().ledger_frontier).collect();
    if frontiers.iter().any(|frontier| *frontier != frontiers[0]) {
        violated(world, "L1", format!("the ledgers differ: {frontiers:?}"));
    }
    for node in nodes {
        let (id, health) = (node.id, node.cache.health());
        if health.recovery_backlog + health.pending_removals > 0 {
            violated(world, "L6", format!("node {id} still has invalidations for L2"));
        }
        if health.in_flight > 0 {
            violated(world, "S14", format!("node {id} has a load that does not end"));
        }
        if health.ledger_suspect || !health.coherent {
            violated(world, "L1", format!("node {id} is in doubt though all is well"));
        }
    }
}

/// **L4** a fill is cached, here and for the others; **S14** a leader that fails gives its lease back.
async fn probe(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    let quick = |ends| Run { before: 1, after: 1, ends, adds: 0 };
    let good = Wish::Load { key: 4, run: quick(Ends::Well) };
    let calls = [
        call(world, &one, good.clone()).await,
        call(world, &one, good.clone()).await,
        call(world, &two, good).await,
    ];
    for (call, expected) in calls.into_iter().zip(["factory", "L1", "L2"]) {
        let log = world.log.lock();
        let source = log.calls[call].answers.first().map(|answer| answer.source);
        drop(log);
        if source != Some(expected) {
            violated(world, "L4", format!("answered from {source:?}, not from {expected}"));
        }
    }
    let failed = call(world, &one, Wish::Load { key: 5, run: quick(Ends::Badly) }).await;
    sleep(Duration::from_millis(100)).await;
    let after = call(world, &two, Wish::Load { key: 5, run: quick(Ends::Well) }).await;
    let log = world.log.lock();
    let took = log.calls[after].end.map_or(u64::MAX, |end| end.ms - log.calls[after].start.ms);
    let well =
        log.calls[failed].outcome == Outcome::Failed && log.calls[after].outcome == Outcome::Done;
    drop(log);
    if !well || took > 400 {
        violated(world, "S14", format!("the load after one that failed took {took} ms"));
    }
}

/// **L7** shutdown ends.
async fn close(world: &Arc<World>) {
    for node in world.living() {
        match timeout(Duration::from_secs(12), node.cache.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => violated(world, "L7", format!("closing failed: {error}")),
            Err(_) => violated(world, "L7", "closing does not end".to_owned()),
        }
    }
}
