//! The ledger of a store that compares and swaps: what becomes of it when it is large, and when a part
//! of it is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{L2, MemoryL2};
use crinkle_core::protocol::ledger::{
    Advance, Advanced, Removal, Standing, Strength, SyncAsk, SyncReply, Target,
};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use crinkle_l2_cas::CasL2;
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::pass;

use crate::shelf::Shelf;

const HOUR_MS: u64 = 3_600_000;
const LEDGER: &str = "L";

/// How many tags each removal of [`remove_many`] has.
const TAGS: u64 = 25;

fn tag(tag: u128) -> Target {
    Target::Tag(TagHash(tag))
}

async fn remove(l2: &impl L2, nonce: u64, tag: u128, strength: Strength) -> Advanced {
    remove_all(l2, nonce, &[tag], strength).await
}

async fn remove_all(l2: &impl L2, nonce: u64, tags: &[u128], strength: Strength) -> Advanced {
    let ask = Advance { retention_ms: HOUR_MS, ..removal(nonce, tags, strength) };
    l2.advance(LEDGER, &ask, None).await.unwrap()
}

/// For a ledger that says itself how long it keeps what is removed.
fn removal(nonce: u64, tags: &[u128], strength: Strength) -> Advance {
    let targets = tags.iter().copied().map(tag).collect();
    let removal = Removal { nonce: Nonce(nonce), strength, targets };
    Advance { removal, epoch: None, frontier: 0, new_epoch: Epoch(nonce), retention_ms: 0 }
}

/// Removes the tags from 1 to `count`; the number of each.
async fn remove_many(l2: &impl L2, count: u64) -> Vec<u64> {
    remove_cycling(l2, count, u64::MAX).await
}

/// The same, where tags come again after so many.
async fn remove_cycling(l2: &impl L2, count: u64, cycle: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    for nonce in 1..=count / TAGS {
        let tags = (nonce - 1) * TAGS + 1..=nonce * TAGS;
        let tags: Vec<_> = tags.map(|tag| u128::from(tag % cycle)).collect();
        let seq = remove_all(l2, nonce, &tags, Strength::Hard).await.seq;
        numbers.extend(tags.iter().map(|_| seq));
    }
    numbers
}

fn ask(epoch: Option<Epoch>, from: u64) -> SyncAsk {
    SyncAsk {
        epoch,
        from,
        frontier: from,
        last: None,
        new_epoch: Epoch(0xE9),
        page: 4096,
        retention_ms: HOUR_MS,
    }
}

async fn sync(l2: &impl L2, epoch: Option<Epoch>, from: u64) -> SyncReply {
    l2.sync(LEDGER, &ask(epoch, from)).await.unwrap()
}

/// Everything, read in pages of `page`.
async fn read_all(l2: &impl L2, page: usize) -> Vec<(u64, Target, Strength)> {
    let epoch = sync(l2, None, 0).await.epoch;
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let reply = l2.sync(LEDGER, &SyncAsk { page, ..ask(Some(epoch), from) }).await.unwrap();
        assert_eq!(reply.standing, Standing::Current);
        all.extend(reply.levels);
        if reply.complete {
            return all;
        }
        from = all.last().unwrap().0;
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_ledger_is_kept_in_pieces_of_64_kib() {
    let shelf = Shelf::new();
    let numbers = remove_many(&CasL2::new(shelf.clone()), 3_500).await;
    assert!(shelf.biggest() <= 64 * 1024, "the largest piece has {} bytes", shelf.biggest());
    assert_eq!(shelf.keys("L:").len(), 3, "1,025 barriers each, the rest is in the root");
    let other = CasL2::new(shelf);
    let expected: Vec<_> =
        (1..).zip(&numbers).map(|(at, seq)| (*seq, tag(at), Strength::Hard)).collect();
    for page in [100, 1025, 4096, 10_000] {
        assert!(read_all(&other, page).await == expected, "in pages of {page}");
    }
    let reply = sync(&other, Some(Epoch(1)), numbers[2_500]).await;
    assert_eq!((reply.levels.len(), reply.complete), (975, true), "what lies above is told");
    assert_eq!(reply.floor.hard, 0, "nothing has been folded");
}

#[tokio::test(start_paused = true)]
async fn a_later_removal_of_a_tag_counts_wherever_the_earlier_one_is_kept() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    remove_many(&l2, 1_500).await;
    let again = remove(&l2, 9_001, 1, Strength::Hard).await;
    let soft = remove(&l2, 9_002, 1, Strength::Soft).await;
    let all = read_all(&l2, 4096).await;
    let of_one: Vec<_> = all.into_iter().filter(|(_, target, _)| *target == tag(1)).collect();
    let hard = (again.seq, tag(1), Strength::Hard);
    assert_eq!(of_one, [hard, (soft.seq, tag(1), Strength::Soft)]);
}

