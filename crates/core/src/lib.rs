//! The core of Crinkle: a hybrid cache whose writes and invalidations hold. Add the `crinkle` package,
//! which re-exports this one and adds Redis.
//!
//! The promise: *what was removed is not served as fresh*, whoever was loading it meanwhile, on
//! whichever node, and whatever became of the message.
//!
//! ```text
//!  get_or_set ─▶ L1 ── valid? one compare, no await, no allocation ──────────────▶ answer
//!                 │ no
//!                 ▼
//!               flight: the first caller leads, the others wait for its result
//!                 │
//!                 ▼
//!               L2 ── a record that is valid, or the load lock to load ──────────────▶ answer
//!                 │ load lock                     (another node has it: wait for its fill)
//!                 ▼
//!               factory ─▶ stored only over exactly the version that was seen ──▶ answer
//!                 │ fails
//!                 ▼
//!               fail-safe: a stale value, unless it was removed
//! ```
//!
//! # Consistency
//!
//! Three mechanisms, and no clock of one machine compared with another's:
//!
//! - A **ledger** in L2 numbers removals by tag and clears. Every entry is stamped with what its node
//!   knew before its factory started; it is invalid if a barrier of its tags is newer.
//! - Records have **versions and load locks**. A fill replaces only the exact version that it saw or
//!   created; absence authorises nothing.
//! - A **session** ends with any resync: a reconnect, a gap, a heartbeat that did not come back.
//!   Nothing is flushed, but what was verified before is verified again before it counts as fresh.
//!
//! Strong: on the node that invalidates, from the first poll of the call; hard removals, also against
//! fail-safe; a load against everything that happened while it ran. Bounded: on other nodes, as soon
//! as they know, within a poll (1 s) and a round trip while L2 answers, and within the coherence TTL
//! (30 s) whatever happens.
//!
//! Not promised: writes that a failover lost together with every node that knew them; a source that
//! answers with old data, or an invalidation before the commit; linearizable hits in L1; the order of
//! two concurrent blind `set`s; removals that were still queued when their process ended.
//!
//! The rules are in [`protocol`], the traits to implement in [`l2`] and [`backplane`].
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `messagepack` | yes | `l2::MessagePack`, the codec of a cache that chooses none |
//! | `json` | yes | `l2::Json` |
//! | `blocking` | yes | [`blocking`], for code that is not async; needs tokio's `rt-multi-thread` |
//! | `postcard` | no | `l2::Postcard` |
//! | `prost` | no | `l2::Prost`, for messages of `prost` 0.14 |
//! | `lz4` | no | `l2::Compression::lz4` |
//! | `zstd` | no | `l2::Compression::zstd`; needs a C compiler |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade |
//! | `otel` | no | the same through OpenTelemetry |
//! | `sabotage` | no | planted bugs, for the simulator of `crinkle-testkit` and nothing else |
//!
//! Without `messagepack` a cache has `l2::NoCodec` unless it chooses one: it takes every type, and no
//! L2.

#[doc(hidden)]
#[macro_use]
pub mod sabotage;
#[macro_use]
mod sync;

pub mod backplane;
#[cfg(feature = "blocking")]
pub mod blocking;
mod cache;
mod clock;
mod coherence;
mod entropy;
mod entry;
mod error;
mod events;
mod factory;
mod fail_safe;
mod flight;
#[cfg(all(test, crinkle_shuttle))]
mod interleaved;
mod l1;
pub mod l2;
mod options;
pub mod protocol;
mod read;
mod recovery;
pub mod runtime;
mod sweep;
mod tags;
pub mod telemetry;
mod watch;
mod write;

pub use cache::{
    Cache, CacheBuilder, Expire, Get, GetFuture, GetMany, GetOr, GetOrSet, GetOrSetFuture,
    GetOrSetMany, Guarantee, Guarantees, Health, LastError, NoTags, RegionHealth, Remove,
    RemoveAndTags, RemoveByTag, RemoveMany, ServerHealth, Set, SetMany, Unsent, WaitFor, Warm,
    Warmed,
};
pub use clock::{Clock, ManualClock, Moment, SystemClock};
pub use entry::{Cached, Source};
pub use error::{BoxError, Error, ErrorKind};
pub use events::{Event, EventKey, Events, LedgerTrouble, MissReason, Notice};
pub use factory::{FactoryContext, NotModified, ok};
pub use options::{EagerRefresh, EntryOptions, Eviction, FailSafe, Settings};
pub use telemetry::Stats;
pub use write::{Receipt, Reservation, Token, WriteStatus};
