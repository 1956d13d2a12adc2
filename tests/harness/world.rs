use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::{MemoryL2, MessagePack, Wire};
use crinkle_core::{Cache, CacheBuilder};
use crinkle_testkit::chaos::{self, BusHandle, L2Handle};
use crinkle_testkit::clock::TokioClock;
use tokio::time::{sleep, timeout};

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

/// One node, with its own troubles.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node<C = MessagePack> {
    /// The cache.
    pub cache: Cache<C>,
    /// Its way to the store.
    pub l2: L2Handle,
    /// Its way to the bus.
    pub bus: BusHandle,
}

impl World {
    /// A store that announces as it writes, like Redis.
    pub async fn new() -> Self {
        Self::assemble(|clock, bus| MemoryL2::announcing(clock, bus)).await
    }

    /// A store that cannot announce: nodes say what they do before and after.
    pub async fn apart() -> Self {
        Self::assemble(|clock, _| MemoryL2::with_clock(clock)).await
    }

    async fn assemble(store: impl FnOnce(Arc<TokioClock>, MemoryBackplane) -> MemoryL2) -> Self {
        let clock = TokioClock::new();
        // No node lives at the origin of its clock.
        pass(Duration::from_secs(3600)).await;
        let bus = MemoryBackplane::new();
        let store = store(Arc::new(clock), bus.clone());
        Self { clock, store, bus, nodes: AtomicU64::new(1) }
    }

    /// A node with default settings, ready.
    pub async fn node(&self) -> Node {
        self.node_with(|builder| builder).await
    }

    /// A node built as the test likes, ready.
    ///
    /// # Panics
    ///
    /// If the settings are refused or the node does not come up.
    pub async fn node_with<C: Wire + Debug>(
        &self,
        change: impl FnOnce(CacheBuilder) -> CacheBuilder<C>,
    ) -> Node<C> {
        let node = self.cold(change, |_, _| ());
        node.cache.ready().await.expect("a healthy world");
        // What a node doubts when it comes up is over.
        pass(Duration::from_millis(50)).await;
        node
    }

    /// A node that is not waited for, after `trouble` has been given its handles.
    ///
    /// # Panics
    ///
    /// If the settings are refused.
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
    /// Never: the defaults are sound.
    pub fn alone(&self) -> Cache {
        Cache::builder("shop").clock(self.clock).build().expect("sound settings")
    }

    /// The key of a record in the store.
    pub fn record(key: &str) -> String {
        format!("shop:v1:e:{key}")
    }
}

/// Lets virtual time pass: everything that is due in it happens.
pub async fn pass(time: Duration) {
    sleep(time).await;
}

/// Lets virtual time pass until something holds, at most a minute of it.
///
/// # Panics
///
/// If it does not come true.
pub async fn until(what: &str, holds: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), wait).await.is_ok(), "it never came true: {what}");
}
