//! The source of truth, and factories that read it slowly, fail or panic.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::{BoxError, FactoryContext, NotModified};
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::names::{self, key_of, read_value, write_value};
use super::run::{Ends, Run};
use super::world::World;

/// The payload of planned panics.
pub(crate) const PLANNED: &str = "injected by the plan";

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

/// Returns a factory that loads one key. `meanwhile` runs before it reads the source.
pub(super) fn factory(
    world: &Arc<World>,
    node: usize,
    key: u8,
    call: usize,
    run: Run,
    meanwhile: BoxFuture<'static, ()>,
) -> impl FnOnce(FactoryContext<String>) -> Made<String> + Send + use<> {
    let world = Arc::clone(world);
    move |context| {
        let tags = world.plan.tags.get(usize::from(key)).copied().unwrap_or(0);
        let load = world.begin_load(node, key, call, tags | run.adds, false);
        Box::pin(async move {
            let running = Running { world, load };
            let world = &running.world;
            sleep(Duration::from_millis(run.before)).await;
            meanwhile.await;
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
            for tag in names::tags(run.adds) {
                context.add_tag(tag);
            }
            Ok(write_value(key, load))
        })
    }
}

/// Returns a factory that loads several keys.
pub(super) fn batch(
    world: &Arc<World>,
    node: usize,
    call: usize,
    run: Run,
) -> impl Fn(Vec<String>) -> Made<Vec<(String, String)>> + Send + Sync + use<> {
    let world = Arc::clone(world);
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
