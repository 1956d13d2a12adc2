//! A store that compares and swaps answers every call as a store does that runs it in one step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::SystemClock;
use crinkle_core::l2::{Deadline, L2, MemoryL2, Read, Record};
use crinkle_core::protocol::ledger::{Advance, Removal, Strength, SyncAsk, Target};
use crinkle_core::protocol::record::LoadLockRequest;
use crinkle_core::protocol::{Epoch, Nonce, TagHash, Version};
use crinkle_l2_cas::CasL2;
use crinkle_testkit::clock::TokioClock;
use crinkle_tests::pass;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shelf::{Shelf, record};

/// One call, and what was answered.
async fn call(l2: &dyn L2, seed: u64) -> String {
    let mut dice = StdRng::seed_from_u64(seed);
    let key = ["a", "b"][dice.random_range(0..2)];
    let version = Version(dice.random_range(1..6));
    match dice.random_range(0..18) {
        0 => shown(&l2.read(key, None).await.unwrap()),
        1..4 => shown(&l2.read(key, Some(ask(&mut dice))).await.unwrap()),
        4 => {
            let asks = [("a", Some(ask(&mut dice))), ("b", None), ("c", None)];
            let asks = asks.map(|(key, ask)| (key.to_owned(), ask));
            l2.read_many(&asks).await.unwrap().iter().map(shown).collect()
        }
        5 | 6 => format!("{:?}", l2.put(key, version, value(&mut dice), None).await),
        7 => {
            let minute = Duration::from_secs(60);
            let limit = [None, Some(Duration::ZERO), Some(minute)][dice.random_range(0..3)];
            let latest = limit.map(|limit| Deadline::after(Arc::new(SystemClock), limit));
            format!("{:?}", l2.set(key, value(&mut dice), latest, None).await.is_ok())
        }
        8 => format!("{:?}", l2.remove(key, None).await),
        9 => format!("{:?}", l2.expire(key, version, None).await),
        10 => format!("{:?}", l2.release(key, version).await),
        11 => format!("{:?}", l2.renew(key, version, 50).await),
        _ => ledger(l2, &mut dice).await,
    }
}

/// A read, but for the end of a refresh lock: the two stores count their time from other origins.
fn shown(read: &Read) -> String {
    let found = read.found.as_ref().map(|found| {
        let mut bytes = found.bytes.to_vec();
        bytes[24..32].fill(0);
        (bytes, found.ttl_ms)
    });
    format!("{found:?} {:?}", read.load_lock)
}

fn ask(dice: &mut StdRng) -> LoadLockRequest {
    let mut some = || dice.random_bool(0.3).then(|| Version(dice.random_range(1..6)));
    let (replace, hidden) = (some(), some());
    LoadLockRequest { id: Version(dice.random_range(1..6)), ttl_ms: 20, replace, hidden }
}

fn value(dice: &mut StdRng) -> Record {
    record(dice.random_range(1..6), dice.random_range(0..60), dice.random_range(1..60))
}

/// A removal of a few tags, or a poll.
async fn ledger(l2: &dyn L2, dice: &mut StdRng) -> String {
    let epoch = dice.random_bool(0.7).then_some(Epoch(1));
    let frontier = 1_700_000_000_000_000 + dice.random_range(0..4_000_000);
    let (new_epoch, retention_ms) = (Epoch(1), 3_600_000);
    if dice.random_bool(0.6) {
        let strength = [Strength::Soft, Strength::Hard][dice.random_range(0..2)];
        let mut targets = vec![Target::Tag(TagHash(dice.random_range(0..5_000)))];
        targets.extend((0..40).map(|_| Target::Tag(TagHash(dice.random_range(0..5_000)))));
        if dice.random_bool(0.05) {
            targets = vec![Target::Everything];
        }
        let removal = Removal { nonce: Nonce(dice.random_range(1..500)), strength, targets };
        let ask = Advance { removal, epoch, frontier: 0, new_epoch, retention_ms };
        return format!("{:?}", l2.advance("L", &ask, None).await);
    }
    let last = dice.random_bool(0.3).then(|| Nonce(dice.random_range(1..500)));
    let page = 100_000;
    let ask = SyncAsk { epoch, from: frontier, frontier, last, new_epoch, page, retention_ms };
    format!("{:?}", l2.sync("L", &ask).await)
}

/// The ledger, read in pages: what a later page says of a tag counts.
async fn in_pages(l2: &dyn L2, page: usize) -> BTreeMap<(Target, Strength), u64> {
    let (mut all, mut from) = (BTreeMap::new(), 0);
    loop {
        let ask = SyncAsk {
            epoch: Some(Epoch(1)),
            from,
            frontier: from,
            last: None,
            new_epoch: Epoch(1),
            page,
            retention_ms: 3_600_000,
        };
        let reply = l2.sync("L", &ask).await.unwrap();
        from = reply.levels.last().map_or(from, |(seq, _, _)| *seq);
        all.extend(
            reply.levels.into_iter().map(|(seq, target, strength)| ((target, strength), seq)),
        );
        if reply.complete {
            return all;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_answered_as_by_a_store_that_runs_it_in_one_step() {
    let mut in_chunks = 0;
    for seed in 0..2_u64 {
        let shelf = Shelf::new();
        let (swapping, atomic) =
            (CasL2::new(shelf.clone()), MemoryL2::with_clock(Arc::new(TokioClock::new())));
        for step in 0..800 {
            let call_seed = seed * 1_000_000 + step;
            let (one, other) = (call(&swapping, call_seed).await, call(&atomic, call_seed).await);
            assert!(one == other, "seed {call_seed}\n{one}\n{other}");
            pass(Duration::from_millis(call_seed % 7)).await;
        }
        let whole = in_pages(&atomic, 100_000).await;
        for page in [50, 1_000] {
            assert!(in_pages(&swapping, page).await == whole, "seed {seed}, in pages of {page}");
        }
        in_chunks += shelf.keys("L:").len();
    }
    assert!(in_chunks > 1, "ledgers were larger than their roots");
}
