//! The core of Crinkle, a hybrid cache: L1 in memory, an optional L2 that all nodes share, and an
//! optional backplane between them. Applications depend on the `crinkle` package, which re-exports
//! this one and adds Redis.
//!
//! The promise: *a removed value is not served as fresh*. It holds whichever caller on whichever
//! node was loading the value, and whatever happened to the message.
//!
//! ```text
//!  get_or_set ─▶ L1 ── fresh? one compare, no await, no allocation ──────────────▶ answer
//!                 │ no
//!                 ▼
//!               flight: the first caller leads, the others wait for its result
//!                 │
//!                 ▼
//!               L2 ── a valid record, or the load lock ──────────────────────────▶ answer
//!                 │ load lock          (another node holds it: wait for its value)
//!                 ▼
//!               factory ─▶ stored only over exactly the version that was seen ───▶ answer
//!                 │ fails
//!                 ▼
//!               fail-safe: a stale value, unless it was removed
//! ```
//!
//! # Consistency
//!
//! Three mechanisms carry the guarantees. None of them compares the clocks of two machines.
//!
//! - A **ledger** in L2 numbers removals by tag and clears. Every entry carries a stamp: what its
//!   node knew before the factory started. An entry is invalid if a barrier of one of its tags is
//!   newer.
//! - Records have **versions and load locks**. A fill replaces only the exact version that it saw
//!   or created. A missing record alone authorises nothing.
//! - A **session** ends with every resync: a reconnect, a gap, or a heartbeat that did not come
//!   back. Nothing is flushed, but the node verifies its entries again before they count as fresh.
//!
//! Strong: an invalidation holds on its own node from the first poll of the call. A hard removal
//! also excludes the value from fail-safe. A load respects everything that happened while it ran.
//!
//! Bounded: other nodes follow as soon as they know of an invalidation. That is within a poll (1 s)
//! and a round trip while L2 answers, and always within the coherence TTL (30 s).
//!
//! Not promised:
//!
//! - writes that a failover lost together with every node that knew them;
//! - a source that returns old data, or an invalidation before the commit;
//! - linearizable hits in L1, or an order of two concurrent blind `set`s;
//! - removals that were still queued when their process ended.
//!
//! [`protocol`] contains the rules; [`l2`] and [`backplane`] contain the traits to implement.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `messagepack` | yes | `l2::MessagePack`, the default codec |
//! | `json` | yes | `l2::Json` |
//! | `blocking` | yes | [`blocking`], for code that is not async; needs tokio's `rt-multi-thread` |
//! | `postcard` | no | `l2::Postcard` |
//! | `prost` | no | `l2::Prost`, for messages of `prost` 0.14 |
//! | `lz4`, `zstd` | no | `l2::Compression::lz4`, `zstd`; the latter needs a C compiler |
//! | `moka` | yes | `Eviction::Lru` and `Eviction::TinyLfu` |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade |
//! | `otel` | no | the same metrics through OpenTelemetry |
//! | `testing` | no | unstable: `CacheBuilder::seed`, only for tests |
//! | `sabotage` | no | unstable: planted bugs, only for the simulator of `crinkle-testkit` |
//!
//! Without `messagepack` the default codec is `l2::NoCodec`: it accepts every type, but no L2.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Whether this bug is planted on this thread. Always false without the feature `sabotage`.
macro_rules! sabotaged {
    ($bug:ident) => {{
        #[cfg(feature = "sabotage")]
        let planted = $crate::sabotage::is_planted($crate::sabotage::Sabotage::$bug);
        #[cfg(not(feature = "sabotage"))]
        let planted = std::convert::identity(false); // A literal is folded by lints.
        planted
    }};
}

#[macro_use]
mod sync;

// Six floors, from the caller down. Imports only go down:
//
// - handles: `cache`, `blocking`;
// - pipelines: `read` (begin there), `write`; and `background`, the loops over a node;
// - the node: `node`;
// - parts: `l1`, `l2`, `flight`, `factory`, `coherence`, `recovery`, `backplane`;
// - values: `entry`, `tags`, `options`, `events`, `telemetry`, `error`, `receipt`, `token`, `announce`,
//   `server`;
// - tools: `clock`, `entropy`, `runtime`, `tasks`, `sync`, `watch`.
//
// The rules are in the crate `protocol`.

mod announce;
mod background;
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
mod flight;
#[cfg(all(test, crinkle_shuttle))]
mod interleaved;
mod l1;
pub mod l2;
mod node;
mod options;
mod read;
mod receipt;
mod recovery;
pub mod runtime;
mod server;
mod tags;
mod tasks;
pub mod telemetry;
mod token;
mod watch;
mod write;

pub use cache::{
    Cache, CacheBuilder, Contains, Get, GetMany, GetOr, GetOrSet, GetOrSetMany, Guarantee,
    Guarantees, IntoKey, IntoTags, NoTags, PendingWrites, Remove, RemoveAndTags, RemoveByTag,
    RemoveMany, RequestFuture, Reserve, Set, SetMany, WaitFor, Warm, Warmed,
};
pub use clock::{Clock, ManualClock, Moment, SystemClock};
pub use crinkle_protocol as protocol;
pub use entry::{Cached, Metadata, Source};
pub use error::{BoxError, Error, ErrorKind};
pub use events::{Event, EventKey, Events, LedgerTrouble, MissReason, Notice};
pub use factory::{FactoryContext, NotModified, ok};
pub use options::{EagerRefresh, EntryOptions, Eviction, FailSafe, Settings};
#[cfg(feature = "sabotage")]
pub use protocol::sabotage;
pub use receipt::{Receipt, WriteStatus};
pub use server::ServerHealth;
pub use telemetry::{Health, LastError, RegionHealth, Stats};
pub use token::{InvalidToken, Token};
pub use write::Reservation;
