#![doc = include_str!("../guide/index.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(doc, doctest))]
pub mod guide;

#[cfg(feature = "blocking")]
pub use crinkle_core::blocking;
pub use crinkle_core::{
    BoxError, Cache, CacheBuilder, Cached, Clock, Contains, EagerRefresh, EntryOptions, Error,
    ErrorKind, Event, EventKey, Events, Eviction, FactoryContext, FailSafe, Get, GetMany, GetOr,
    GetOrSet, GetOrSetMany, Guarantee, Guarantees, Health, IntoKey, IntoTags, InvalidToken,
    LastError, LedgerTrouble, ManualClock, Metadata, MissReason, Moment, NoTags, NotModified,
    Notice, PendingWrites, Receipt, RegionHealth, Remove, RemoveAndTags, RemoveByTag, RemoveMany,
    RequestFuture, Reservation, Reserve, ServerHealth, Set, SetMany, Settings, Source, Stats,
    SystemClock, Token, WaitFor, Warm, Warmed, WriteStatus, ok,
};
pub use crinkle_core::{backplane, l2, runtime, telemetry};
#[cfg(feature = "macros")]
pub use crinkle_macros::{cached, invalidates};

/// Redis as L2 and as backplane.
#[cfg(feature = "redis")]
pub mod redis {
    pub use crinkle_backplane::RedisBackplane;
    pub use crinkle_l2_redis::{
        Credentials, Delivery, LedgerState, LedgerView, Primary, RedisClient, RedisClientBuilder,
        RedisL2, Subscriber, TagBarriers, acl_rule, redis,
    };
}

/// An L2 over a store of your own: by compare-and-swap, or by get, set and delete only.
#[cfg(feature = "cas")]
pub mod cas {
    pub use crinkle_l2_cas::{CasEntry, CasL2, CasStore, PlainL2, PlainStore, Stored};
}

/// memcached as L2.
#[cfg(feature = "memcached")]
pub mod memcached {
    pub use crinkle_l2_memcached::{Memcached, MemcachedL2, Token};
}

/// A file as L2.
#[cfg(feature = "disk")]
pub mod disk {
    pub use crinkle_l2_disk::{Disk, DiskL2};
}
