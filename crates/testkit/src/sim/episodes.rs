//! Short sequences that chance alone seldom brings together, at the end of some universes.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::EntryOptions;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::actors::{Wish, grant, spawn};
use super::plan::Plan;
use super::source::{Ends, Run};
use super::trouble;
use super::world::{Node, Sick, World};

/// Plays one episode, or none. All was well before; nothing is afterwards.
pub(super) async fn play(world: &Arc<World>) {
    let mut rng = super::plan::rng(world.plan.seed, 4);
    match rng.random_range(0..10) {
        0..3 => two_removals(world, &mut rng).await,
        3..6 if world.plan.fails_over => lost_removal(world, &mut rng).await,
        3..6 => answered_late(world, &mut rng).await,
        6..7 => cut_off(world).await,
        7..8 => unsure_set(world, &mut rng).await,
        8..9 if !world.plan.fused => back_by_then(world).await,
        8..9 => {}
        _ => last_word(world).await,
    }
}

fn long() -> EntryOptions {
    Plan::defaults()
}

async fn call(world: &Arc<World>, node: &Arc<Node>, wish: Wish, options: EntryOptions) {
    grant(Arc::clone(world), Arc::clone(node), wish, options, None).await;
}

fn load() -> Wish {
    Wish::Load { key: 0, run: Run { before: 0, after: 1, ends: Ends::Well, adds: 0 } }
}

fn get() -> Wish {
    Wish::Get { key: 0, stale: false }
}

/// One tag is removed twice, and loaded in between where the first removal is known; the other node
/// may hear of them in any order.
async fn two_removals(world: &Arc<World>, rng: &mut StdRng) {
    let (one, two) = (world.node(0), world.node(1));
    let tags = world.plan.tags[0];
    two.link.trouble.lock().reorders = world.ms() + 2000;
    world.fault("messages reordered", Some(two.id), 2000);
    if rng.random_bool(0.5) {
        // Nor does the ledger tell what was missed before the messages do.
        let late = Sick::AnswersLate(rng.random_range(100..350));
        two.link.trouble.lock().sick = Some((late, world.ms() + 2000));
        world.fault("L2 slow", Some(two.id), 2000);
    }
    for _ in 0..3 {
        call(world, &one, Wish::RemoveTags { tags }, long()).await;
        call(world, &one, load(), long()).await;
        call(world, &one, Wish::RemoveTags { tags }, long()).await;
        for _ in 0..3 {
            sleep(Duration::from_millis(rng.random_range(50..250))).await;
            call(world, &two, get(), long()).await;
        }
    }
}

/// A failover takes back a removal, by tag or of a key, of which one node has not heard.
async fn lost_removal(world: &Arc<World>, rng: &mut StdRng) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    two.link.trouble.lock().mute = world.ms() + 400;
    world.fault("deaf", Some(two.id), 400);
    let (snapshot, order) = (world.store.snapshot(), world.at().order);
    let by_tag = Wish::RemoveTags { tags: world.plan.tags[0] };
    let wish = if rng.random_bool(0.5) { by_tag } else { Wish::Remove { keys: vec![0] } };
    call(world, &one, wish, long()).await;
    sleep(Duration::from_millis(rng.random_range(0..60))).await;
    trouble::fail_over(world, snapshot, order);
}

/// A node misses the last message of another before a silence, and the first news of how many there were.
/// Its own heartbeats come back.
async fn last_word(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    let lasts = world.plan.poll_ms + 200;
    two.link.trouble.lock().hears_itself = world.ms() + lasts;
    world.fault("messages dropped", Some(two.id), lasts);
    call(world, &one, Wish::Set { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(lasts)).await;
}

/// A node hears nothing and nobody, for longer than its coherence lease.
async fn cut_off(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    let lasts = world.plan.lease_ms + 4000;
    trouble::cut_off(world, &two, lasts);
    world.fault("L2 and bus cut off", Some(two.id), lasts);
    call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(world.plan.terms().lease_ms + 1000)).await;
    call(world, &two, get(), long()).await;
}

/// A `set` whose outcome is unknown runs late, after its node has loaded something newer.
async fn unsure_set(world: &Arc<World>, rng: &mut StdRng) {
    let one = world.node(0);
    let late = Sick::RunsLateBy(rng.random_range(550..850));
    one.link.trouble.lock().sick = Some((late, world.ms() + 200));
    world.fault("command runs late", Some(one.id), 200);
    let short_here = long().l1_duration(Duration::from_millis(100));
    call(world, &one, Wish::Set { keys: vec![0] }, short_here).await;
    call(world, &one, load(), long()).await;
    sleep(Duration::from_millis(1000)).await;
}

/// A read is on its way while the removal that waited reaches L2.
async fn answered_late(world: &Arc<World>, rng: &mut StdRng) {
    let one = world.node(0);
    let sick = |sick, for_ms| {
        one.link.trouble.lock().sick = Some((sick, world.ms() + for_ms));
    };
    for _ in 0..3 {
        call(world, &one, Wish::Set { keys: vec![0] }, long()).await;
        sick(Sick::Full, 50);
        world.fault("L2 full", Some(one.id), 50);
        call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
        sleep(Duration::from_millis(rng.random_range(50..world.plan.poll_ms))).await;
        // For the read alone.
        sick(Sick::AnswersLate(300), 1);
        world.fault("L2 slow", Some(one.id), 300);
        call(world, &one, load(), long()).await;
    }
}

/// Writes begin while L2 is left alone, and wait for the bus until L2 answers again.
async fn back_by_then(world: &Arc<World>) {
    let one = world.node(0);
    let (down, slow) = (world.plan.poll_ms * 2, world.plan.poll_ms * 4);
    one.link.trouble.lock().sick = Some((Sick::Down, world.ms() + down));
    world.fault("L2 down", Some(one.id), down);
    for _ in 0..4 {
        call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
    }
    sleep(Duration::from_millis(down - 100)).await;
    {
        let mut trouble = one.link.trouble.lock();
        trouble.sick = Some((Sick::Slow, world.ms() + slow));
        trouble.publish_hangs = world.ms() + slow;
    }
    world.fault("L2 slow", Some(one.id), slow);
    world.fault("publish hangs", Some(one.id), slow);
    let mut callers = Vec::new();
    for _ in 0..12 {
        let removal = Wish::Remove { keys: vec![0] };
        callers.push(spawn(Arc::clone(world), Arc::clone(&one), removal, long(), None));
        sleep(Duration::from_millis(90)).await;
    }
    for caller in callers {
        let _ = caller.await;
    }
}
