//! S3 and L2, where L2 and the bus fail apart: a write that cannot be announced is told by the ledger.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{EagerRefresh, EntryOptions, ErrorKind, WriteStatus};
use crinkle_testkit::chaos::{BusHandle, Fate, L2Op};
use crinkle_tests::{Loads, Node, World, pass, until};

pub(crate) const POLL: Duration = Duration::from_secs(1);

/// Three polls and a round trip.
pub(crate) const BOUND: Duration = Duration::from_millis(3100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Set,
    Remove,
    Expire,
    RemoveMany,
    SetMany,
    Fill,
    /// L2 does not answer, so the removal is queued; recovery sends it.
    Queued,
}

const WRITES: [Write; 7] = [
    Write::Set,
    Write::Remove,
    Write::Expire,
    Write::RemoveMany,
    Write::SetMany,
    Write::Fill,
    Write::Queued,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The bus says no.
    Refused,
    /// The bus does not answer.
    Frozen,
    /// It says no, and the subscription is gone as well.
    Cut,
    /// It takes everything and receives everything, and says nothing.
    HalfOpen,
}

const TROUBLES: [Trouble; 4] = [Trouble::Refused, Trouble::Frozen, Trouble::Cut, Trouble::HalfOpen];

impl Trouble {
    fn begin(self, bus: &BusHandle, on: bool) {
        match self {
            Self::Refused => bus.fail_publish(on),
            Self::Frozen => bus.hang_publish(on),
            Self::HalfOpen => bus.hang_reply(on),
            Self::Cut => {
                bus.fail_publish(on);
                if on { bus.cut() } else { bus.reconnect() }
            }
        }
    }
}

fn eager() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(3600)).eager_refresh(EagerRefresh::after(0.5))
}

pub(crate) async fn node(world: &World) -> Node {
    world.node_with(|builder| builder.default_options(eager())).await
}

/// Writes; returns when the writer has had its answer.
async fn write(writer: &Node, write: Write) {
    let cache = &writer.cache;
    match write {
        Write::Set => {
            let _ = cache.set("price", 2).await.expect("no trouble");
        }
        Write::Remove => {
            let _ = cache.remove("price").await.expect("no trouble");
        }
        Write::Expire => {
            let _ = cache.expire("price").await.expect("no trouble");
        }
        Write::RemoveMany => drop(cache.remove_many(["price", "other"]).await.expect("no trouble")),
        Write::SetMany => drop(cache.set_many([("price", 2)]).await.expect("no trouble")),
        Write::Fill => {
            let (loads, before) = (Loads::new(), writer.l2.count(L2Op::Put));
            // An unverified copy is looked at first, and refreshed by the next caller.
            while writer.l2.count(L2Op::Put) == before {
                let _ = cache.get_or_set("price", loads.value(2)).await.expect("no trouble");
                pass(POLL / 20).await;
            }
        }
        Write::Queued => {
            writer.l2.always(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
            let _ = cache.remove("price").await.expect("no trouble");
            writer.l2.heal();
            let none = || cache.health().recovery_backlog == 0;
            until("it is recovered", none).await;
        }
    }
}

/// What a healthy reader answers as fresh after the bound.
async fn answers(how: Write, trouble: Trouble, dies: bool) -> Option<i32> {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    let _ = writer.cache.set("price", 1).await.expect("no trouble");
    assert_eq!(reader.cache.get::<i32>("price").await.expect("no trouble").as_deref(), Some(&1));
    if how == Write::Fill {
        pass(Duration::from_secs(2000)).await;
    }
    trouble.begin(&writer.bus, true);
    pass(POLL * 5 / 2).await;
    write(&writer, how).await;
    if dies {
        writer.l2.down();
        Trouble::Cut.begin(&writer.bus, true);
    }
    // It is read all the time, so what is verified too early is verified again.
    let until = tokio::time::Instant::now() + BOUND;
    while tokio::time::Instant::now() < until {
        let _ = reader.cache.get::<i32>("price").await.expect("no trouble");
        pass(Duration::from_millis(50)).await;
    }
    assert!(reader.cache.health().coherent, "the reader is healthy");
    let read = reader.cache.get::<i32>("price").await.expect("no trouble");
    let fresh = read.filter(|read| !read.meta().is_stale()).map(|read| *read);
    if !dies {
        trouble.begin(&writer.bus, false);
        pass(POLL * 10).await;
        let resyncs = reader.cache.stats().resyncs_owed;
        pass(POLL * 10).await;
        assert_eq!(reader.cache.stats().resyncs_owed, resyncs, "the mark was taken back");
    }
    fresh
}

#[tokio::test(start_paused = true)]
async fn what_the_bus_does_not_take_the_ledger_tells() {
    for how in WRITES {
        for trouble in TROUBLES {
            for dies in [false, true] {
                let fresh = answers(how, trouble, dies).await;
                assert_ne!(fresh, Some(1), "{how:?}, {trouble:?}, the writer dies: {dies}");
            }
        }
    }
}

/// A bus that takes what is said and brings it to nobody is noticed by the heartbeat that does not come back.
#[tokio::test(start_paused = true)]
async fn what_the_bus_takes_and_brings_to_nobody_the_ledger_tells() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    let _ = writer.cache.set("price", 1).await.unwrap();
    assert_eq!(reader.cache.get::<i32>("price").await.unwrap().as_deref(), Some(&1));
    pass(POLL * 2).await;
    writer.bus.mute(true);
    reader.bus.lose(usize::MAX);
    let _ = writer.cache.remove("price").await.unwrap();
    pass(BOUND + POLL).await;
    assert!(reader.cache.get::<i32>("price").await.unwrap().is_none());
    assert!(reader.cache.stats().resyncs_owed > 0);
}

