//! Simulated callers: they read, write the source, invalidate, and sometimes give up half-way.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{Cached, EntryOptions, Error, ErrorKind, Receipt, Source, WriteStatus};
use futures_util::future::BoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::names::{name, read_value, tags, write_value};
use super::plan::{Chosen, chosen};
use super::run::{Run, draw};
use super::source::{batch, factory};
use super::wish::{Wish, wish};
use super::world::{CALL, Node, World};
use crate::history::{Answer, Outcome, Received, Said, Scope, What};

/// Runs a call in a task of its own.
pub(super) fn spawn(
    world: Arc<World>,
    node: Arc<Node>,
    wish: Wish,
    options: impl Into<Chosen>,
    gives_up: Option<u64>,
) -> JoinHandle<usize> {
    // The future is large; boxing it avoids copying it on the way into a task.
    let options: Chosen = options.into();
    tokio::spawn(Box::pin(grant(world, node, wish, options, gives_up)))
}

/// Runs a call inside a factory. Dropping the factory drops the call.
pub(super) fn nested(
    world: Arc<World>,
    node: Arc<Node>,
    wish: Wish,
    options: Chosen,
) -> BoxFuture<'static, usize> {
    Box::pin(grant(world, node, wish, options, None))
}

/// Some factories load another key through the cache. Only higher keys, so that two factories never
/// wait for each other.
async fn ask_for_another(world: Arc<World>, node: Arc<Node>, key: u8, call: usize, run: Run) {
    // Factories of episodes and final checks are quick; they do not nest.
    if !world.plan.switches.nested || run.before < 2 || key + 1 >= world.plan.keys {
        return;
    }
    let mut rng = super::plan::rng(world.plan.seed, 1000 + call as u64);
    if rng.random_bool(0.2) {
        let key = rng.random_range(key + 1..world.plan.keys);
        world.log.lock().count("nested");
        let wish = Wish::Load { key, run: draw(&mut rng) };
        nested(world, node, wish, chosen(&mut rng)).await;
    }
}

/// Marks the call as cancelled if its future is dropped before it ends.
struct Ends<'a> {
    world: &'a World,
    call: usize,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let call = self.world.log.lock().calls.get(self.call).map(|call| call.outcome);
        if call == Some(Outcome::Open) {
            self.world.end_call(self.call, Outcome::Cancelled);
        }
    }
}

/// Runs a wish on a node and records the outcome. A caller may give up after `gives_up`
/// milliseconds.
pub(super) async fn grant(
    world: Arc<World>,
    node: Arc<Node>,
    wish: Wish,
    options: impl Into<Chosen>,
    gives_up: Option<u64>,
) -> usize {
    if wish.writes() {
        // Write the source before the cache, as an application does.
        for scope in wish.scopes().into_iter().chain(wish.beside()) {
            for key in 0..world.plan.keys {
                let tagged =
                    matches!(scope, Scope::Tags(t) if t & world.plan.tags[usize::from(key)] != 0);
                if scope == Scope::Key(key) || scope == Scope::All || tagged {
                    world.write_source(key);
                }
            }
        }
    }
    let call = world.begin_call(node.id, wish.what(), wish.scopes());
    if let Some(tags) = wish.beside() {
        let companion = world.begin_call(node.id, wish.what(), vec![tags]);
        world.log.lock().companions.insert(call, companion);
    }
    let _ends = Ends { world: &world, call };
    let Chosen { options, allows } = options.into();
    let options = node.pace.limits(options);
    world.log.lock().calls[call].allows = allows;
    let mut down = node.link.down.subscribe();
    let work = CALL.scope(call, Box::pin(perform(&world, &node, call, wish, options)));
    let limited = async {
        match gives_up {
            Some(after) => timeout(Duration::from_millis(after), work).await.ok(),
            None => Some(work.await),
        }
    };
    let outcome = tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => Outcome::Crashed,
        done = limited => match done {
            None => Outcome::Cancelled,
            Some(Ok(())) => Outcome::Done,
            Some(Err(error)) => {
                let mut log = world.log.lock();
                let companion = log.companions.get(&call).copied();
                for part in [Some(call), companion].into_iter().flatten() {
                    log.calls[part].error = format!("{:?}", error.kind());
                }
                Outcome::Failed
            }
        },
    };
    world.end_call(call, outcome);
    call
}

