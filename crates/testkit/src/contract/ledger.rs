//! Checks the ledger of a store: numbers, frontier, pages, floors and lost history.

use crinkle_core::l2::L2;
use crinkle_core::protocol::ledger::{
    Advance, Advanced, Removal, Standing, Strength, SyncAsk, SyncReply, Target,
};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};

use super::fresh;

const EPOCH: Epoch = Epoch(0x0065_0065_FF00_1234);

pub(super) async fn check<S: L2 + ?Sized>(store: &S, prefix: &str) {
    let key = |what| fresh(prefix, what);
    numbers(store, &key("numbers")).await;
    begins(store, &key("begins")).await;
    reports_its_frontier(store, &key("frontier")).await;
    reports_what_is_new(store, &key("delta")).await;
    notices_lost_history(store, &key("lost")).await;
    pages(store, &key("pages")).await;
    raises_floors(store, &key("floors")).await;
    keeps_registers(store, &key("registers")).await;
    assert_ne!(
        sync(store, &key("one"), ask(None, 0, None)).await.epoch,
        sync(store, &key("two"), SyncAsk { new_epoch: Epoch(2), ..ask(None, 0, None) }).await.epoch,
        "ledgers under two keys are two ledgers"
    );
}

async fn numbers<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let first = advance(store, ledger, removal(1, &[1])).await;
    assert_eq!((first.epoch, first.prev), (EPOCH, None), "the first removal begins the epoch");
    let second = advance(store, ledger, removal(2, &[2])).await;
    assert!(second.seq > first.seq, "numbers rise");
    assert_eq!(second.prev, Some(Nonce(1)), "each removal names the one before it");
    let third = advance(store, ledger, removal(3, &[1, 2, 3])).await;
    assert_eq!(third.prev, Some(Nonce(2)), "each removal names the one before it");
    let mut again = advance(store, ledger, removal(2, &[2])).await;
    again.announced = second.announced;
    assert_eq!(again, second, "the same nonce twice gets the same number twice");
    let ahead = third.seq + 60_000_000;
    let ask = Advance { epoch: Some(EPOCH), frontier: ahead, ..removal(4, &[4]) };
    let lifted = advance(store, ledger, ask).await;
    assert!(lifted.seq > ahead, "a number is above the caller's frontier");
    let ask = Advance { epoch: Some(Epoch(9)), frontier: ahead * 2, ..removal(5, &[5]) };
    let next = advance(store, ledger, ask).await;
    assert!(next.seq > lifted.seq, "numbers rise");
    assert!(next.seq < ahead * 2, "a frontier of another epoch means nothing");
    let reply = sync(store, ledger, self::ask(None, 0, None)).await;
    let ids: Vec<_> = reply.ids.iter().map(|(_, id)| id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5], "a retry is not another removal");
}

async fn begins<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let empty = sync(store, ledger, ask(None, 0, None)).await;
    assert_eq!(empty.standing, Standing::NewEpoch, "a node without an epoch gets one");
    assert_eq!(empty.epoch, EPOCH, "a sync begins the epoch where there is no ledger");
    assert_eq!((empty.trim, empty.last), (0, None), "a new epoch is empty");
    assert!(empty.complete && empty.ids.is_empty() && empty.levels.is_empty(), "and complete");
    let foreign = SyncAsk { new_epoch: Epoch(5), ..ask(Some(Epoch(4)), 0, None) };
    let reply = sync(store, ledger, foreign).await;
    assert_eq!((reply.standing, reply.epoch), (Standing::NewEpoch, EPOCH), "one epoch at a time");
    assert!(reply.now_us > 0, "a reply carries the store's time");
    let current = sync(store, ledger, ask(Some(EPOCH), reply.frontier, None)).await;
    assert_eq!(current.standing, Standing::Current, "a node that knows the epoch is current");
    let ahead = reply.frontier + 60_000_000;
    let lifted = sync(store, ledger, ask(Some(EPOCH), ahead, None)).await;
    assert!(lifted.frontier >= ahead, "a frontier that a node reports is never issued again");
    let runaway = ahead + 36_000_000_000;
    sync(store, ledger, ask(Some(EPOCH), runaway, None)).await;
    let begun = SyncAsk { new_epoch: Epoch(6), ..ask(Some(EPOCH), runaway, None) };
    let begun = sync(store, ledger, begun).await;
    let fresh = (Standing::NewEpoch, Epoch(6));
    assert_eq!((begun.standing, begun.epoch), fresh, "numbers hours ahead begin a new epoch");
}

