//! Tests the locks and atomics of the hit path, of flights and of the recovery queue, under many
//! interleavings:
//!
//! ```text
//! RUSTFLAGS='--cfg crinkle_shuttle' cargo test -p crinkle-core --lib --no-default-features interleaved
//! ```
//!
//! A scheduler decides at every lock and atomic which thread continues. The tests check the order
//! of steps, not the effects of weak memory. Each rule is shown to fail when a step is out of
//! order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use shuttle::thread;

use crate::clock::{ManualClock, Moment};
use crate::coherence::{Coherence, CoherenceTtl};
use crate::entry::{Deadlines, Entry, EntryFlags, ErasedEntry, Meta, Shared, Stamp};
use crate::flight::{Driver, Flights, Role};
use crate::l1::L1;
use crate::options::Settings;
use crate::protocol::ledger::{Advanced, Authority, Item, Removal, Strength, Target};
use crate::protocol::validity::Verdict;
use crate::protocol::{Epoch, KeyHash, Nonce, TagHash, Version};
use crate::recovery::{Queued, Recovery};
use crate::sync::{Step, misorder};
use crate::telemetry::Telemetry;

/// How many schedules each test explores, and each test that must fail.
const SCHEDULES: usize = 6_000;

const EPOCH: Epoch = Epoch(9);
const NOW: Moment = Moment::from_nanos(5_000_000_000);
const HASH: KeyHash = KeyHash(4);

fn explore(test: fn()) {
    shuttle::check_random(test, SCHEDULES / 2);
    shuttle::check_pct(test, SCHEDULES / 2, 3);
}

/// The rule holds, and fails once this step is out of order.
fn holds_but_for(step: Step, test: fn()) {
    explore(test);
    misorder(Some(step));
    let noticed = catch_unwind(AssertUnwindSafe(|| explore(test)));
    misorder(None);
    assert!(noticed.is_err(), "no test notices {step:?}");
}

/// A node that has met its ledger.
fn node() -> Coherence {
    let node = Coherence::new(CoherenceTtl::forever());
    let ask = node.ask(EPOCH, 16, 1000);
    let reply = Authority::default().sync(1, &ask);
    node.synced(&reply, || Nonce(1));
    node
}

fn entry(node: &Coherence, version: Version) -> Meta {
    let until = NOW + Duration::from_secs(60);
    let deadlines = Deadlines { created: NOW, logical: until, physical: until };
    let tags = node.intern(["t"].into_iter());
    Meta::new("key", version, tags, node.stamp(NOW), deadlines, EntryFlags::PLAIN, 1)
}

/// A TTL that was shortened for good stays so, even if a hit extends it meanwhile.
fn sliding() {
    let (node, slide) = (node(), Duration::from_secs(60));
    let deadlines = Deadlines { created: NOW, logical: NOW + slide, physical: NOW + slide * 10 };
    let flags = EntryFlags { slide: 60_000_000_000, ..EntryFlags::PLAIN };
    let tags = node.intern([].into_iter());
    let meta = Meta::new("key", Version(1), tags, node.stamp(NOW), deadlines, flags, 1);
    let (meta, until) = (Arc::new(meta), NOW + slide * 2);
    let hit = Arc::clone(&meta);
    let hits = thread::spawn(move || {
        for at in 1..4 {
            hit.slide(NOW + slide * at);
        }
    });
    meta.shorten(until);
    hits.join().expect("no trouble");
    assert!(meta.logical() <= until, "{:?}", meta.logical());
}

#[test]
fn a_hit_does_not_prolong_what_was_ended_for_good() {
    holds_but_for(Step::SlideBlindly, sliding);
}

fn removal() -> Removal {
    Removal {
        nonce: Nonce(7),
        strength: Strength::Hard,
        targets: vec![Target::Tag(TagHash::of("t"))],
    }
}

/// N1: a check that runs meanwhile does not remember a verdict older than the removal.
fn memo() {
    let node = Arc::new(node());
    let meta = Arc::new(entry(&node, Version(1)));
    let (other, checked) = (Arc::clone(&node), Arc::clone(&meta));
    let reader = thread::spawn(move || {
        other.judge(&checked, NOW);
        other.judge(&checked, NOW);
    });
    let item = Item { seq: node.known().frontier + 1, prev: None, removal: removal() };
    node.received(EPOCH, item);
    assert_ne!(node.judge(&meta, NOW), Verdict::Fresh, "it was received");
    reader.join().expect("no trouble");
    assert_ne!(node.judge(&meta, NOW), Verdict::Fresh, "and stays received");
}

#[test]
fn a_memo_never_covers_a_removal_it_has_not_seen() {
    holds_but_for(Step::GenerationFirst, memo);
    holds_but_for(Step::MemoLate, memo);
}