async fn perform(
    world: &Arc<World>,
    node: &Arc<Node>,
    call: usize,
    wish: Wish,
    options: EntryOptions,
) -> Result<(), Error> {
    let cache = &node.cache;
    match wish {
        Wish::Load { key, run } => {
            let another = ask_for_another(Arc::clone(world), Arc::clone(node), key, call, run);
            let factory = factory(world, node.id, key, call, run, Box::pin(another));
            let tags = tags(world.plan.tags.get(usize::from(key)).copied().unwrap_or(0));
            let cached = cache.get_or_set(name(key), factory).tags(tags).options(options).await?;
            answered(world, call, key, &cached);
        }
        Wish::LoadMany { keys, run } => {
            let factory = batch(world, node.id, call, run);
            let names = keys.iter().map(|key| name(*key));
            let tagged = tags(0);
            let all = cache.get_or_set_many(names, factory).tags(tagged).options(options).await?;
            for (key, cached) in keys.into_iter().zip(&all) {
                answered(world, call, key, cached);
            }
        }
        Wish::Get { key, stale } => {
            let got = cache.get::<String>(name(key)).options(options.allow_stale(stale)).await?;
            got.iter().for_each(|cached| answered(world, call, key, cached));
        }
        Wish::GetMany { keys } => {
            let got = cache.get_many::<String>(keys.iter().map(|key| name(*key))).await?;
            for (key, cached) in keys.into_iter().zip(&got) {
                cached.iter().for_each(|cached| answered(world, call, key, cached));
            }
        }
        Wish::Strict { key, run } => {
            let options = options.strict(true);
            Box::pin(perform(world, node, call, plain(key, run), options)).await?;
        }
        Wish::After => after(world, node).await,
        Wish::GetOther { key } => get_other(world, node, key).await?,
        Wish::LastLook { key } => {
            let got = cache.get::<String>(name(key)).await?;
            got.iter().for_each(|cached| answered(world, call, key, cached));
        }
        Wish::Set { keys } => set(world, node, call, &keys, options).await?,
        Wish::Remove { keys } => {
            let receipt = match &keys[..] {
                [key] => cache.remove(name(*key)).await?,
                keys => cache.remove_many(keys.iter().map(|key| name(*key))).await?,
            };
            said(world, call, receipt);
        }
        Wish::RemoveAndTags { keys, tags: bits } => {
            remove_and_tags(world, node, call, &keys, bits).await?;
        }
        Wish::Expire { key } => said(world, call, cache.expire(name(key)).await?),
        Wish::RemoveTags { tags: bits } => {
            said(world, call, cache.remove_by_tags(tags(bits)).await?);
        }
        Wish::ExpireTag { tag } => said(world, call, cache.expire_by_tag(tags(tag)[0]).await?),
        Wish::Clear { hard: true } => said(world, call, cache.remove_all().await?),
        Wish::Clear { hard: false } => said(world, call, cache.expire_all().await?),
    }
    Ok(())
}

async fn remove_and_tags(
    world: &World,
    node: &Node,
    call: usize,
    keys: &[u8],
    bits: u8,
) -> Result<(), Error> {
    world.log.lock().count("keys and tags");
    let receipt = match keys {
        [key] => node.cache.remove(name(*key)).and_tags(tags(bits)).await?,
        _ => {
            let names = keys.iter().map(|key| name(*key));
            node.cache.remove_many(names).and_tags(tags(bits)).await?
        }
    };
    said_of_both(world, call, receipt);
    Ok(())
}

/// The same read without `strict`.
fn plain(key: u8, run: Option<Run>) -> Wish {
    match run {
        Some(run) => Wish::Load { key, run },
        None => Wish::Get { key, stale: false },
    }
}

/// Waits for the newest removal for which a token exists. After the wait, the node must know that
/// removal.
async fn after(world: &World, node: &Node) {
    let Some(token) = *world.token.lock() else { return };
    let Ok(()) = node.cache.wait_for(token).await else { return };
    let at = world.at();
    let mut log = world.log.lock();
    let number = u128::from_be_bytes(token.to_bytes());
    let [epoch, seq] =
        [number >> 64, number & u128::from(u64::MAX)].map(|n| u64::try_from(n).unwrap_or(0));
    let numbered = log.numbers.get(&(epoch, seq)).copied();
    // The cache promises nothing for a token whose removal was taken back by a failover.
    if let Some(applied) = numbered.filter(|at| log.applied[*at].lost.is_none()) {
        log.count("token");
        log.received.push(Received { node: node.id, applied, at });
    }
}

