//! Marks in the ledger, rule by rule: when one is left, for how long it is good, when it is taken back.

use std::time::Duration;

use crinkle_core::WriteStatus;
use crinkle_core::l2::L2ErrorKind;
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Node, World, go, pass};
use tokio::time::Instant;

use crate::unannounced::{BOUND, POLL, node};

async fn pair(world: &World) -> (Node, Node) {
    let (writer, reader) = (node(world).await, node(world).await);
    let _ = writer.cache.set("price", 1).await.expect("no trouble");
    holds(&reader).await;
    (writer, reader)
}

/// The reader has a copy.
async fn holds(reader: &Node) {
    let read = reader.cache.get::<i32>("price").await.expect("no trouble");
    assert_eq!(read.as_deref(), Some(&1));
}

/// A reader that reads all the time answers the old price no longer than it may.
async fn is_told(reader: &Node) {
    let until = Instant::now() + BOUND;
    while Instant::now() < until {
        let _ = reader.cache.get::<i32>("price").await.expect("no trouble");
        pass(POLL / 20).await;
    }
    assert!(reader.cache.health().coherent, "the reader is healthy");
    let read = reader.cache.get::<i32>("price").await.expect("no trouble");
    assert!(!read.is_some_and(|read| *read == 1 && !read.meta().is_stale()));
}

/// Nothing makes a reader verify any more.
async fn is_taken_back(reader: &Node) {
    pass(POLL * 5).await;
    let resyncs = reader.cache.stats().resyncs_owed;
    pass(POLL * 10).await;
    assert_eq!(reader.cache.stats().resyncs_owed, resyncs, "the mark was taken back");
}

/// A removal that L2 has got and not run yet, though nobody could be told before.
async fn stuck(writer: &Node) -> Gate {
    let gate = Gate::new();
    writer.bus.fail_publish(true);
    writer.l2.next(L2Op::Remove, Fate::Hold(gate.clone()));
    let cache = writer.cache.clone();
    drop(go(async move { cache.remove("price").l2_hard_timeout(POLL * 60).await }));
    gate.reached().await;
    gate
}

/// It runs, and its writer can tell nobody.
async fn run(writer: &Node, gate: Gate) {
    writer.bus.fail_publish(true);
    writer.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
    gate.open();
    pass(Duration::from_millis(10)).await;
}

/// A2: the others believe a mark for a minute, so an outage that is longer needs more than one.
#[tokio::test(start_paused = true)]
async fn a_mark_is_left_again_while_an_outage_lasts() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    writer.bus.fail_publish(true);
    for value in 0..10 {
        let _ = writer.cache.set("other", value).await.unwrap();
        pass(POLL * 10).await;
    }
    holds(&reader).await;
    let _ = writer.cache.remove("price").await.unwrap();
    is_told(&reader).await;
}

/// A3: what is owed and paid between two looks counts, too.
#[tokio::test(start_paused = true)]
async fn a_mark_that_was_taken_back_before_it_was_seen_is_believed() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    reader.l2.always(L2Op::Sync, Fate::Fail(L2ErrorKind::Full));
    reader.bus.hold(true);
    writer.bus.fail_publish(true);
    let _ = writer.cache.remove("price").await.unwrap();
    writer.bus.fail_publish(false);
    pass(POLL * 5 / 2).await;
    reader.l2.heal();
    is_told(&reader).await;
    assert!(reader.cache.stats().resyncs_owed > 0);
}

/// A mark that was lost with its ledger is none for who has not seen it.
#[tokio::test(start_paused = true)]
async fn a_mark_of_an_earlier_ledger_is_not_enough() {
    let world = World::apart().await;
    let (writer, _) = pair(&world).await;
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("other", 1).await.unwrap();
    world.store.wipe();
    // It is left again with a poll, and with a write.
    writer.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
    pass(POLL * 2).await;
    let reader = node(&world).await;
    let _ = reader.cache.set("price", 1).await.unwrap();
    holds(&reader).await;
    writer.l2.heal();
    let _ = writer.cache.remove("price").await.unwrap();
    writer.l2.down();
    is_told(&reader).await;
}

/// A write that was not announced before may run at any time: its mark is left again in a new ledger.
#[tokio::test(start_paused = true)]
async fn a_write_under_way_is_told_in_a_new_ledger() {
    let world = World::apart().await;
    let (writer, _) = pair(&world).await;
    // So long after the last write nothing else has to be said again.
    pass(POLL * 15).await;
    let gate = stuck(&writer).await;
    world.store.wipe();
    pass(POLL * 3).await;
    let reader = node(&world).await;
    let _ = reader.cache.set("price", 1).await.unwrap();
    holds(&reader).await;
    run(&writer, gate).await;
    is_told(&reader).await;
}

