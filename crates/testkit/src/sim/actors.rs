//! Who uses the caches: callers that read, write the source and invalidate, give up half-way.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{Cached, EntryOptions, Error, ErrorKind, Reach, Receipt, Source};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::plan::options;
use super::source::{Run, batch, factory, run, tags};
use super::world::{CALL, Node, World, name, read_value, write_value};
use crate::history::{Answer, Outcome, Said, Scope, What};

/// What a caller wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Load {
        key: u8,
        run: Run,
    },
    LoadMany {
        keys: Vec<u8>,
        run: Run,
    },
    Get {
        key: u8,
        stale: bool,
    },
    GetMany {
        keys: Vec<u8>,
    },
    /// As a type that nothing is stored as.
    GetOther {
        key: u8,
    },
    /// Once everything has healed.
    LastLook {
        key: u8,
    },
    Set {
        keys: Vec<u8>,
    },
    Remove {
        keys: Vec<u8>,
    },
    Expire {
        key: u8,
    },
    RemoveTags {
        tags: u8,
    },
    ExpireTag {
        tag: u8,
    },
    Clear {
        hard: bool,
    },
}

/// A random wish.
pub(super) fn wish(rng: &mut StdRng, keys: u8) -> Wish {
    let key = rng.random_range(0..keys);
    let several = |rng: &mut StdRng| {
        let from = rng.random_range(0..keys);
        (from..keys).collect::<Vec<_>>()
    };
    match rng.random_range(0..100) {
        0..46 => Wish::Load { key, run: run(rng) },
        46..56 => Wish::Get { key, stale: rng.random_bool(0.5) },
        56..60 => Wish::LoadMany { keys: several(rng), run: run(rng) },
        60..62 => Wish::GetMany { keys: several(rng) },
        62..63 => Wish::GetOther { key },
        63..71 => Wish::Remove { keys: vec![key] },
        71..80 => Wish::Set { keys: vec![key] },
        80..84 => Wish::Expire { key },
        84..93 => Wish::RemoveTags { tags: 1 << rng.random_range(0..3_u8) },
        93..94 => Wish::RemoveTags { tags: rng.random_range(1..8) },
        94..96 => Wish::ExpireTag { tag: 1 << rng.random_range(0..3_u8) },
        96..97 => Wish::Clear { hard: false },
        97..98 => Wish::Clear { hard: true },
        98..99 => Wish::Set { keys: several(rng) },
        _ => Wish::Remove { keys: several(rng) },
    }
}

impl Wish {
    fn what(&self) -> What {
        match self {
            Self::Load { .. } | Self::LoadMany { .. } => What::Load,
            Self::Get { .. } | Self::GetMany { .. } | Self::GetOther { .. } => What::Get,
            Self::LastLook { .. } => What::LastLook,
            Self::Set { .. } => What::Set(usize::MAX),
            Self::Remove { .. } | Self::RemoveTags { .. } | Self::Clear { hard: true } => {
                What::Invalidate { hard: true }
            }
            Self::Expire { .. } | Self::ExpireTag { .. } | Self::Clear { hard: false } => {
                What::Invalidate { hard: false }
            }
        }
    }

    fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Load { key, .. }
            | Self::Get { key, .. }
            | Self::GetOther { key }
            | Self::LastLook { key }
            | Self::Expire { key } => vec![Scope::Key(*key)],
            Self::LoadMany { keys, .. }
            | Self::GetMany { keys }
            | Self::Set { keys }
            | Self::Remove { keys } => keys.iter().map(|key| Scope::Key(*key)).collect(),
            Self::RemoveTags { tags } => vec![Scope::Tags(*tags)],
            Self::ExpireTag { tag } => vec![Scope::Tags(*tag)],
            Self::Clear { .. } => vec![Scope::All],
        }
    }

    fn writes(&self) -> bool {
        matches!(self.what(), What::Set(_) | What::Invalidate { .. })
    }
}

