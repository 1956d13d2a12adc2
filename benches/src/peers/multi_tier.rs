//! Runs the library multi-tier-cache in the measurements: L1 only, and over Redis.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use futures_util::future::LocalBoxFuture;
use multi_tier_cache::error::CacheError;
use multi_tier_cache::{CacheManager, CacheStrategy, InvalidationConfig, L1Cache, L2Cache};

use crate::hits::{TTL, hits};
use crate::measure::Side;
use crate::remote::{Node, Remote};
use crate::workload::{Draws, Product};

const STRATEGY: CacheStrategy = CacheStrategy::Custom(TTL);

/// multi-tier-cache. It keeps bytes in L1 and decodes them on every hit.
struct MultiTier(CacheManager);

/// The memory tier only, with every product of the draws.
pub(super) async fn local(draws: &Draws) -> Result<impl crate::hits::Hits + use<>> {
    use multi_tier_cache::CacheTier;
    let memory = Arc::new(L1Cache::new(Default::default()).map_err(wrong)?);
    let tiers = vec![CacheTier::new(memory, 1, false, 1, 1.0)];
    let cache = CacheManager::new_with_tiers(tiers, None).map_err(wrong)?;
    for (id, key) in draws.keys.iter().enumerate() {
        let load = || async { Ok(Product::new(id)) };
        cache.get_or_compute_typed(key, STRATEGY, load).await.map_err(wrong)?;
    }
    Ok(MultiTier(cache))
}

hits!(MultiTier, "multi-tier-cache", Side::Peer, |this, key| {
    let load = || async { Err(CacheError::InternalError("a miss".to_owned())) };
    this.0
        .get_or_compute_typed::<Product, _, _>(key, STRATEGY, load)
        .await
        .map_or(0, |found| found.id)
});

/// multi-tier-cache with Redis and with invalidation.
pub(super) struct InRedis {
    pub(super) url: String,
}

impl Remote for InRedis {
    fn name(&self) -> &'static str {
        "multi-tier-cache"
    }

    fn side(&self) -> Side {
        Side::Peer
    }

    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>> {
        Box::pin(async {
            let l1 = Arc::new(L1Cache::new(Default::default()).map_err(wrong)?);
            let l2 = Arc::new(L2Cache::with_url(&self.url).await.map_err(wrong)?);
            let config = InvalidationConfig::default();
            let cache = CacheManager::new_with_invalidation(l1, l2, &self.url, config);
            Ok(Box::new(MultiTierNode(cache.await.map_err(wrong)?)) as Box<dyn Node>)
        })
    }
}

struct MultiTierNode(CacheManager);

impl Node for MultiTierNode {
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let load = || async {
                crate::remote::loaded();
                Ok(Product::new(id))
            };
            let key = format!("mt:{key}");
            let found = self.0.get_or_compute_typed(&key, STRATEGY, load).await.map_err(wrong)?;
            Ok(found.id)
        })
    }
}

fn wrong(error: CacheError) -> anyhow::Error {
    anyhow!("multi-tier-cache: {error}")
}