/// A store may leave this to `SYNC`, but its answers must be correct.
async fn reports_its_frontier<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let none = store.frontier(ledger, EPOCH).await.expect("a healthy store");
    assert_eq!(none, None, "where there is no ledger, there is no number");
    let first = advance(store, ledger, removal(1, &[1])).await;
    let reported = store.frontier(ledger, EPOCH).await.expect("a healthy store");
    assert!(
        reported.is_none_or(|reported| reported == first.seq),
        "the last number issued: {reported:?}"
    );
    let foreign = store.frontier(ledger, Epoch(9)).await.expect("a healthy store");
    assert_eq!(foreign, None, "another epoch has other numbers");
    let ahead = first.seq + 60_000_000;
    let lifted = sync(store, ledger, ask(Some(EPOCH), ahead, None)).await.frontier;
    let reported = store.frontier(ledger, EPOCH).await.expect("a healthy store");
    assert!(reported.is_none_or(|reported| reported == lifted), "or lifted to: {reported:?}");
}

async fn reports_what_is_new<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let one = advance(store, ledger, removal(1, &[1, 2])).await;
    let two = advance(store, ledger, Advance { ..soft(2, &[2]) }).await;
    let all = sync(store, ledger, ask(None, 0, None)).await;
    let (hard, soft) = (Strength::Hard, Strength::Soft);
    let tag = |tag| Target::Tag(TagHash(tag));
    let levels = [(one.seq, tag(1), hard), (one.seq, tag(2), hard), (two.seq, tag(2), soft)];
    assert_eq!(all.levels, levels, "hard and soft are two numbers per tag");
    assert_eq!(all.ids, [(one.seq, Nonce(1)), (two.seq, Nonce(2))], "ids are in order");
    assert_eq!(all.last, Some(Nonce(2)), "the reply carries the newest id");
    assert!(all.frontier >= two.seq, "the frontier is the last number issued");
    let idle = sync(store, ledger, ask(Some(EPOCH), two.seq, Some(2))).await;
    assert_eq!(idle.standing, Standing::Current, "a node that knows everything is current");
    assert!(idle.ids.is_empty() && idle.levels.is_empty(), "and its reply is empty");
    let three = advance(store, ledger, removal(3, &[2])).await;
    let delta = sync(store, ledger, ask(Some(EPOCH), two.seq, Some(2))).await;
    assert_eq!(delta.standing, Standing::Current, "a node that is behind is current");
    assert_eq!(delta.levels, [(three.seq, tag(2), hard)], "and gets what is new");
    assert_eq!(delta.ids, [(three.seq, Nonce(3))], "and gets what is new");
    let all = sync(store, ledger, ask(Some(EPOCH), 0, None)).await;
    let levels = [(one.seq, tag(1), hard), (two.seq, tag(2), soft), (three.seq, tag(2), hard)];
    assert_eq!(all.levels, levels, "per tag and strength the newest removal counts");
}

async fn notices_lost_history<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let one = advance(store, ledger, removal(1, &[1])).await;
    let two = advance(store, ledger, removal(2, &[2])).await;
    let lost = sync(store, ledger, ask(Some(EPOCH), two.seq, Some(99))).await;
    assert_eq!(lost.standing, Standing::Reload, "a missing id was lost: load everything");
    assert_eq!(lost.levels.len(), 2, "a reload gets everything, from any frontier");
    let forked = sync(store, ledger, ask(Some(EPOCH), two.seq, Some(1))).await;
    let unseen = "an unknown id below the node's frontier is a fork: load everything";
    assert_eq!(forked.standing, Standing::Reload, "{unseen}");
    let behind = sync(store, ledger, ask(Some(EPOCH), one.seq, Some(1))).await;
    assert_eq!(behind.standing, Standing::Current, "being behind is no loss");
}

async fn pages<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let mut expected = Vec::new();
    for nonce in 1..=20_u64 {
        let tags: Vec<u128> = (0..5).map(|tag| u128::from(nonce) * 5 + tag).collect();
        let seq = advance(store, ledger, removal(nonce, &tags)).await.seq;
        expected.extend(tags.iter().map(|tag| (seq, Target::Tag(TagHash(*tag)), Strength::Hard)));
    }
    for page in [3, 5, 12, 4096] {
        let (levels, ids) = read_in_pages(store, ledger, page).await;
        assert_eq!(levels, expected, "the pages are everything, once");
        assert_eq!(ids.len(), 20, "the pages contain each id once");
    }
}

