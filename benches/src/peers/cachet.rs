//! Runs the library cachet in the measurements of hits in L1.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use cachet::{Cache, CacheEntry};
use tick::Clock;

use crate::hits::{TTL, hits};
use crate::measure::Side;
use crate::workload::{Draws, Product};

/// cachet with stampede protection, as the other caches have it.
struct Cachet(Cache<String, Arc<Product>>);

/// L1 only, with every product of the draws.
pub(super) async fn local(draws: &Draws) -> Result<impl crate::hits::Hits + use<>> {
    let cache = Cache::builder::<String, Arc<Product>>(Clock::new_tokio())
        .memory()
        .ttl(TTL)
        .stampede_protection()
        .build();
    for (id, key) in draws.keys.iter().enumerate() {
        let entry = CacheEntry::new(Arc::new(Product::new(id)));
        cache.insert(key.clone(), entry).await.map_err(|error| anyhow!("cachet: {error}"))?;
    }
    Ok(Cachet(cache))
}

hits!(Cachet, "cachet", Side::Peer, |this, key| {
    this.0
        .get_or_insert(key, || async { Arc::new(Product::new(0)) })
        .await
        .map_or(0, |entry| entry.value().id)
});