/// **S12**: the cache never returns a value as another type than the type it was stored as.
async fn get_other(world: &World, node: &Node, key: u8) -> Result<(), Error> {
    let found = match node.cache.get::<u64>(name(key)).await {
        Err(error) if error.kind() == ErrorKind::TypeMismatch => None,
        found => found?,
    };
    if found.is_some() {
        let at = world.at();
        let what = "a value of another type was answered".to_owned();
        world.log.lock().seen.push(("S12", what, Some(key), at));
    }
    Ok(())
}

async fn set(
    world: &Arc<World>,
    node: &Arc<Node>,
    call: usize,
    keys: &[u8],
    options: EntryOptions,
) -> Result<(), Error> {
    let mut values = Vec::new();
    for key in keys {
        let bits = world.plan.tags[usize::from(*key)];
        let bits = if keys.len() == 1 { bits } else { 0 };
        let load = world.begin_load(node.id, *key, call, bits, true);
        world.log.lock().calls[call].what = What::Set(load);
        values.push((name(*key), write_value(*key, load), bits));
    }
    let receipt = match &values[..] {
        [(key, value, bits)] => {
            node.cache.set(key, value.clone()).tags(tags(*bits)).options(options).await?
        }
        _ => {
            let values = values.into_iter().map(|(key, value, _)| (key, value));
            node.cache.set_many(values).options(options).await?
        }
    };
    said(world, call, receipt);
    Ok(())
}

fn said(world: &World, call: usize, receipt: Receipt) {
    if let Some(token) = receipt.token() {
        *world.token.lock() = Some(token);
    }
    note(world, call, receipt);
}

fn said_of_both(world: &World, call: usize, receipt: Receipt) {
    if let Some(token) = receipt.token() {
        *world.token.lock() = Some(token);
    }
    let tags = world.log.lock().companions.get(&call).copied().unwrap_or(call);
    for (part, receipt) in [(call, receipt.keys_part()), (tags, receipt.tags_part())] {
        if let Some(receipt) = receipt {
            note(world, part, receipt);
        }
    }
}

fn note(world: &World, call: usize, receipt: Receipt) {
    let call = &mut world.log.lock().calls[call];
    call.has_barrier = receipt.token().is_some();
    call.said = match receipt.l2() {
        WriteStatus::Done => Said::Done,
        WriteStatus::Queued => Said::Queued,
        WriteStatus::Unknown => Said::Unknown,
        _ => Said::Other,
    };
}

fn answered(world: &World, call: usize, key: u8, cached: &Cached<String>) {
    let Some((says_key, load)) = read_value(cached.as_bytes()) else {
        let at = world.at();
        let what = "a value was answered that no call has stored".to_owned();
        return world.log.lock().seen.push(("S12", what, Some(key), at));
    };
    let source = match cached.meta().source() {
        Source::L1 => "L1",
        Source::L2 => "L2",
        Source::Factory => "factory",
        Source::FailSafe => "fail-safe",
        _ => "other",
    };
    world.answer(call, Answer { key, load, says_key, stale: cached.meta().is_stale(), source });
}

/// Starts the callers one after the other, each in a task of its own.
pub(super) async fn act(world: Arc<World>) -> Vec<JoinHandle<usize>> {
    let mut rng = super::plan::rng(world.plan.seed, 2);
    // A generator of its own, so that older seeds still draw the same calls.
    let mut newer = super::plan::rng(world.plan.seed, 11);
    let together = |rng: &mut StdRng| world.plan.switches.together && rng.random_bool(0.3);
    let mut callers = Vec::with_capacity(world.plan.ops);
    for at in 0..world.plan.ops {
        if world.plan.ends_silent && at + 3 == world.plan.ops {
            let node = world.node(0);
            let for_ms = 2 * world.plan.poll_ms;
            node.link.trouble.lock().mute = world.ms() + for_ms;
            world.fault("subscription silent", Some(node.id), for_ms);
        }
        let pause = match rng.random_range(0..20) {
            0 => rng.random_range(300..3000),
            1..10 => rng.random_range(0..8),
            _ => rng.random_range(0..world.plan.gap_ms * 2),
        };
        sleep(Duration::from_millis(pause)).await;
        let node = world.node(rng.random_range(0..world.plan.nodes));
        let wish = match wish(&mut rng, world.plan.keys) {
            Wish::Remove { keys } if together(&mut newer) => {
                Wish::RemoveAndTags { keys, tags: newer.random_range(1..8) }
            }
            wish => wish,
        };
        let gives_up = rng.random_bool(0.08).then(|| rng.random_range(0..60));
        let options = chosen(&mut rng);
        callers.push(spawn(Arc::clone(&world), node, wish, options, gives_up));
    }
    callers
}