/// What a write says before and after, and what its parts say, has one hard timeout in all.
#[tokio::test(start_paused = true)]
async fn a_frozen_bus_costs_a_write_one_hard_timeout() {
    let limit = Duration::from_millis(700);
    let tags = |count: u32| (0..count).map(|tag| format!("tag {tag}")).collect::<Vec<_>>();
    for world in [World::new().await, World::apart().await] {
        for hang in [BusHandle::hang_publish, BusHandle::hang_reply] {
            let defaults = eager().l2_hard_timeout(limit).background_backplane(false);
            let writer = world.node_with(|builder| builder.default_options(defaults)).await;
            let cache = &writer.cache;
            hang(&writer.bus, true);
            for what in ["set", "remove", "expire", "fill", "set_many", "tag", "200 tags", "clear"]
            {
                let began = tokio::time::Instant::now();
                match what {
                    "set" => drop(cache.set("price", 1).await.unwrap()),
                    "remove" => drop(cache.remove("price").await.unwrap()),
                    "expire" => drop(cache.expire("price").await.unwrap()),
                    "fill" => drop(cache.get_or_set("new", Loads::new().value(2)).await.unwrap()),
                    "set_many" => drop(cache.set_many([("one", 1), ("two", 2)]).await.unwrap()),
                    "clear" => drop(cache.expire_all().await.unwrap()),
                    "tag" => drop(cache.remove_by_tag("tag").await.unwrap()),
                    _ => drop(cache.remove_by_tags(tags(200)).await.unwrap()),
                }
                assert!(began.elapsed() <= limit, "{what}: {:?}", began.elapsed());
            }
            assert!(cache.health().l2_up, "the bus alone is frozen");
        }
    }
}

/// Once for an outage, not once for a write.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_bus_is_one_mark() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.bus.fail_publish(true);
    writer.l2.forget();
    for value in 0..100 {
        let receipt = writer.cache.set("price", value).await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Unknown));
    }
    assert_eq!(writer.l2.count(L2Op::Advance), 1);
    pass(POLL * 3).await;
    assert!(reader.cache.stats().resyncs_owed >= 2, "as long as it stands, with each poll");
    // A key whose head is looked at is one round trip a poll, not one a read.
    let _ = reader.cache.get::<i32>("price").await.unwrap();
    reader.l2.forget();
    for _ in 0..100 {
        let _ = reader.cache.get::<i32>("price").await.unwrap();
    }
    assert!(reader.l2.count(L2Op::Look) <= 1);
}

