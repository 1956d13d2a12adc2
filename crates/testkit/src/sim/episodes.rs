//! Short sequences that chance alone seldom brings together, at the end of some clusters.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::EntryOptions;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::actors::{Wish, grant, spawn};
use super::demotion::leave_behind;
use super::plan::Plan;
use super::source::{Ends, Run};
use super::trouble;
use super::world::{Node, Sick, World};

/// Writes of so long ago are no longer asserted again, in milliseconds.
const REASSERTED_MS: u64 = 10_000;

/// Plays one episode, or some. All was well before; nothing is afterwards.
pub(super) async fn play(world: &Arc<World>) {
    if world.plan.switches.episodes {
        let mut rng = super::plan::rng(world.plan.seed, 7);
        match rng.random_range(0..20) {
            0 => between_subscriptions(world).await,
            1..3 if world.plan.fails_over => lost_tag(world).await,
            3..6 if world.plan.fails_over && world.plan.switches.readonly => {
                left_behind(world).await
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
                unheard(world).await;
            }
        }
        2 => deaf(world).await,
        3..6 if world.plan.fails_over => lost_removal(world, &mut rng).await,
        3..6 => answered_late(world, &mut rng).await,
        6..7 => cut_off(world).await,
        7..8 => unsure_set(world, &mut rng).await,
        8..9 if !world.plan.fused => back_by_then(world).await,
        8..9 => late_read(world).await,
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
    let (snapshot, order) = (world.snapshot(), world.at().order);
    let by_tag = Wish::RemoveTags { tags: world.plan.tags[0] };
    let wish = if rng.random_bool(0.5) { by_tag } else { Wish::Remove { keys: vec![0] } };
    call(world, &one, wish, long()).await;
    sleep(Duration::from_millis(rng.random_range(0..60))).await;
    trouble::fail_over(world, snapshot, order);
}

/// A failover takes back the removal of a tag of which one node has not heard, long after anything else was
/// written: nothing but the removal itself is asserted again.
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
    world.fault("deaf", Some(two.id), 400);
    let (snapshot, order) = (world.snapshot(), world.at().order);
    let tags = world.plan.tags[usize::from(key)];
    call(world, &one, Wish::RemoveTags { tags }, long()).await;
    trouble::fail_over(world, snapshot, order);
}

/// What a node's subscription missed, as it broke and was made again at once, is asked for as soon as it is there.
async fn between_subscriptions(world: &Arc<World>) {
    world.log.lock().count("read after reconnect");
    let (one, two) = (world.node(0), world.node(1));
    for _ in 0..3 {
        call(world, &two, load(), long()).await;
        sleep(Duration::from_millis(60)).await;
        {
            let mut trouble = two.link.trouble.lock();
            trouble.life += 1;
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

/// A failover leaves a node with the server that was the primary, where it subscribes anew and asks for what has
/// changed on the other meanwhile.
async fn left_behind(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    for _ in 0..3 {
        call(world, &two, load(), long()).await;
        sleep(Duration::from_millis(60)).await;
        leave_behind(world, &two, 400);
        sleep(Duration::from_millis(30)).await;
        call(world, &one, Wish::Remove { keys: vec![0] }, long()).await;
        two.link.trouble.lock().life += 1;
        two.link.moved.notify_one();
        for _ in 0..20 {
            call(world, &two, get(), long()).await;
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(400)).await;
    }
}

/// The ledger alone does not answer a node that hears nothing, for longer than its coherence TTL. That L2 still holds
/// a record does not say that no tag of it was removed.
async fn silent_ledger(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(60)).await;
    let (begun, lasts) = (world.ms(), world.plan.terms().coherence_ms + 500);
    {
        let mut trouble = two.link.trouble.lock();
        (trouble.mute, trouble.ledger_silent) = (world.ms() + lasts, world.ms() + lasts);
    }
    world.fault("deaf", Some(two.id), lasts);
    world.fault("L2 silent about its ledger", Some(two.id), lasts);
    call(world, &one, Wish::Clear { hard: true }, long()).await;
    // Whoever is answered often does not take L2 for dead.
    while world.ms() < begun + lasts {
        sleep(Duration::from_millis(two.pace.poll_ms / 4 + 1)).await;
        call(world, &two, get(), long().skip_l1_read(true)).await;
    }
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

/// A node writes that cannot say so, while L2 takes it and the others are well.
async fn unheard(world: &Arc<World>) {
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

/// A node hears nothing, and L2 is well: what changes meanwhile is known after three polls.
async fn deaf(world: &Arc<World>) {
    let (one, two) = (world.node(0), world.node(1));
    call(world, &two, load(), long()).await;
    sleep(Duration::from_millis(100)).await;
    let terms = world.plan.terms();
    let bound = 3 * terms.poll_ms + terms.late_ms + 3 * terms.hard_ms + terms.poll_ms / 10;
    two.link.trouble.lock().mute = world.ms() + bound + 500;
    world.fault("deaf", Some(two.id), bound + 500);
    call(world, &one, Wish::Set { keys: vec![0] }, long()).await;
    sleep(Duration::from_millis(bound + 20)).await;
    call(world, &two, get(), long()).await;
}

/// The multi-read of a batch runs late: after its keys were read one by one, and one was removed.
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
    world.fault("deaf", Some(one.id), hard + 600);
    let run = Run { before: 1, after: 300, ends: Ends::Well, adds: 0 };
    let batch = Wish::LoadMany { keys: vec![0], run };
    let caller = spawn(Arc::clone(world), Arc::clone(&one), batch, long(), None);
    sleep(Duration::from_millis(hard + 80)).await;
    call(world, &two, Wish::Remove { keys: vec![0] }, long()).await;
    let _ = caller.await;
}

/// A node hears nothing and nobody, for longer than its coherence TTL.
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
