//! Reads from a replica that may lag behind: never what this node knows to be gone.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::Source;
use crinkle_core::l2::MemoryL2;
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, go, long, pass, until};

/// How far the replica may be behind.
const LAG: Duration = Duration::from_secs(2);

/// A world with a replica that is told when to catch up.
struct Replicated {
    world: World,
    replica: MemoryL2,
}

impl Replicated {
    /// A node has written a value, and the replica has it.
    async fn written() -> (Self, Node) {
        let world = Self::new().await;
        let writer = world.world.node().await;
        set(&writer, 1).await;
        world.catch_up();
        (world, writer)
    }

    async fn new() -> Self {
        let world = World::new().await;
        let replica = MemoryL2::with_clock(Arc::new(world.clock));
        Self { world, replica }
    }

    fn catch_up(&self) {
        self.replica.restore(self.world.store.snapshot());
    }

    /// A node that reads from the replica, and has been there for longer than that may lag.
    async fn reader(&self) -> Node {
        let replica = Arc::new(self.replica.clone());
        let node = self.world.cold(|builder| builder, |l2, _| l2.replica(LAG, replica));
        node.cache.ready().await.expect("a healthy world");
        // The copies of a new node are verified by then. A first question, and then time without news.
        pass(Duration::from_secs(3)).await;
        assert!(node.cache.get::<i32>("nothing").await.expect("no error").is_none());
        pass(LAG + Duration::from_millis(1)).await;
        node.l2.forget();
        node
    }
}

async fn set(node: &Node, value: i32) {
    node.cache.set("key", value).tags(["t"]).options(long()).await.expect("stored");
}

async fn get(node: &Node) -> Option<i32> {
    node.cache.get::<i32>("key").await.expect("no error").map(|cached| *cached)
}

/// What a load answers that would bring 99.
async fn load(node: &Node) -> i32 {
    let load = node.cache.get_or_set("key", Loads::new().value(99)).options(long());
    *load.await.expect("a value")
}

