//! Short sequences that random faults seldom produce, at the end of some clusters.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::EntryOptions;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::actors::{grant, spawn};
use super::demotion::leave_behind;
use super::link::Sick;
use super::plan::Plan;
use super::run::{Ends, Run};
use super::trouble;
use super::wish::Wish;
use super::world::{Node, World};

/// Older writes are not asserted again after a failover, in milliseconds.
const REASSERTED_MS: u64 = 10_000;

/// Plays one or two episodes. The cluster is healthy before, and need not be afterwards.
pub(super) async fn play(world: &Arc<World>) {
    if world.plan.switches.episodes {
        let mut rng = super::plan::rng(world.plan.seed, 7);
        match rng.random_range(0..20) {
            0 => between_subscriptions(world).await,
            1..3 if world.plan.fails_over => lost_tag(world).await,
            3..6 if world.plan.fails_over && world.plan.switches.readonly => {
                stays_with_old_primary(world).await
            }
            6..8 => silent_ledger(world).await,
            _ => {}
        }
    }
    let mut rng = super::plan::rng(world.plan.seed, 4);
    match rng.random_range(0..10) {
        0..2 => {
            two_removals(world, &mut rng).await;
            if !world.plan.fused {
                unpublished(world).await;
            }
        }
        2 => silent_subscription(world).await,
        3..6 if world.plan.fails_over => lost_removal(world, &mut rng).await,
        3..6 => answered_late(world, &mut rng).await,
        6..7 => cut_off(world).await,
        7..8 => unsure_set(world, &mut rng).await,
        8..9 if !world.plan.fused => back_by_then(world).await,
        8..9 => late_read(world).await,
        _ => last_message(world).await,
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

/// Removes a tag twice. The node that knows the first removal loads in between; the other node
/// receives the two removals in any order.
async fn two_removals(world: &Arc<World>, rng: &mut StdRng) {
    let (one, two) = (world.node(0), world.node(1));
    let tags = world.plan.tags[0];
    two.link.trouble.lock().reorders = world.ms() + 2000;
    world.fault("messages reordered", Some(two.id), 2000);
    if rng.random_bool(0.5) {
        // The ledger, too, is slow: messages come before it reports what the node missed.
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

/// A failover takes back a removal, by tag or of a key, that one node has not received.
async fn lost_removal(world: &Arc<World>, rng: &mut StdRng) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    two.link.trouble.lock().mute = world.ms() + 400;
    world.fault("subscription silent", Some(two.id), 400);
    let (snapshot, order) = (world.snapshot(), world.at().order);
    let by_tag = Wish::RemoveTags { tags: world.plan.tags[0] };
    let wish = if rng.random_bool(0.5) { by_tag } else { Wish::Remove { keys: vec![0] } };
    call(world, &one, wish, long()).await;
    sleep(Duration::from_millis(rng.random_range(0..60))).await;
    trouble::fail_over(world, snapshot, order);
}

/// A failover takes back a tag removal that one node has not received, long after the last write.
/// Only the removal itself is asserted again.
async fn lost_tag(world: &Arc<World>) {
    let tagged = (0..world.plan.keys).find(|key| world.plan.tags[usize::from(*key)] != 0);
    let Some(key) = tagged else { return };
    sleep(Duration::from_millis(REASSERTED_MS + 2 * world.plan.poll_ms)).await;
    world.log.lock().count("quiet tag lost");
    let (one, two) = (world.node(0), world.node(1));
    let run = Run { before: 0, after: 1, ends: Ends::Well, adds: 0 };
    call(world, &two, Wish::Load { key, run }, long()).await;
    sleep(Duration::from_millis(60)).await;
    two.link.trouble.lock().mute = world.ms() + 400;
    world.fault("subscription silent", Some(two.id), 400);
    let (snapshot, order) = (world.snapshot(), world.at().order);
    let tags = world.plan.tags[usize::from(key)];
    call(world, &one, Wish::RemoveTags { tags }, long()).await;
    trouble::fail_over(world, snapshot, order);
}

/// A subscription breaks and is restored at once. The node must ask for what it missed as soon as
/// the subscription is back.
async fn between_subscriptions(world: &Arc<World>) {
    world.log.lock().count("read after reconnect");
    let (one, two) = (world.node(0), world.node(1));
    for _ in 0..3 {
        call(world, &two, load(), long()).await;
        sleep(Duration::from_millis(60)).await;
        {
            let mut trouble = two.link.trouble.lock();
            trouble.generation += 1;
            trouble.refuses = world.ms() + 60;
        }
        world.fault("disconnect", Some(two.id), 60);
        two.link.moved.notify_one();
        sleep(Duration::from_millis(1)).await;
        call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
        for _ in 0..20 {
            call(world, &two, get(), long()).await;
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A failover leaves a node on the old primary. The node subscribes there again and asks that
/// server for changes that happened on the new one.
async fn stays_with_old_primary(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    for _ in 0..3 {
        call(world, &two, load(), long()).await;
        sleep(Duration::from_millis(60)).await;
        leave_behind(world, &two, 400);
        sleep(Duration::from_millis(30)).await;
        call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
        two.link.trouble.lock().generation += 1;
        two.link.moved.notify_one();
        for _ in 0..20 {
            call(world, &two, get(), long()).await;
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(400)).await;
    }
}

/// Only the ledger does not answer a node whose subscription is silent, for longer than its
/// coherence TTL. A record in L2 does not prove that none of its tags was removed.
async fn silent_ledger(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    let (begun, lasts) = (world.ms(), world.plan.terms().coherence_ms + 500);
    {
        let mut trouble = two.link.trouble.lock();
        (trouble.mute, trouble.ledger_silent) = (world.ms() + lasts, world.ms() + lasts);
    }
    world.fault("subscription silent", Some(two.id), lasts);
    world.fault("L2 silent about its ledger", Some(two.id), lasts);
    call(world, &one, Wish::Clear { hard: true }, long()).await;
    // Frequent answers keep the circuit breaker closed.
    while world.ms() < begun + lasts {
        sleep(Duration::from_millis(two.pace.poll_ms / 4 + 1)).await;
        call(world, &two, get(), long().skip_l1_read(true)).await;
    }
}

/// A node misses another node's last message before a silence, and the first announcement of how
/// many there were. It receives its own heartbeats.
async fn last_message(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    let lasts = world.plan.poll_ms + 200;
    two.link.trouble.lock().own_heartbeats_only = world.ms() + lasts;
    world.fault("messages dropped", Some(two.id), lasts);
    call(world, &one, Wish::Set { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(lasts)).await;
}

/// A node writes but cannot publish, while L2 accepts the writes and the other nodes are healthy.
async fn unpublished(world: &Arc<World>) {
    let terms = world.plan.terms();
    sleep(Duration::from_millis(terms.heals_ms + 2500)).await;
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    let lasts = world.plan.coherence_ms + 2000;
    one.link.trouble.lock().publish_fails = world.ms() + lasts;
    world.fault("publish fails", Some(one.id), lasts);
    call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
    let bound = 3 * terms.poll_ms + terms.late_ms + 3 * terms.hard_ms + terms.poll_ms / 10;
    sleep(Duration::from_millis(bound + 20)).await;
    call(world, &two, get(), long()).await;
}

/// A node's subscription is silent while L2 is healthy: the node must know changes after three
/// polls.
async fn silent_subscription(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(100)).await;
    let terms = world.plan.terms();
    let bound = 3 * terms.poll_ms + terms.late_ms + 3 * terms.hard_ms + terms.poll_ms / 10;
    two.link.trouble.lock().mute = world.ms() + bound + 500;
    world.fault("subscription silent", Some(two.id), bound + 500);
    call(world, &one, Wish::Set { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(bound + 20)).await;
    call(world, &two, get(), long()).await;
}

/// The multi-read of a batch runs late: after its keys were read one by one and one key was
/// removed.
async fn late_read(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, Wish::Remove { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(100)).await;
    let hard = one.pace.hard_ms;
    {
        let mut trouble = one.link.trouble.lock();
        trouble.sick = Some((Sick::RunsLateBy(hard + 150), world.ms() + 1));
        trouble.mute = world.ms() + hard + 600;
    }
    world.fault("command runs late", Some(one.id), 1);
    world.fault("subscription silent", Some(one.id), hard + 600);
    let run = Run { before: 1, after: 300, ends: Ends::Well, adds: 0 };
    let batch = Wish::LoadMany { keys: vec![0], run };
    let caller = spawn(Arc::clone(world), Arc::clone(&one), batch, long(), None);
    sleep(Duration::from_millis(hard + 80)).await;
    call(world, &two, Wish::Remove { keys: vec![0] }, long()).await;
    let _ = caller.await;
}

/// A node is cut off from L2 and the bus for longer than its coherence TTL.
async fn cut_off(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    let lasts = world.plan.coherence_ms + 4000;
    trouble::cut_off(world, &two, lasts);
    world.fault("L2 and bus cut off", Some(two.id), lasts);
    call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(world.plan.terms().coherence_ms + 1000)).await;
    call(world, &two, get(), long()).await;
}

/// A `set` with unknown outcome runs late, after its node has loaded a newer value.
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

/// A read is in progress while a pending removal reaches L2.
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
        // Only the read is slow.
        sick(Sick::AnswersLate(300), 1);
        world.fault("L2 slow", Some(one.id), 300);
        call(world, &one, load(), long()).await;
    }
}

/// Writes begin while the circuit breaker is open, and their publishes hang until L2 answers again.
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
