//! The guide: every page of the documentation.
//!
//! The front page of [the crate](crate) says where to begin.

// Written by `.ci/guide` from docs/. Only in the documentation, and for the tests of its examples.

#[doc = include_str!("../guide/batches.md")]
pub mod batches {}

#[doc = include_str!("../guide/benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("../guide/blocking.md")]
pub mod blocking {}

#[doc = include_str!("../guide/cli.md")]
pub mod cli {}

#[doc = include_str!("../guide/cluster.md")]
pub mod cluster {}

#[doc = include_str!("../guide/codecs.md")]
pub mod codecs {}

#[doc = include_str!("../guide/concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("../guide/dependencies.md")]
pub mod dependencies {}

#[doc = include_str!("../guide/design-decisions.md")]
pub mod design_decisions {}

#[doc = include_str!("../guide/errors.md")]
pub mod errors {}

#[doc = include_str!("../guide/getting-started.md")]
pub mod getting_started {}

#[doc = include_str!("../guide/glossary.md")]
pub mod glossary {}

#[doc = include_str!("../guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../guide/health-checks.md")]
pub mod health_checks {}

#[doc = include_str!("../guide/macros.md")]
pub mod macros {}

#[doc = include_str!("../guide/migrate-from-fusioncache.md")]
pub mod migrate_from_fusioncache {}

#[doc = include_str!("../guide/migrate-from-moka.md")]
pub mod migrate_from_moka {}

#[doc = include_str!("../guide/observability.md")]
pub mod observability {}

#[doc = include_str!("../guide/options.md")]
pub mod options {}

#[doc = include_str!("../guide/order.md")]
pub mod order {}

#[doc = include_str!("../guide/parity.md")]
pub mod parity {}

#[doc = include_str!("../guide/production.md")]
pub mod production {}

#[doc = include_str!("../guide/read-path.md")]
pub mod read_path {}

#[doc = include_str!("../guide/recipes.md")]
pub mod recipes {}

#[doc = include_str!("../guide/redis.md")]
pub mod redis {}

#[doc = include_str!("../guide/refresh.md")]
pub mod refresh {}

#[doc = include_str!("../guide/regions.md")]
pub mod regions {}

#[doc = include_str!("../guide/replicas.md")]
pub mod replicas {}

#[doc = include_str!("../guide/security.md")]
pub mod security {}

#[doc = include_str!("../guide/stability.md")]
pub mod stability {}

#[doc = include_str!("../guide/stores.md")]
pub mod stores {}

#[doc = include_str!("../guide/tagging.md")]
pub mod tagging {}

#[doc = include_str!("../guide/track-record.md")]
pub mod track_record {}

#[doc = include_str!("../guide/verification.md")]
pub mod verification {}
