//! T7 and T8: clocks that are off, drift and jump, and processes that sleep.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crinkle_core::{Clock, EntryOptions, Moment};
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::{Loads, Node, World, pass};

/// A node's own clock: ahead of the world's by what it says. It goes back only where a test sets it back.
#[derive(Clone, Debug)]
struct Own {
    world: TokioClock,
    ahead: Arc<AtomicU64>,
}

impl Own {
    fn of(world: &World, ahead: Duration) -> Self {
        let nanos = u64::try_from(ahead.as_nanos()).expect("a sane duration");
        Self { world: world.clock, ahead: Arc::new(AtomicU64::new(nanos)) }
    }

    fn jump(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("a sane duration");
        self.ahead.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Set back, as somebody sets a wall clock.
    fn set_back(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("a sane duration");
        self.ahead.fetch_sub(nanos, Ordering::SeqCst);
    }
}

impl Clock for Own {
    fn now(&self) -> Moment {
        let ahead = Duration::from_nanos(self.ahead.load(Ordering::SeqCst));
        self.world.now() + ahead
    }
}

async fn node(world: &World, clock: &Own) -> Node {
    let clock = clock.clone();
    world.node_with(|builder| builder.clock(clock)).await
}

fn a_day() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(86_400))
}

/// The same history as with perfect clocks: removals hold, and nothing that is fresh is hidden.
#[tokio::test(start_paused = true)]
async fn nodes_an_hour_apart_agree_on_what_is_removed() {
    let world = World::new().await;
    let clocks = [0, 3_600, 7 * 86_400].map(|s| Own::of(&world, Duration::from_secs(s)));
    let mut nodes = Vec::new();
    for clock in &clocks {
        nodes.push(node(&world, clock).await);
    }
    for round in 0..12 {
        let (writer, loads) = (&nodes[round % 3], Loads::new());
        for node in &nodes {
            let read =
                node.cache.get_or_set("key", loads.value(round)).tags(["t"]).options(a_day());
            assert_eq!(*read.await.unwrap(), round, "what was loaded since is shared");
        }
        assert_eq!(loads.count(), 1, "one load for all nodes");
        match round % 4 {
            0 => writer.cache.remove("key").await.unwrap(),
            1 => writer.cache.remove_by_tag("t").await.unwrap(),
            2 => writer.cache.expire_by_tag("t").await.unwrap(),
            _ => writer.cache.remove_all().await.unwrap(),
        };
        pass(Duration::from_millis(10)).await;
        for node in &nodes {
            assert!(node.cache.get::<usize>("key").await.unwrap().is_none(), "round {round}");
        }
        clocks[round % 3].jump(Duration::from_millis(700));
    }
}

/// S11: each node's only clock is an hour off, and jumps back an hour and forward again. What is removed is
/// removed everywhere: numbers of the store and versions decide, no clock.
#[tokio::test(start_paused = true)]
async fn clocks_an_hour_off_that_jump_back_revive_nothing() {
    let hour = Duration::from_secs(3_600);
    let world = World::new().await;
    let clocks = [hour, hour * 2, hour * 3].map(|ahead| Own::of(&world, ahead));
    let mut nodes = Vec::new();
    for clock in &clocks {
        nodes.push(node(&world, clock).await);
    }
    for round in 0..24 {
        let (writer, loads) = (&nodes[round % 3], Loads::new());
        let first = nodes[(round + 1) % 3].cache.get_or_set("key", loads.value(round));
        assert_eq!(*first.tags(["t"]).options(a_day()).await.unwrap(), round);
        // The node that writes has another idea of the time than the node that loaded, before and after.
        if round % 2 == 0 {
            clocks[round % 3].set_back(hour)
        } else {
            clocks[round % 3].jump(hour)
        }
        let before = writer.cache.get_or_set("key", loads.value(99)).tags(["t"]).options(a_day());
        // A clock that went back may cost a load, and never an answer that was removed.
        assert!([round, 99].contains(&*before.await.unwrap()), "round {round}");
        let receipt = match round % 5 {
            0 => writer.cache.remove("key").await.unwrap(),
            1 => writer.cache.remove_by_tag("t").await.unwrap(),
            2 => writer.cache.expire_by_tag("t").await.unwrap(),
            3 => writer.cache.expire_all().await.unwrap(),
            _ => writer.cache.remove_all().await.unwrap(),
        };
        assert!(receipt.is_propagated());
        pass(Duration::from_millis(10)).await;
        for node in &nodes {
            assert!(node.cache.get::<usize>("key").await.unwrap().is_none(), "round {round}");
        }
    }
}

/// S11: the time of day is read where a store of its own tells time, and where it is shown to people.
#[test]
fn only_these_files_read_the_time_of_day() {
    fn search(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                search(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("source text");
                let reads =
                    ["SystemTime", "UNIX_EPOCH", "ClockId::Realtime", "Utc::now", "OffsetDateTime"];
                if reads.iter().any(|read| text.contains(read)) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut found = Vec::new();
    for member in std::fs::read_dir(&crates).expect("the crates") {
        let sources = member.expect("a crate").path().join("src");
        if sources.is_dir() {
            search(&sources, &mut found);
        }
    }
    let crates = crates.display().to_string() + "/";
    let mut found: Vec<_> = found.iter().map(|path| path.trim_start_matches(&crates)).collect();
    found.sort_unstable();
    let known = [
        "cli/src/doctor/facts.rs",
        "cli/src/output.rs",
        "l2-disk/src/store.rs",
        // No node: how far the clock of a test's server is ahead.
        "testkit/src/redis.rs",
    ];
    assert_eq!(found, known, "no decision of a node may read it");
}

/// The timers of a process that slept have slept, too; its clock has not.
#[tokio::test(start_paused = true)]
async fn a_process_that_wakes_up_serves_nothing_on_trust() {
    let world = World::new().await;
    let clock = Own::of(&world, Duration::ZERO);
    let (sleeper, other) = (node(&world, &clock).await, world.node().await);
    for key in ["removed", "kept"] {
        sleeper.cache.set(key, 1).options(a_day()).await.unwrap();
    }
    sleeper.bus.mute(true);
    other.cache.remove("removed").await.unwrap();
    clock.jump(Duration::from_secs(3_600));
    for key in ["removed", "kept"] {
        assert!(sleeper.cache.peek::<i32>(key).is_none(), "{key} is not fresh without a check");
    }
    assert!(sleeper.cache.get::<i32>("removed").await.unwrap().is_none());
    assert!(sleeper.cache.get::<i32>("kept").await.unwrap().is_some(), "verified, not dropped");
}
