//! The end of a simulated cluster: all faults end, then the guarantees of a healthy cache must
//! hold.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::actors::grant;
use super::plan::Plan;
use super::run::{Ends, Run};
use super::wish::Wish;
use super::world::{Node, World};
use crate::check::{is_level, is_overtaken, is_unverified};
use crate::history::Outcome;

/// The longest time that any call may take.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// The longest load, in milliseconds, while the cluster is healthy and no other load runs.
const SOON_MS: u64 = 400;

/// How many loads may be overtaken in a row while the cluster is healthy.
const MOST_OVERTAKEN: usize = 2;

/// Waits for the running `callers`, checks the healthy cluster, and closes the caches.
pub(super) async fn play(world: &Arc<World>, callers: Vec<tokio::task::JoinHandle<usize>>) {
    for caller in callers {
        match timeout(LONGEST_CALL, caller).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => violated(world, "L3", "a call panicked".to_owned()),
            Err(_) => violated(world, "L3", "a call does not end".to_owned()),
        }
    }
    sleep(Duration::from_millis(world.plan.settles_ms())).await;
    equal_ledgers(world);
    for node in world.living() {
        for key in 0..world.plan.keys {
            call(world, &node, Wish::LastLook { key }).await;
        }
    }
    for node in world.living() {
        for key in 0..world.plan.keys {
            free(world, &node, key).await;
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

/// **L1** equal ledgers: the last `SYNC` of each node agrees with the ledger.
fn equal_ledgers(world: &World) {
    let due = world.ms().saturating_sub(2 * world.plan.poll_ms + 1000);
    for node in world.living() {
        let id = node.id;
        let level = is_level(&world.log.lock(), id, due);
        match level {
            Some(true) => {}
            Some(false) => violated(world, "L1", format!("node {id} has another ledger than L2")),
            None => violated(world, "L1", format!("node {id} does not poll")),
        }
    }
}

/// **S14** no key is stuck: a load ends soon. **L8** no copy stays unverified: after a kept load,
/// the next read sends nothing to L2, unless the key has changed.
async fn free(world: &Arc<World>, node: &Arc<Node>, key: u8) {
    let wish = Wish::Load { key, run: quick(Ends::Well) };
    let mut first = call(world, node, wish.clone()).await;
    let took = {
        let first = &world.log.lock().calls[first];
        first.end.map_or(u64::MAX, |end| end.ms - first.start.ms)
    };
    for _ in 0..MOST_OVERTAKEN {
        if !is_overtaken(&world.log.lock(), first) {
            break;
        }
        first = call(world, node, wish.clone()).await;
    }
    let second = call(world, node, wish).await;
    let unverified = is_unverified(&world.log.lock(), [first, second], key);
    let id = node.id;
    if took > SOON_MS {
        violated(world, "S14", format!("a load of key {key} on node {id} took {took} ms"));
    }
    if unverified {
        violated(
            world,
            "L8",
            format!("node {id} has an unverified copy of key {key} in a healthy cluster"),
        );
    }
}

/// A factory that takes 2 ms.
fn quick(ends: Ends) -> Run {
    Run { before: 1, after: 1, ends, adds: 0 }
}

/// **L4** a fill is cached, locally and for the other nodes. **S14** a failed leader releases its
/// load lock.
async fn probe(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
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
    if !well || took > SOON_MS {
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