/// A write that can neither be announced nor marked is not sent.
#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_can_be_told_of_is_queued() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    let _ = writer.cache.set("price", 1).await.unwrap();
    assert_eq!(reader.cache.get::<i32>("price").await.unwrap().as_deref(), Some(&1));
    writer.bus.fail_publish(true);
    writer.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
    writer.l2.forget();
    let receipt = writer.cache.remove("price").await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Queued, WriteStatus::Queued));
    assert_eq!(writer.l2.count(L2Op::Remove), 0, "it was not sent");
    writer.l2.heal();
    pass(BOUND).await;
    assert!(reader.cache.get::<i32>("price").await.unwrap().is_none());
}

/// The ledger is lost with the mark: the owner leaves it again.
#[tokio::test(start_paused = true)]
async fn a_mark_is_left_again_in_a_new_ledger() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("price", 1).await.unwrap();
    pass(POLL * 2).await;
    world.store.wipe();
    pass(POLL * 2).await;
    let _ = reader.cache.set("price", 1).await.unwrap();
    assert_eq!(reader.cache.get::<i32>("price").await.unwrap().as_deref(), Some(&1));
    let _ = writer.cache.remove("price").await.unwrap();
    writer.l2.down();
    pass(BOUND).await;
    assert!(reader.cache.get::<i32>("price").await.unwrap().is_none());
}

/// The mark is taken back, and the ledger is lost before anybody has seen that: its owner says so again.
#[tokio::test(start_paused = true)]
async fn that_nothing_is_owed_any_more_is_said_again_in_a_new_ledger() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("price", 1).await.unwrap();
    pass(POLL * 2).await;
    assert!(reader.cache.stats().resyncs_owed > 0, "it has seen the mark");
    reader.l2.always(L2Op::Sync, Fate::Fail(L2ErrorKind::Timeout));
    writer.l2.forget();
    writer.bus.fail_publish(false);
    until("it is taken back", || writer.l2.count(L2Op::Advance) > 0).await;
    world.store.wipe();
    reader.l2.heal();
    pass(POLL * 3).await;
    let resyncs = reader.cache.stats().resyncs_owed;
    pass(POLL * 10).await;
    assert_eq!(reader.cache.stats().resyncs_owed, resyncs);
}

/// A mark that was left, as far as its owner knows, or not, is taken back all the same.
#[tokio::test(start_paused = true)]
async fn a_mark_of_unknown_outcome_is_taken_back() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.l2.always(L2Op::Advance, Fate::LoseReply);
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("price", 1).await.unwrap();
    writer.bus.fail_publish(false);
    pass(POLL * 3).await;
    assert!(reader.cache.stats().resyncs_owed > 0, "it has seen the mark");
    writer.l2.heal();
    pass(POLL * 3).await;
    let resyncs = reader.cache.stats().resyncs_owed;
    pass(POLL * 10).await;
    assert_eq!(reader.cache.stats().resyncs_owed, resyncs);
}

/// A failover loses a mark; while it is issued again, its owner takes it back.
#[tokio::test(start_paused = true)]
async fn a_mark_that_is_issued_again_is_taken_back_again() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    let before = world.store.snapshot();
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("price", 1).await.unwrap();
    pass(POLL * 2).await;
    assert!(reader.cache.stats().resyncs_owed > 0, "it has seen the mark");
    // The heartbeat comes back before the owner knows of the failover.
    writer.l2.always(L2Op::Sync, Fate::Delay(POLL / 20));
    writer.bus.fail_publish(false);
    world.store.restore(before);
    pass(POLL * 5).await;
    let resyncs = reader.cache.stats().resyncs_owed;
    pass(POLL * 10).await;
    assert_eq!(reader.cache.stats().resyncs_owed, resyncs);
}