/// A piece that is gone held barriers of unknown tags up to a known number: whatever is stamped below
/// that number has to go.
#[tokio::test(start_paused = true)]
async fn a_lost_piece_hides_everything_stamped_before_its_end() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    let numbers = remove_many(&l2, 3_000).await;
    let ends = [numbers[1_024], numbers[2_049]];
    for chunk in shelf.keys("L:") {
        shelf.lose(&chunk);
    }
    let reply = sync(&CasL2::new(shelf), Some(Epoch(1)), 0).await;
    assert_eq!(reply.floor.hard, ends[1], "the floor is at the end of what is lost");
    assert_eq!(
        reply.trim, ends[1],
        "and a node that still knows what is lost does not take it for a loss"
    );
    assert_eq!(reply.levels.len(), 3_000 - 2_050, "what is not lost is told");
    assert_eq!(reply.epoch, Epoch(1), "a node that knows all has lost nothing");
    let current = sync(&l2, Some(Epoch(1)), numbers[2_999]).await;
    assert_eq!(current.floor.hard, 0, "and needs no floor");
}

#[tokio::test(start_paused = true)]
async fn a_lost_or_corrupt_root_is_another_epoch() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    remove_many(&l2, 50).await;
    shelf.corrupt(LEDGER);
    let reply = sync(&l2, Some(Epoch(1)), 0).await;
    assert_eq!((reply.standing, reply.epoch), (Standing::NewEpoch, Epoch(0xE9)));
    shelf.lose(LEDGER);
    let begun = remove(&l2, 77, 1, Strength::Hard).await;
    assert_eq!((begun.epoch, begun.prev), (Epoch(77), None), "a removal begins it, too");
}

#[tokio::test(start_paused = true)]
async fn barriers_that_newer_ones_have_replaced_do_not_count() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone()).with_barriers(2_000);
    remove_cycling(&l2, 12_000, 1_200).await;
    let all = read_all(&l2, 4096).await;
    assert_eq!(all.len(), 1_200, "each tag once");
    assert_eq!(sync(&l2, Some(Epoch(1)), 0).await.floor.hard, 0, "nothing has been folded");
}

/// Tags 1 to 4,500, so that none shares a register with another.
#[tokio::test(start_paused = true)]
async fn barriers_beyond_the_cap_fold_into_their_registers() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone()).with_barriers(2_000);
    let numbers = remove_many(&l2, 4_500).await;
    let reply = sync(&l2, None, 0).await;
    let all = read_all(&l2, 4096).await;
    let registers = all.partition_point(|(seq, _, _)| *seq <= reply.folded);
    let exact = all.len() - registers;
    assert!((1_000..=3_100).contains(&exact), "about the cap is kept, it was {exact}");
    let expected = (1_u16..).zip(&numbers).map(|(at, seq)| {
        let old = usize::from(at) <= registers;
        let target = if old { Target::Register(at) } else { tag(at.into()) };
        (*seq, target, Strength::Hard)
    });
    assert!(all == expected.collect::<Vec<_>>(), "the newest are exact, the rest is in registers");
    assert_eq!((reply.floor.hard, reply.trim), (0, 0), "nothing has become a clear");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_folds_again_and_again_is_bounded_and_hides_no_less() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf).with_barriers(2_000);
    let mut newest = BTreeMap::new();
    for nonce in 1..=600_u64 {
        // 15,000 tags in 40 registers.
        let tags = (0..TAGS).map(|at| u128::from(((nonce * TAGS + at) << 16) | (nonce % 40)));
        let tags: Vec<_> = tags.collect();
        let seq = remove_all(&l2, nonce, &tags, Strength::Hard).await.seq;
        newest.extend(tags.into_iter().map(|tag| (tag, seq)));
    }
    let told: BTreeMap<_, _> =
        read_all(&l2, 4096).await.into_iter().map(|(seq, target, _)| (target, seq)).collect();
    assert!(told.len() <= 3_100 + 40, "{} barriers are kept", told.len());
    let of = |target: Target| told.get(&target).copied().unwrap_or(0);
    for (hash, seq) in newest {
        let register = Target::Register(TagHash(hash).register());
        assert!(of(tag(hash)).max(of(register)) >= seq, "tag {hash:x} is hidden");
    }
}

#[tokio::test(start_paused = true)]
async fn barriers_older_than_the_retention_fold_into_the_floor() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    let numbers = remove_many(&l2, 1_500).await;
    pass(Duration::from_secs(2 * 3600)).await;
    let last = remove(&l2, 9_000, 7, Strength::Soft).await;
    let reply = sync(&l2, None, 0).await;
    assert_eq!(reply.levels, [(last.seq, tag(7), Strength::Soft)]);
    assert_eq!(reply.floor.hard, numbers[1_499]);
}

