//! What a stranger's program does first, built by `.ci/package` against the packages.

use crinkle::{Cache, Source};

/// The names that each feature brings.
#[cfg(feature = "redis")]
#[expect(unused_imports, reason = "only their names are tested")]
mod with_redis {
    pub use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
}

#[cfg(feature = "full")]
#[expect(unused_imports, reason = "only their names are tested")]
mod with_everything {
    pub use crinkle::Eviction::{Lru, S3Fifo, TinyLfu};
    pub use crinkle::blocking;
    pub use crinkle::cas::{CasL2, PlainL2};
    pub use crinkle::disk::Disk;
    pub use crinkle::l2::{Compression, Json, MessagePack, Postcard, Prost, Raw};
    pub use crinkle::memcached::Memcached;
    pub use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
    pub use crinkle::telemetry::BUCKETS;
}

async fn load(id: u32) -> std::io::Result<String> {
    Ok(format!("product {id}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), crinkle::Error> {
    let cache = Cache::builder("shop").build()?;
    let miss = cache.get_or_set("product:42", |_| load(42)).await?;
    let hit = cache.get_or_set("product:42", |_| load(42)).await?;
    assert_eq!((miss.source(), hit.source()), (Source::Factory, Source::L1));
    println!("{} came from {:?}, then from {:?}", *hit, miss.source(), hit.source());
    Ok(())
}
