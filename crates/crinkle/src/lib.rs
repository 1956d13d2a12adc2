#![doc = include_str!("../../../README.md")]

pub use crinkle_core::*;
#[cfg(feature = "macros")]
pub use crinkle_macros::{cached, invalidates};

/// Redis as L2 and as backplane.
#[cfg(feature = "redis")]
pub mod redis {
    pub use crinkle_backplane::*;
    pub use crinkle_l2_redis::*;
}

/// An L2 over a store of your own: by compare-and-swap, or by get, set and delete only.
#[cfg(feature = "cas")]
pub mod cas {
    pub use crinkle_l2_cas::*;
}

/// memcached as L2.
#[cfg(feature = "memcached")]
pub mod memcached {
    pub use crinkle_l2_memcached::*;
}

/// A file as L2.
#[cfg(feature = "disk")]
pub mod disk {
    pub use crinkle_l2_disk::*;
}

/// Compiles the examples of the documentation pages.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/getting-started.md")]
    mod getting_started {}
    #[doc = include_str!("../../../docs/tagging.md")]
    mod tagging {}
    #[doc = include_str!("../../../docs/read-path.md")]
    mod read_path {}
    #[doc = include_str!("../../../docs/refresh.md")]
    mod refresh {}
    #[doc = include_str!("../../../docs/replicas.md")]
    mod replicas {}
    #[doc = include_str!("../../../docs/order.md")]
    mod order {}
    #[doc = include_str!("../../../docs/batches.md")]
    mod batches {}
    #[doc = include_str!("../../../docs/options.md")]
    mod options {}
    #[doc = include_str!("../../../docs/blocking.md")]
    mod blocking {}
    #[doc = include_str!("../../../docs/codecs.md")]
    mod codecs {}
    #[doc = include_str!("../../../docs/errors.md")]
    mod errors {}
    #[doc = include_str!("../../../docs/migrate-from-fusioncache.md")]
    mod migrate_from_fusioncache {}
    #[doc = include_str!("../../../docs/migrate-from-moka.md")]
    mod migrate_from_moka {}
    #[doc = include_str!("../../../docs/cluster.md")]
    mod cluster {}
    #[doc = include_str!("../../../docs/macros.md")]
    mod macros {}
    #[doc = include_str!("../../../docs/redis.md")]
    mod redis {}
    #[doc = include_str!("../../../docs/recipes.md")]
    mod recipes {}
    #[doc = include_str!("../../../docs/regions.md")]
    mod regions {}
    #[doc = include_str!("../../../docs/security.md")]
    mod security {}
    #[doc = include_str!("../../../docs/stores.md")]
    mod stores {}
    #[doc = include_str!("../../../docs/observability.md")]
    mod observability {}
    #[doc = include_str!("../../../docs/cli.md")]
    mod cli {}
    #[doc = include_str!("../../../docs/production.md")]
    mod production {}
    #[doc = include_str!("../../../docs/health-checks.md")]
    mod health_checks {}
    #[doc = include_str!("../../../docs/benchmarks.md")]
    mod benchmarks {}
}
