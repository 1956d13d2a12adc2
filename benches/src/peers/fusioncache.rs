//! Runs the library fusioncache-rs in the measurements of hits in L1.

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use fusioncache_rs::{Factory, FusionCache, FusionCacheBuilder};

use crate::measure::Side;
use crate::workload::{Draws, Product};

/// fusioncache-rs. Its calls need `&mut`, so every reader has a clone, as its documentation shows.
struct Fusion(FusionCache<String, Product>);

#[derive(Clone, Debug)]
struct Missed;

#[async_trait]
impl Factory<String, Product, String> for Missed {
    async fn get(&self, key: &String) -> Result<Product, String> {
        Err(format!("{key} is not there"))
    }
}

/// L1 only, with every product of the draws.
pub(super) async fn local(draws: &Draws) -> Result<impl crate::hits::Hits + use<>> {
    let built = FusionCacheBuilder::new().with_capacity(100_000).build().await;
    let mut cache = built.map_err(|error| anyhow!("fusioncache-rs: {error:?}"))?;
    for (id, key) in draws.keys.iter().enumerate() {
        cache.set(key.clone(), Product::new(id), None).await;
    }
    Ok(Fusion(cache))
}

impl crate::hits::Hits for Fusion {
    fn name(&self) -> &'static str {
        "fusioncache-rs"
    }

    fn side(&self) -> Side {
        Side::Peer
    }

    fn read<'a>(
        &'a self,
        draws: &'a Draws,
        n: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = u64> + 'a>> {
        let mut cache = self.0.clone();
        Box::pin(async move {
            let mut sum = 0;
            for key in draws.take(n) {
                let found = cache.get_or_set(key.clone(), Missed, None).await;
                sum += found.map_or(0, |found| found.id);
            }
            sum
        })
    }
}
