//! Runs the library oxcache in the measurements of hits in L1.

use anyhow::{Result, anyhow};
use oxcache::Cache;
use oxcache::error::OxCacheError;

use crate::hits::{TTL, hits};
use crate::measure::Side;
use crate::workload::{Draws, Product};

/// oxcache. It keeps JSON in L1 and decodes it on every hit.
struct Oxcache(Cache<String, Product>);

/// The memory backend, with every product of the draws.
pub(super) async fn local(draws: &Draws) -> Result<impl crate::hits::Hits + use<>> {
    let built = Cache::builder().capacity(100_000).ttl(TTL).build().await;
    let cache: Cache<String, Product> = built.map_err(|error| anyhow!("oxcache: {error}"))?;
    for (id, key) in draws.keys.iter().enumerate() {
        cache.set(key, &Product::new(id)).await.map_err(|error| anyhow!("oxcache: {error}"))?;
    }
    Ok(Oxcache(cache))
}

hits!(Oxcache, "oxcache", Side::Peer, |this, key| {
    let missed = || async { Err(OxCacheError::NotSupported("a miss".to_owned())) };
    this.0.get_or(key, missed).await.map_or(0, |found| found.id)
});