/// A caller with a task of its own.
pub(super) fn spawn(
    world: Arc<World>,
    node: Arc<Node>,
    wish: Wish,
    options: EntryOptions,
    gives_up: Option<u64>,
) -> JoinHandle<usize> {
    // Large, and moved several times on its way into a task.
    tokio::spawn(Box::pin(grant(world, node, wish, options, gives_up)))
}

/// Makes a wish come true on a node, and writes down what came of it. A caller may give up.
pub(super) async fn grant(
    world: Arc<World>,
    node: Arc<Node>,
    wish: Wish,
    options: EntryOptions,
    gives_up: Option<u64>,
) -> usize {
    if wish.writes() {
        // First the source, then the cache.
        for scope in wish.scopes() {
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
                world.log.lock().calls[call].error = format!("{:?}", error.kind());
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
            let factory = factory(world, node, key, call, run);
            let tags = tags(world.plan.tags.get(usize::from(key)).copied().unwrap_or(0));
            let cached = cache.get_or_set(name(key), factory).tags(tags).options(options).await?;
            answered(world, call, key, &cached);
        }
        Wish::LoadMany { keys, run } => {
            let factory = batch(world, node, call, run);
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
        Wish::Expire { key } => said(world, call, cache.expire(name(key)).await?),
        Wish::RemoveTags { tags: bits } => {
            said(world, call, cache.remove_by_tags(tags(bits)).await?);
        }
        Wish::ExpireTag { tag } => {
            let tag = tags(tag)[0];
            said(world, call, cache.expire_by_tag(tag).await?);
        }
        Wish::Clear { hard: true } => said(world, call, cache.clear_hard().await?),
        Wish::Clear { hard: false } => said(world, call, cache.clear().await?),
    }
    Ok(())
}

/// **S12**: nothing is ever answered as another type than it was stored as.
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
    let call = &mut world.log.lock().calls[call];
    call.has_barrier = receipt.barrier().is_some();
    call.said = match receipt.l2() {
        Reach::Done => Said::Done,
        Reach::Queued => Said::Queued,
        Reach::Unknown => Said::Unknown,
        _ => Said::Other,
    };
}

fn answered(world: &World, call: usize, key: u8, cached: &Cached<String>) {
    let Some((says_key, load)) = read_value(cached.as_bytes()) else {
        let at = world.at();
        let what = "something was answered that nobody has stored".to_owned();
        return world.log.lock().seen.push(("S12", what, Some(key), at));
    };
    let source = match cached.source() {
        Source::L1 => "L1",
        Source::L2 => "L2",
        Source::Factory => "factory",
        Source::FailSafe => "fail-safe",
        _ => "other",
    };
    world.answer(call, Answer { key, load, says_key, stale: cached.is_stale(), source });
}

/// Callers, one after the other, each on a task of its own.
pub(super) async fn act(world: Arc<World>) -> Vec<JoinHandle<usize>> {
    let mut rng = super::plan::rng(world.plan.seed, 2);
    let mut callers = Vec::with_capacity(world.plan.ops);
    for at in 0..world.plan.ops {
        if world.plan.ends_deaf && at + 3 == world.plan.ops {
            let node = world.node(0);
            let for_ms = 2 * world.plan.poll_ms;
            node.link.trouble.lock().mute = world.ms() + for_ms;
            world.fault("deaf", Some(node.id), for_ms);
        }
        let pause = match rng.random_range(0..20) {
            0 => rng.random_range(300..3000),
            1..10 => rng.random_range(0..8),
            _ => rng.random_range(0..world.plan.gap_ms * 2),
        };
        sleep(Duration::from_millis(pause)).await;
        let node = world.node(rng.random_range(0..world.plan.nodes));
        let wish = wish(&mut rng, world.plan.keys);
        let gives_up = rng.random_bool(0.08).then(|| rng.random_range(0..60));
        let options = options(&mut rng);
        callers.push(spawn(Arc::clone(&world), node, wish, options, gives_up));
    }
    callers
}