fn asked(node: &Node) -> [usize; 2] {
    let [look, read] = [L2Op::Look, L2Op::Read].map(|op| node.l2.count(op));
    [node.l2.count(L2Op::Replica), look + read]
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_has_is_not_asked_of_the_primary() {
    let world = Replicated::new().await;
    let writer = world.world.node().await;
    let reader = world.reader().await;
    set(&writer, 1).await;
    world.catch_up();
    pass(LAG * 2).await;
    let found = reader.cache.get::<i32>("key").await.unwrap().expect("a value");
    assert_eq!((*found, found.meta().source()), (1, Source::L2));
    assert_eq!(asked(&reader), [1, 0]);
    assert_eq!((get(&reader).await, asked(&reader)), (Some(1), [1, 0]), "it is in L1 now");
    let loader = world.reader().await;
    assert_eq!((load(&loader).await, asked(&loader)), (1, [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_lacks_is_asked_of_the_primary() {
    let world = Replicated::new().await;
    let reader = world.reader().await;
    assert_eq!((get(&reader).await, asked(&reader)), (None, [1, 1]));
    let loader = world.reader().await;
    assert_eq!((load(&loader).await, asked(&loader)), (99, [1, 1]));
    reader.l2.always(L2Op::Replica, Fate::Hang);
    pass(LAG * 2).await;
    reader.l2.forget();
    assert_eq!((get(&reader).await, asked(&reader)), (Some(99), [1, 1]), "it is not waited for");
}

#[tokio::test(start_paused = true)]
async fn what_this_node_wrote_is_never_undone_by_a_replica_that_lags() {
    let world = Replicated::new().await;
    let (one, two) = (world.reader().await, world.reader().await);
    for node in [&one, &two] {
        set(node, 1).await;
        world.catch_up();
        node.cache.remove("key").await.unwrap();
        pass(LAG - Duration::from_millis(1)).await;
        node.l2.forget();
        assert_eq!((get(node).await, asked(node)), (None, [0, 1]));
        world.catch_up();
    }
    // Though it was only read.
    pass(LAG - Duration::from_millis(1)).await;
    two.l2.forget();
    assert_eq!((get(&two).await, asked(&two)), (None, [0, 1]));
    pass(LAG + Duration::from_millis(1)).await;
    assert_eq!((get(&two).await, asked(&two)), (None, [1, 2]));
}

#[tokio::test(start_paused = true)]
async fn what_this_node_has_heard_of_is_not_asked_of_a_replica() {
    let (world, writer) = Replicated::written().await;
    let reader = world.reader().await;
    set(&writer, 2).await;
    pass(Duration::from_millis(5)).await;
    assert_eq!((get(&reader).await, asked(&reader)), (Some(2), [0, 1]));
    let loader = world.reader().await;
    writer.cache.remove("key").await.unwrap();
    pass(Duration::from_millis(5)).await;
    assert_eq!(load(&loader).await, 99);
    assert_eq!(get(&reader).await, Some(99));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_overtakes_the_reply_of_a_replica_wins() {
    let (world, writer) = Replicated::written().await;
    let (reader, loader) = (world.reader().await, world.reader().await);
    let gate = Gate::new();
    for node in [&reader, &loader] {
        node.l2.next(L2Op::Replica, Fate::HoldReply(gate.clone()));
    }
    let (one, two) = (reader.clone(), loader.clone());
    let (got, loaded) = (go(async move { get(&one).await }), go(async move { load(&two).await }));
    pass(Duration::from_millis(5)).await;
    assert_eq!((asked(&reader), asked(&loader)), ([1, 0], [1, 0]));
    set(&writer, 2).await;
    pass(Duration::from_millis(5)).await;
    gate.open();
    assert_eq!(got.await.unwrap(), Some(2));
    assert_eq!(loaded.await.unwrap(), 1, "its caller came before");
    assert_eq!((get(&reader).await, get(&loader).await), (Some(2), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn after_a_resync_replicas_are_left_alone_for_as_long_as_they_may_lag() {
    let (world, writer) = Replicated::written().await;
    let reader = world.reader().await;
    reader.bus.mute(true);
    set(&writer, 2).await;
    pass(Duration::from_millis(5)).await;
    reader.bus.mute(false);
    let connected = reader.cache.stats().resyncs_connected;
    reader.bus.disconnect();
    let again = || reader.cache.stats().resyncs_connected > connected;
    until("it has subscribed again", || again() && reader.cache.health().coherent).await;
    assert_eq!((get(&reader).await, asked(&reader)), (Some(2), [0, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_removed_tag_hides_what_a_replica_still_has() {
    let (world, writer) = Replicated::written().await;
    let reader = world.reader().await;
    let token = writer.cache.remove_by_tag("t").await.unwrap().token().expect("a number");
    reader.cache.wait_for(token).await.unwrap();
    assert_eq!((get(&reader).await, load(&reader).await), (None, 99));
}

#[tokio::test(start_paused = true)]
async fn strict_reads_and_looks_at_copies_go_to_the_primary() {
    let (world, writer) = Replicated::written().await;
    let reader = world.reader().await;
    reader.bus.mute(true);
    set(&writer, 2).await;
    let strict = reader.cache.get::<i32>("key").strict().await.unwrap();
    assert_eq!((strict.as_deref(), asked(&reader)), (Some(&2), [0, 1]));
    set(&writer, 3).await;
    let strict = reader.cache.get::<i32>("key").strict().await.unwrap();
    assert_eq!(strict.as_deref(), Some(&3));
    assert_eq!((reader.l2.count(L2Op::Heads), asked(&reader)), (1, [0, 2]));
}

/// S3: what a replica has said was so as long ago as it may lag, and the coherence TTL counts from then.
#[tokio::test(start_paused = true)]
async fn without_a_backplane_what_a_replica_has_said_is_trusted_for_that_much_less() {
    let (world, writer) = Replicated::written().await;
    let (store, l2) = crinkle_testkit::chaos::l2(Arc::new(world.world.store.clone()));
    l2.replica(LAG, Arc::new(world.replica.clone()));
    let builder = crinkle_core::Cache::builder("shop").clock(world.world.clock).seed(77);
    let cache = builder.l2(store).build().expect("sound settings");
    cache.ready().await.unwrap();
    assert!(cache.get::<i32>("nothing").await.unwrap().is_none());
    pass(LAG + Duration::from_millis(1)).await;
    set(&writer, 2).await;
    let load_lock = Duration::from_secs(30);
    assert_eq!(cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    pass(load_lock.saturating_sub(LAG + Duration::from_millis(50))).await;
    assert_eq!(cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    pass(Duration::from_millis(100)).await;
    assert_eq!(cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}