/// Removes 1,500 tags, more than a root holds, by callers that ask for this retention.
async fn remove_briefly(l2: &impl L2, retention_ms: u64) -> Epoch {
    let mut epoch = Epoch(0);
    for nonce in 1..=1_500 / TAGS {
        let tags: Vec<_> = (0..TAGS).map(|at| u128::from(nonce * TAGS + at)).collect();
        let ask = Advance { retention_ms, ..removal(nonce, &tags, Strength::Hard) };
        epoch = l2.advance(LEDGER, &ask, None).await.expect("no trouble").epoch;
    }
    epoch
}

/// When the longest retention is asked for: before the barriers are there, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Longest {
    First,
    Second,
}

/// B8: whichever node calls, and however short its own retention is, barriers and the ledger itself are kept for as
/// long as anybody has asked for, in a removal or in a poll, before or after.
async fn keeps_for_the_longest(l2: &impl L2, by_poll: bool, longest: Longest) {
    const BRIEF_MS: u64 = 1000;
    let ask_for_the_longest = async || {
        if by_poll {
            sync(l2, None, 0).await;
        } else {
            remove(l2, 8_000, 1, Strength::Soft).await;
        }
    };
    let poll = SyncAsk { retention_ms: BRIEF_MS, ..ask(None, 0) };
    l2.sync(LEDGER, &poll).await.expect("no trouble");
    if longest == Longest::First {
        ask_for_the_longest().await;
    }
    let epoch = remove_briefly(l2, BRIEF_MS).await;
    if longest == Longest::Second {
        ask_for_the_longest().await;
    }
    let poll = SyncAsk { retention_ms: BRIEF_MS, ..ask(Some(epoch), 0) };
    let third = Duration::from_secs(19 * 60);
    pass(third).await;
    let ask = Advance { retention_ms: BRIEF_MS, ..removal(9_000, &[2], Strength::Soft) };
    l2.advance(LEDGER, &ask, None).await.expect("no trouble");
    pass(third).await;
    l2.sync(LEDGER, &poll).await.expect("no trouble");
    pass(third).await;
    let reply = l2.sync(LEDGER, &poll).await.expect("no trouble");
    let when = format!("the longest {longest:?}, by poll: {by_poll}");
    assert_eq!((reply.standing, reply.floor.hard), (Standing::Current, 0), "{when}");
    let kept = reply.levels.iter().filter(|(_, _, strength)| *strength == Strength::Hard).count();
    assert_eq!(kept, 1_500, "{when}");
}

/// Where nobody has said for how long, nothing is dropped.
async fn keeps_what_nobody_limits(l2: &impl L2) {
    remove_briefly(l2, 0).await;
    pass(Duration::from_secs(10)).await;
    let ask = removal(9_000, &[1], Strength::Soft);
    let epoch = l2.advance(LEDGER, &ask, None).await.expect("no trouble").epoch;
    let poll = SyncAsk { retention_ms: 0, ..self::ask(Some(epoch), 0) };
    let reply = l2.sync(LEDGER, &poll).await.expect("no trouble");
    assert_eq!((reply.levels.len(), reply.floor.hard), (1_501, 0));
}

#[tokio::test(start_paused = true)]
async fn the_longest_retention_that_was_asked_for_is_the_ledgers() {
    let memory = || MemoryL2::with_clock(Arc::new(TokioClock::new()));
    for (by_poll, longest) in [
        (true, Longest::First),
        (false, Longest::First),
        (true, Longest::Second),
        (false, Longest::Second),
    ] {
        keeps_for_the_longest(&CasL2::new(Shelf::new()), by_poll, longest).await;
        keeps_for_the_longest(&memory(), by_poll, longest).await;
    }
    keeps_what_nobody_limits(&CasL2::new(Shelf::new())).await;
    keeps_what_nobody_limits(&memory()).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_poll_writes_only_to_renew_the_ledger() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    remove_many(&l2, 25).await;
    let written = shelf.writes();
    for _ in 0..100 {
        sync(&l2, Some(Epoch(1)), 0).await;
    }
    assert_eq!(shelf.writes(), written, "a poll is one read");
    pass(Duration::from_secs(1800)).await;
    sync(&l2, Some(Epoch(1)), 0).await;
    sync(&l2, Some(Epoch(1)), 0).await;
    assert_eq!(
        shelf.writes(),
        written + 1,
        "a quarter of its life later it is written again, once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_lost_reply_gets_the_same_number() {
    let shelf = Shelf::new();
    let l2 = CasL2::new(shelf.clone());
    let numbers = remove_many(&l2, 1_100).await;
    let again = remove(&CasL2::new(shelf), 41, 1_025, Strength::Hard).await;
    assert_eq!(again.seq, numbers[1_024], "wherever its barrier is kept");
}
