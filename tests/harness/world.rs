//! Nodes of one cache over a store and a bus in memory, on virtual time.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{MemoryL2, MemorySnapshot, MessagePack, Wire};
use crinkle_core::{Cache, CacheBuilder};
use crinkle_testkit::chaos::{self, BusHandle, L2Handle};
use crinkle_testkit::clock::TokioClock;
use tokio::time::{sleep, timeout};

use crate::loads::options;

/// What the nodes of a cache share.
#[derive(Debug)]
pub struct World {
    /// The time of every node and of the store.
    pub clock: TokioClock,
    /// The store.
    pub store: MemoryL2,
    /// The bus.
    pub bus: MemoryBackplane,
    nodes: AtomicU64,
}

/// One node with its own fault injection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node<C = MessagePack> {
    /// The cache.
    pub cache: Cache<C>,
    /// The handle of its store.
    pub l2: L2Handle,
    /// The handle of its bus.
    pub bus: BusHandle,
}

impl World {
    /// A world whose store announces its writes itself, like Redis.
    pub async fn new() -> Self {
        Self::assemble(|clock, bus| MemoryL2::announcing(clock, bus)).await
    }

    /// A world whose store cannot announce: nodes publish before and after each write.
    pub async fn apart() -> Self {
        Self::assemble(|clock, _| MemoryL2::with_clock(clock)).await
    }

    async fn assemble(store: impl FnOnce(Arc<TokioClock>, MemoryBackplane) -> MemoryL2) -> Self {
        let clock = TokioClock::new();
        // No node starts at the origin of its clock.
        pass(Duration::from_secs(3600)).await;
        let bus = MemoryBackplane::new();
        let store = store(Arc::new(clock), bus.clone());
        Self { clock, store, bus, nodes: AtomicU64::new(1) }
    }

    /// A ready node with default settings.
    pub async fn node(&self) -> Node {
        self.node_with(|builder| builder).await
    }

    /// A ready node with settings of the test.
    ///
    /// # Panics
    ///
    /// If the settings are invalid or the node does not become ready.
    pub async fn node_with<C: Wire + Debug>(
        &self,
        change: impl FnOnce(CacheBuilder) -> CacheBuilder<C>,
    ) -> Node<C> {
        let node = self.cold(change, |_, _| ());
        node.cache.ready().await.expect("a healthy world");
        // Wait until the node has finished its first verification.
        pass(Duration::from_millis(50)).await;
        node
    }

    /// A node that need not be ready. `trouble` gets its handles before it starts.
    ///
    /// # Panics
    ///
    /// If the settings are invalid.
    pub fn cold<C: Wire + Debug>(
        &self,
        change: impl FnOnce(CacheBuilder) -> CacheBuilder<C>,
        trouble: impl FnOnce(&L2Handle, &BusHandle),
    ) -> Node<C> {
        let (store, l2) = chaos::l2(Arc::new(self.store.clone()));
        let (backplane, bus) = chaos::backplane(Arc::new(self.bus.clone()));
        trouble(&l2, &bus);
        let seed = self.nodes.fetch_add(1, Ordering::Relaxed);
        let builder = Cache::builder("shop").clock(self.clock).seed(seed);
        let cache = change(builder).l2(store).backplane(backplane).build().expect("sound settings");
        Node { cache, l2, bus }
    }

    /// A cache without L2, on the world's clock.
    ///
    /// # Panics
    ///
    /// Never: the defaults are valid.
    pub fn alone(&self) -> Cache {
        Cache::builder("shop").clock(self.clock).build().expect("sound settings")
    }

    /// Puts a snapshot into the store, as a failover does, and ends all subscriptions.
    pub fn fail_over(&self, snapshot: MemorySnapshot) {
        self.store.restore(snapshot);
        self.bus.disconnect_all();
    }

    /// The key of a record in the store.
    pub fn record(key: &str) -> String {
        format!("shop:v1:e:{key}")
    }
}

/// A cache without L2 and one with L2, for behaviour common to both.
pub async fn both(world: &World) -> [Cache; 2] {
    [world.alone(), world.node().await.cache]
}

/// The same with a stale value 1 at `key`.
///
/// # Panics
///
/// If a cache refuses the value.
pub async fn both_stale(world: &World) -> [Cache; 2] {
    let caches = both(world).await;
    for cache in &caches {
        let _ = cache.set("key", 1).options(options()).await.expect("no trouble");
    }
    pass(Duration::from_secs(11)).await;
    caches
}

/// The server of a key where there are two, `a` and `b`. The ledger is on `a`.
#[must_use]
pub fn server_of(key: &str) -> &'static str {
    if key.contains("on-b") { "b" } else { "a" }
}

/// The servers whose circuit breaker is open.
#[must_use]
pub fn servers_down(cache: &Cache) -> Vec<String> {
    let servers = cache.health().l2_servers.into_iter();
    servers.filter(|server| !server.up).map(|server| server.name.to_string()).collect()
}

/// Advances virtual time, with everything that is due meanwhile.
pub async fn pass(time: Duration) {
    sleep(time).await;
}

/// Advances virtual time until a condition holds, at most a minute.
///
/// # Panics
///
/// If it does not hold in time.
pub async fn until(what: &str, holds: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), wait).await.is_ok(), "it never came true: {what}");
}
