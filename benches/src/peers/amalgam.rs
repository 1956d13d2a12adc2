//! Runs the library amalgam in the measurements: L1 only, over Redis, and between nodes.

use std::convert::Infallible;
use std::sync::Arc;

use amalgam::provider::{
    Backplane, DistributedCache, DistributedSerializer, MessagePackSerializer, RedisBackplane,
    RedisDistributedCache,
};
use amalgam::{Cache, EntryOptions};
use anyhow::{Result, anyhow};
use futures_util::future::LocalBoxFuture;

use crate::env::Env;
use crate::hits::{TTL, hits, tags};
use crate::measure::{Side, per_entry};
use crate::remote::{Node, Remote};
use crate::trace::{Cluster, Source};
use crate::workload::{Draws, Product};

/// amalgam with its default, unbounded L1.
pub(super) struct Amalgam(pub(super) Cache<Arc<Product>>);

/// L1 only, with every product of the draws.
pub(super) async fn local(draws: &Draws, tags_each: usize) -> Result<Amalgam> {
    let options = EntryOptions::new(TTL);
    let cache = Cache::builder().default_options(options).try_build().map_err(wrong)?;
    for (id, key) in draws.keys.iter().enumerate() {
        let product = Arc::new(Product::new(id));
        cache.set(key, product).tags(tags(tags_each)).await.map_err(wrong)?;
    }
    Ok(Amalgam(cache))
}

// Without `.tags(..)`, which allocates: the row compares the check of the entry's own tags.
hits!(Amalgam, "amalgam", Side::Peer, |this, key| {
    this.0
        .get_or_set(key, |_| async { Ok::<_, Infallible>(Arc::new(Product::new(0))) })
        .await
        .map_or(0, |found| found.id)
});

/// amalgam with Redis as L2 and as backplane.
pub(super) struct InRedis {
    pub(super) url: String,
}

impl Remote for InRedis {
    fn name(&self) -> &'static str {
        "amalgam"
    }

    fn side(&self) -> Side {
        Side::Peer
    }

    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>> {
        Box::pin(async {
            Ok(Box::new(AmalgamNode(in_redis(&self.url, None).await?)) as Box<dyn Node>)
        })
    }
}

async fn in_redis(url: &str, capacity: Option<u64>) -> Result<Cache<Arc<Product>>> {
    let l2 = RedisDistributedCache::connect(url.to_owned()).await.map_err(wrong)?;
    let bus = RedisBackplane::connect(url.to_owned()).await.map_err(wrong)?;
    let codec = Arc::new(MessagePackSerializer);
    let mut builder = Cache::builder()
        .default_options(EntryOptions::new(TTL))
        .distributed(Arc::new(l2) as Arc<dyn DistributedCache>)
        .serializer(codec as Arc<dyn DistributedSerializer<Arc<Product>>>)
        .backplane(Arc::new(bus) as Arc<dyn Backplane>)
        .wait_for_initial_backplane_subscribe(true);
    if let Some(capacity) = capacity {
        builder = builder.max_capacity(capacity);
    }
    let cache = builder.try_build().map_err(wrong)?;
    cache.ready().await.map_err(wrong)?;
    Ok(cache)
}

struct AmalgamNode(Cache<Arc<Product>>);

impl Node for AmalgamNode {
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let load = move |_| async move {
                crate::remote::loaded();
                Ok::<_, Infallible>(Arc::new(Product::new(id)))
            };
            Ok(self.0.get_or_set(key, load).tags(tags(3)).await.map_err(wrong)?.id)
        })
    }

    fn close(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move { drop(self.0.shutdown().await) })
    }
}

fn wrong(error: amalgam::Error) -> anyhow::Error {
    anyhow!("amalgam: {error}")
}

/// Bytes per entry of 100 bytes with this many tags.
pub(super) fn bytes(env: &Env, entries: usize, tags_each: usize) -> Result<f64> {
    let mut result = Ok(());
    let bytes = per_entry(entries, || {
        let options = EntryOptions::new(TTL);
        let cache = Cache::<Arc<Product>>::builder().default_options(options).try_build();
        let filled = cache.map_err(wrong).and_then(|cache| {
            env.runtime.block_on(async {
                for id in 0..entries {
                    let value = Arc::new(Product::new(id));
                    let set = cache.set(crate::workload::key(id), value).tags(tags(tags_each));
                    set.await.map_err(wrong)?;
                }
                Ok(cache)
            })
        });
        filled.map_err(|error| result = Err(error)).ok()
    });
    result.map(|()| bytes)
}

/// Nodes of amalgam that share a Redis, each with this L1 capacity.
pub(super) struct Nodes(Vec<Cache<Arc<Product>>>);

impl Nodes {
    pub(super) async fn start(url: &str, count: usize, capacity: usize) -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(in_redis(url, Some(capacity as u64)).await?);
        }
        Ok(Self(nodes))
    }
}

impl Cluster for Nodes {
    fn read<'a>(
        &'a self,
        node: usize,
        key: &'a str,
        page: usize,
        source: &'a Arc<Source>,
    ) -> LocalBoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            let source = Arc::clone(source);
            let load = move |_| async move { Ok::<_, Infallible>(Arc::new(source.load(page))) };
            Ok(self.0[node].get_or_set(key, load).await.map_err(wrong)?.price_cents)
        })
    }

    fn remove<'a>(&'a self, node: usize, key: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0[node].remove(key).await.map_err(wrong)?;
            Ok(())
        })
    }
}