/// Nobody takes back the mark of a node that is gone: it is believed for a minute.
#[tokio::test(start_paused = true)]
async fn the_mark_of_a_dead_node_ends() {
    let world = World::apart().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.bus.fail_publish(true);
    let _ = writer.cache.set("price", 1).await.unwrap();
    writer.l2.down();
    pass(Duration::from_secs(62)).await;
    let resyncs = reader.cache.stats().resyncs_owed;
    assert!(resyncs >= 59, "{resyncs}");
    pass(Duration::from_secs(600)).await;
    assert_eq!(reader.cache.stats().resyncs_owed, resyncs);
}

/// Where L2 announces what it writes there is nothing to owe.
#[tokio::test(start_paused = true)]
async fn a_store_that_announces_needs_no_mark() {
    let world = World::new().await;
    let (writer, reader) = (node(&world).await, node(&world).await);
    writer.bus.fail_publish(true);
    writer.l2.forget();
    let _ = writer.cache.set("price", 1).await.unwrap();
    pass(POLL * 5).await;
    assert_eq!(writer.l2.count(L2Op::Advance), 0);
    assert_eq!(reader.cache.stats().resyncs_owed, 0);
}

/// Numbers of this node's sequence that were taken and not sent are declared void, on every path.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_never_sent_is_missed_by_nobody() {
    let paths = ["remove_by_tag", "circuit breaker", "set", "remove", "expire", "fill", "recovery"];
    for path in paths {
        let world = World::new().await;
        let (one, two) = (node(&world).await, node(&world).await);
        let _ = one.cache.set("key", 1).await.unwrap();
        pass(POLL * 2).await;
        let missed = two.cache.stats().resyncs_message_lost;
        let refuses = |op| one.l2.always(op, Fate::Fail(L2ErrorKind::Full));
        let _ = match path {
            "remove_by_tag" => {
                refuses(L2Op::Advance);
                one.cache.remove_by_tag("tag").await.unwrap()
            }
            "circuit breaker" => {
                one.l2.down();
                for _ in 0..8 {
                    let _ = one.cache.remove("key").await.unwrap();
                }
                let before = two.cache.stats().messages;
                for at in 0..300 {
                    let _ = one.cache.remove_by_tag(format!("tag {at}")).await.unwrap();
                }
                assert_eq!(
                    two.cache.stats().messages,
                    before,
                    "nothing is said while the circuit breaker is open"
                );
                one.cache.remove_by_tag("tag").await.unwrap()
            }
            "set" => {
                refuses(L2Op::Set);
                one.cache.set("key", 2).await.unwrap()
            }
            "expire" => {
                refuses(L2Op::Expire);
                one.cache.expire("key").await.unwrap()
            }
            "fill" => {
                refuses(L2Op::Put);
                let _ = one.cache.get_or_set("new", Loads::new().value(1)).await.unwrap();
                one.cache.remove("other").await.unwrap()
            }
            _ => {
                refuses(L2Op::Remove);
                one.cache.remove("key").await.unwrap()
            }
        };
        if path == "recovery" {
            // It is tried with each poll.
            pass(POLL * 3).await;
        }
        pass(POLL / 10).await;
        one.l2.heal();
        pass(POLL * 15).await;
        let lost = two.cache.stats().resyncs_message_lost;
        // What the outage itself made unknown is not what this is about.
        let unknown = u64::from(path == "circuit breaker");
        assert!(lost - missed <= unknown, "{path}: {} times", lost - missed);
    }
}

/// A user without the right to publish is an error from the start, not staleness later.
#[tokio::test(start_paused = true)]
async fn a_node_that_may_not_publish_is_not_ready() {
    for world in [World::new().await, World::apart().await] {
        let node = world.cold(|builder| builder, |_, bus| bus.deny_publish(true));
        let error = node.cache.ready().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backplane);
        assert!(error.to_string().contains("grant its user `publish`"), "{error}");
        node.bus.deny_publish(false);
        pass(POLL * 2).await;
        node.cache.ready().await.unwrap();
    }
}
