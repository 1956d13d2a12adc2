//! The core of Crinkle: a hybrid cache whose writes and invalidations hold.
//!
//! Add the `crinkle` package, which re-exports this one and adds Redis.

pub mod backplane;
mod cache;
mod clock;
mod coherence;
mod entropy;
mod entry;
mod error;
mod factory;
mod fail_safe;
mod flight;
mod l1;
pub mod l2;
mod options;
pub mod protocol;
mod read;
mod recovery;
mod tags;
mod telemetry;
mod write;

pub use cache::{
    Cache, CacheBuilder, Expire, Get, GetFuture, GetOr, GetOrSet, GetOrSetFuture, Health, NoTags,
    Remove, RemoveByTag, Set,
};
pub use clock::{Clock, ManualClock, Moment, SystemClock};
pub use entry::{Cached, Source};
pub use error::{BoxError, Error, ErrorKind};
pub use factory::{FactoryContext, ok};
pub use options::{EntryOptions, FailSafe, Settings};
pub use telemetry::Stats;
pub use write::{Barrier, Reach, Receipt};