/// A4: a bus that works again is not enough while a write is under way that was not announced before.
#[tokio::test(start_paused = true)]
async fn a_mark_stands_while_a_write_is_under_way() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    let gate = stuck(&writer).await;
    writer.bus.fail_publish(false);
    pass(POLL * 4).await;
    holds(&reader).await;
    run(&writer, gate).await;
    is_told(&reader).await;
}

/// A mark that the ledger did not let its owner take back is taken back later.
#[tokio::test(start_paused = true)]
async fn a_mark_is_taken_back_when_the_ledger_answers() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("other", 1).await.unwrap();
    writer.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
    writer.bus.fail_publish(false);
    pass(POLL * 3).await;
    writer.l2.heal();
    is_taken_back(&reader).await;
    assert_eq!(writer.cache.stats().resyncs_owed, 0, "an own mark is no news");
}

/// What fails while a mark is being taken back leaves another, and that is taken back as well.
#[tokio::test(start_paused = true)]
async fn a_failure_while_a_mark_is_taken_back_is_not_forgotten() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("other", 1).await.unwrap();
    let gate = Gate::new();
    writer.l2.next(L2Op::Advance, Fate::HoldReply(gate.clone()));
    writer.bus.fail_publish(false);
    gate.reached().await;
    writer.bus.fail_publish(true);
    let cache = writer.cache.clone();
    let removal = go(async move { cache.remove("price").await });
    pass(Duration::from_millis(10)).await;
    gate.open();
    let _ = removal.await.unwrap().unwrap();
    is_told(&reader).await;
    writer.bus.fail_publish(false);
    is_taken_back(&reader).await;
}

/// A1: a write that was announced before, and whose end could not be told, leaves a mark as well.
#[tokio::test(start_paused = true)]
async fn a_write_whose_end_cannot_be_told_leaves_a_mark() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    let gate = Gate::new();
    writer.l2.next(L2Op::Remove, Fate::Hold(gate.clone()));
    let cache = writer.cache.clone();
    drop(go(async move { cache.remove("price").l2_hard_timeout(POLL * 60).await }));
    gate.reached().await;
    // Who was told that it begins verifies for a while, and no longer.
    pass(POLL * 4).await;
    holds(&reader).await;
    writer.bus.fail_publish(true);
    gate.open();
    pass(Duration::from_millis(10)).await;
    writer.l2.down();
    is_told(&reader).await;
}

/// What was not announced before is not called told because it was announced after.
#[tokio::test(start_paused = true)]
async fn a_write_that_was_announced_too_late_is_unknown() {
    let world = World::apart().await;
    let (writer, _) = pair(&world).await;
    let gate = Gate::new();
    writer.bus.fail_publish(true);
    writer.l2.next(L2Op::Remove, Fate::Hold(gate.clone()));
    let cache = writer.cache.clone();
    let removal = go(async move { cache.remove("price").await });
    gate.reached().await;
    writer.bus.fail_publish(false);
    gate.open();
    let receipt = removal.await.unwrap().unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Unknown));
}

/// What a ledger past its cap folds before the others look may have been a mark: they verify what they hold.
#[tokio::test(start_paused = true)]
async fn a_mark_that_is_folded_before_the_next_poll_counts() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    pass(POLL * 2).await;
    writer.bus.fail_publish(true);
    let _ = writer.cache.remove("price").await.unwrap();
    let tags = (0..200_100).map(|tag| format!("tag {tag}"));
    let _ = writer.cache.remove_by_tags(tags).await.unwrap();
    is_told(&reader).await;
}

/// A5: the command that left the mark had no answer, the others have seen it, and then its ledger is lost.
#[tokio::test(start_paused = true)]
async fn a_mark_without_an_answer_is_taken_back_in_a_new_ledger() {
    let world = World::apart().await;
    let (writer, reader) = pair(&world).await;
    writer.bus.fail_publish(true);
    writer.l2.next(L2Op::Advance, Fate::LoseReply);
    let _ = writer.cache.set("other", 1).await.unwrap();
    writer.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
    pass(POLL * 2).await;
    assert!(reader.cache.stats().resyncs_owed > 0, "the reader has seen it");
    world.store.wipe();
    writer.bus.fail_publish(false);
    pass(POLL * 3).await;
    writer.l2.heal();
    is_taken_back(&reader).await;
}
