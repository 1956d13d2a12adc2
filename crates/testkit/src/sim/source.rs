//! The source of truth, and factories that read it slowly, fail or panic.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{BoxError, FactoryContext, NotModified};
use futures_util::future::BoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::actors::{Wish, nested};
use super::plan::{TAGS, chosen};
use super::world::{Node, World, key_of, read_value, write_value};

/// How a factory runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// How long it takes before and after it reads the source, in milliseconds.
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) ends: Ends,
    /// A tag that it adds, as a bit.
    pub(crate) adds: u8,
}

/// How a factory ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Well,
    /// Succeeds, or reports "not modified" if that is true.
    Confirming,
    Badly,
    Panicking,
}

/// The payload of planned panics.
pub(crate) const PLANNED: &str = "injected by the plan";

/// Draws how a factory runs.
pub(crate) fn run(rng: &mut StdRng) -> Run {
    let time = |rng: &mut StdRng| match rng.random_range(0..10) {
        0..3 => 0,
        3..8 => rng.random_range(1..40),
        8 => rng.random_range(40..400),
        _ => rng.random_range(400..1500),
    };
    let ends = match rng.random_range(0..100) {
        0..70 => Ends::Well,
        70..85 => Ends::Confirming,
        85..97 => Ends::Badly,
        _ => Ends::Panicking,
    };
    let adds = if rng.random_bool(0.1) { 1 << rng.random_range(0..3_u8) } else { 0 };
    Run { before: time(rng), after: time(rng), ends, adds }
}

/// The names of these tags.
pub(crate) fn tags(bits: u8) -> Vec<&'static str> {
    TAGS.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0).map(|(_, tag)| *tag).collect()
}

/// One run of a factory. Dropping it records the end.
struct Running {
    world: Arc<World>,
    load: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        let at = self.world.at();
        self.world.log.lock().loads[self.load].ended = Some(at);
    }
}

type Made<T> = BoxFuture<'static, Result<T, BoxError>>;

/// Some factories load another key through the cache. Only higher keys, so that two factories never
/// wait for each other.
async fn ask_for_another(world: &Arc<World>, node: &Arc<Node>, key: u8, call: usize, run: Run) {
    // Factories of episodes and final checks are quick; they do not nest.
    if !world.plan.switches.nested || run.before < 2 || key + 1 >= world.plan.keys {
        return;
    }
    let mut rng = super::plan::rng(world.plan.seed, 1000 + call as u64);
    if rng.random_bool(0.2) {
        let key = rng.random_range(key + 1..world.plan.keys);
        world.log.lock().count("nested");
        let wish = Wish::Load { key, run: self::run(&mut rng) };
        nested(Arc::clone(world), Arc::clone(node), wish, chosen(&mut rng)).await;
    }
}

/// Returns a factory that loads one key.
pub(super) fn factory(
    world: &Arc<World>,
    node: &Arc<Node>,
    key: u8,
    call: usize,
    run: Run,
) -> impl FnOnce(FactoryContext<String>) -> Made<String> + Send + use<> {
    let (world, node) = (Arc::clone(world), Arc::clone(node));
    move |context| {
        let tags = world.plan.tags.get(usize::from(key)).copied().unwrap_or(0);
        let load = world.begin_load(node.id, key, call, tags | run.adds, false);
        Box::pin(async move {
            let running = Running { world, load };
            let world = &running.world;
            sleep(Duration::from_millis(run.before)).await;
            ask_for_another(world, &node, key, call, run).await;
            let version = world.read_source(key);
            world.log.lock().loads[load].version = version;
            sleep(Duration::from_millis(run.after)).await;
            match run.ends {
                Ends::Badly => return Err(BoxError::from(PLANNED)),
                Ends::Panicking => std::panic::panic_any(PLANNED),
                Ends::Confirming => {
                    let stale = context.stale().and_then(|stale| read_value(stale.as_bytes()));
                    if let Some((_, stale)) = stale {
                        let ended = world.at();
                        let mut log = world.log.lock();
                        let began = log.loads[load].began;
                        if log.loads[stale].version == version {
                            log.loads[stale].confirmed.push((began.order, ended.order));
                            drop(log);
                            return context.not_modified::<NotModified>().map_err(BoxError::from);
                        }
                    }
                }
                Ends::Well => {}
            }
            for tag in self::tags(run.adds) {
                context.add_tag(tag);
            }
            Ok(write_value(key, load))
        })
    }
}

/// Returns a factory that loads several keys.
pub(super) fn batch(
    world: &Arc<World>,
    node: &Arc<Node>,
    call: usize,
    run: Run,
) -> impl Fn(Vec<String>) -> Made<Vec<(String, String)>> + Send + Sync + use<> {
    let (world, node) = (Arc::clone(world), node.id);
    move |missing| {
        let world = Arc::clone(&world);
        let keys = missing.into_iter().filter_map(|name| key_of(&name).map(|key| (name, key)));
        let begin = |(name, key)| {
            let load = world.begin_load(node, key, call, 0, false);
            world.log.lock().loads[load].in_batch = true;
            (name, key, Running { world: Arc::clone(&world), load })
        };
        let loads: Vec<_> = keys.map(begin).collect();
        Box::pin(async move {
            sleep(Duration::from_millis(run.before)).await;
            for (_, key, running) in &loads {
                let version = running.world.read_source(*key);
                running.world.log.lock().loads[running.load].version = version;
            }
            sleep(Duration::from_millis(run.after)).await;
            match run.ends {
                Ends::Badly => Err(BoxError::from(PLANNED)),
                Ends::Panicking => std::panic::panic_any(PLANNED),
                Ends::Well | Ends::Confirming => {
                    let value = |(name, key, running): (String, u8, Running)| {
                        (name, write_value(key, running.load))
                    };
                    Ok(loads.into_iter().map(value).collect())
                }
            }
        })
    }
}