/// Reads a ledger of removals with five tags each, page by page.
async fn read_in_pages<S: L2 + ?Sized>(
    store: &S,
    ledger: &str,
    page: usize,
) -> (Vec<(u64, Target, Strength)>, Vec<(u64, Nonce)>) {
    let (mut levels, mut ids, mut from) = (Vec::new(), Vec::new(), 0);
    loop {
        let reply = sync(store, ledger, SyncAsk { from, page, ..ask(Some(EPOCH), 0, None) }).await;
        let most = page.max(5);
        assert!(
            reply.levels.len() <= most,
            "a page holds at most the requested number of levels, or one number"
        );
        let whole = reply.levels.chunk_by(|a, b| a.0 == b.0).all(|chunk| chunk.len() == 5);
        assert!(whole, "a page never splits one number");
        levels.extend(reply.levels);
        ids.extend(reply.ids);
        if reply.complete {
            return (levels, ids);
        }
        let upto = levels.last().expect("an incomplete page is not empty").0;
        assert!(upto > from, "each page advances the frontier");
        assert!(ids.iter().all(|(seq, _)| *seq <= upto), "a page contains the ids of its range");
        from = upto;
    }
}

async fn raises_floors<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let everything = |nonce, strength| {
        let removal = Removal { nonce: Nonce(nonce), strength, targets: vec![Target::Everything] };
        Advance { removal, ..self::removal(nonce, &[]) }
    };
    let hard = advance(store, ledger, everything(1, Strength::Hard)).await;
    let soft = advance(store, ledger, everything(2, Strength::Soft)).await;
    let reply = sync(store, ledger, ask(Some(EPOCH), 0, None)).await;
    assert_eq!((reply.floor.hard, reply.floor.soft), (hard.seq, soft.seq), "clears raise floors");
    assert!(reply.levels.is_empty(), "a clear is no tag");
}

/// A removal issued again after a failover may be a register.
async fn keeps_registers<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let mut ask = removal(1, &[0x1_0007]);
    ask.removal.targets.push(Target::Register(7));
    let one = advance(store, ledger, ask).await;
    let mut ask = soft(2, &[]);
    ask.removal.targets = vec![Target::Register(u16::MAX)];
    let two = advance(store, ledger, ask).await;
    let reply = sync(store, ledger, self::ask(Some(EPOCH), 0, None)).await;
    let (hard, soft) = (Strength::Hard, Strength::Soft);
    let tag = (one.seq, Target::Tag(TagHash(0x1_0007)), hard);
    let levels = [(one.seq, Target::Register(7), hard), tag];
    assert_eq!(reply.levels[..2], levels, "a register is a target of its own");
    assert_eq!(reply.levels[2..], [(two.seq, Target::Register(u16::MAX), soft)], "of both kinds");
}

pub(super) fn removal(nonce: u64, tags: &[u128]) -> Advance {
    let targets = tags.iter().map(|tag| Target::Tag(TagHash(*tag))).collect();
    Advance {
        removal: Removal { nonce: Nonce(nonce), strength: Strength::Hard, targets },
        epoch: None,
        frontier: 0,
        new_epoch: EPOCH,
        retention_ms: 3_600_000,
    }
}

fn soft(nonce: u64, tags: &[u128]) -> Advance {
    let mut ask = removal(nonce, tags);
    ask.removal.strength = Strength::Soft;
    ask
}

/// A `SYNC` request from `frontier`.
pub(super) fn ask(epoch: Option<Epoch>, frontier: u64, last: Option<u64>) -> SyncAsk {
    SyncAsk {
        epoch,
        from: frontier,
        frontier,
        last: last.map(Nonce),
        new_epoch: EPOCH,
        page: 4096,
        retention_ms: 3_600_000,
    }
}

pub(super) async fn advance<S: L2 + ?Sized>(store: &S, ledger: &str, ask: Advance) -> Advanced {
    store.advance(ledger, &ask, None).await.expect("advance")
}

pub(super) async fn sync<S: L2 + ?Sized>(store: &S, ledger: &str, ask: SyncAsk) -> SyncReply {
    store.sync(ledger, &ask).await.expect("sync")
}