/// N4: while a pending removal gets its number, it hides at every moment.
fn numbering() {
    let node = Arc::new(node());
    let meta = entry(&node, Version(1));
    let begun = node.begin(removal());
    let other = Arc::clone(&node);
    let commit = thread::spawn(move || {
        let seq = other.known().frontier + 1;
        other.committed(begun, Advanced { epoch: EPOCH, prev: None, seq, announced: false });
    });
    for _ in 0..2 {
        assert_ne!(node.judge(&meta, NOW), Verdict::Fresh, "it was begun before");
    }
    commit.join().expect("no trouble");
    assert_ne!(node.judge(&meta, NOW), Verdict::Fresh);
}

#[test]
fn a_removal_hides_while_it_gets_its_number() {
    holds_but_for(Step::SeqlockUnchecked, numbering);
}

fn l1() -> L1 {
    let clock = Arc::new(ManualClock::new());
    L1::new(&Settings::default(), Arc::new(Telemetry::new("test".into(), clock, false)))
}

fn stamp() -> Stamp {
    Stamp { epoch: None, frontier: 0, generation: 0, session: 0, at: NOW, known: NOW }
}

/// S6: the result of a flight is not in L1 after an invalidation that overlaps it.
fn guard() {
    let (flights, l1) = (Arc::new(Flights::new()), Arc::new(l1()));
    let Role::Lead(flight) = flights.register(HASH, "key", false, stamp) else { panic!("alone") };
    let (others, shelf) = (Arc::clone(&flights), Arc::clone(&l1));
    let write = thread::spawn(move || {
        others.receive(HASH, Version(2), || shelf.invalidate(HASH));
    });
    let meta = entry(&node(), Version(1));
    let erased: ErasedEntry = Arc::new(Entry { meta, value: Shared::Own(1_u32) });
    flights.end(HASH, flight.id, |received| {
        if received.allows(Version(1)) {
            // In the cache itself, the verdict on the entry is computed here.
            thread::yield_now();
            l1.insert(HASH, erased);
        }
    });
    write.join().expect("no trouble");
    assert!(l1.get(HASH, "key").is_none(), "it was invalidated");
}

#[test]
fn an_insert_and_an_invalidation_do_not_pass_each_other() {
    holds_but_for(Step::SettleUnlocked, guard);
}

/// S14: one of the concurrent callers leads, and no caller is left without a flight.
fn registering() {
    let flights = Arc::new(Flights::new());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let flights = Arc::clone(&flights);
            thread::spawn(move || match flights.register(HASH, "key", false, stamp) {
                Role::Lead(flight) => {
                    flights.end(HASH, flight.id, |_| ());
                    true
                }
                Role::Join(_) => false,
                Role::Wait(_) => panic!("nothing was fenced"),
            })
        })
        .collect();
    let leads = threads.into_iter().filter_map(|t| t.join().ok()).filter(|leads| *leads).count();
    assert!(leads >= 1, "one caller leads");
    assert_eq!(flights.len(), 0, "no key is left in the table");
}

#[test]
fn each_caller_leads_or_joins_and_no_key_stays_behind() {
    explore(registering);
}

/// A task polls a leader that a caller depends on, as soon as its own caller does not.
fn joining() {
    let driver = Arc::new(Driver::<&str>::default());
    let caller_driver = Arc::clone(&driver);
    let caller = thread::spawn(move || {
        let mut leader = Some("leader");
        for _ in 0..2 {
            let Some(polled) = leader.or_else(|| caller_driver.take()) else { break };
            leader = None;
            if caller_driver.put_back(polled, Waker::noop()).is_some() {
                return 1;
            }
        }
        0
    });
    let joined = usize::from(driver.hand_over().is_some());
    let given_up = caller.join().expect("no trouble");
    assert_eq!(joined + given_up, 1, "exactly one task drives");
    assert!(driver.take().is_none(), "and nobody else");
}

#[test]
fn a_leader_that_somebody_depends_on_goes_on_in_one_task() {
    holds_but_for(Step::PutBackBlindly, joining);
}

fn queued(version: u64) -> Queued {
    Queued { strength: Strength::Hard, version: Version(version), not_before: Moment::default() }
}

/// A later read sees what is queued, whatever is settled meanwhile.
fn queueing() {
    let recovery = Arc::new(Recovery::new(10));
    recovery.queue("other", queued(1));
    let others = Arc::clone(&recovery);
    let settle = thread::spawn(move || {
        others.acknowledge("other", Version(1), NOW);
        others.acknowledge("key", Version(1), NOW);
    });
    recovery.queue("key", queued(2));
    assert!(recovery.strength("key").is_some(), "it is queued");
    settle.join().expect("no trouble");
    assert!(recovery.strength("key").is_some(), "no thread has settled this one");
    assert_eq!(recovery.due(NOW).len(), 1);
}

#[test]
fn what_is_queued_counts_from_then_on() {
    holds_but_for(Step::LengthUnlocked, queueing);
}
