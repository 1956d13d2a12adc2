//! Checks that concurrent calls to a store behave as if they ran one after the other.

use crinkle_core::l2::L2;
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{LoadLock, Put};
use futures_util::future::join_all;

use super::ledger::{advance, ask as everything, removal, sync};
use super::{ask, fresh, value};

/// The number of concurrent calls.
const CALLS: u64 = 8;

pub(super) async fn check<S: L2 + ?Sized>(store: &S, prefix: &str) {
    grants_one_load_lock(store, &fresh(prefix, "one-load-lock")).await;
    stores_one_fill(store, &fresh(prefix, "one-fill")).await;
    numbers_every_removal(store, &fresh(prefix, "every-removal")).await;
}

async fn grants_one_load_lock<S: L2 + ?Sized>(store: &S, key: &str) {
    let reads = join_all((1..=CALLS).map(|id| store.read(key, Some(ask(id))))).await;
    let load_locks: Vec<_> = reads.into_iter().map(|read| read.expect("read").load_lock).collect();
    let granted = load_locks.iter().filter(|load_lock| **load_lock == LoadLock::Granted).count();
    assert_eq!(granted, 1, "one of several concurrent readers gets the load lock: {load_locks:?}");
}

async fn stores_one_fill<S: L2 + ?Sized>(store: &S, key: &str) {
    store.set(key, value(1, "one"), None, None).await.expect("set");
    let puts = (2..2 + CALLS).map(|id| store.put(key, Version(1), value(id, "two"), None));
    let puts = join_all(puts).await;
    let stored = puts.into_iter().filter(|put| *put.as_ref().expect("put") == Put::Stored).count();
    assert_eq!(stored, 1, "one of several fills over one version is stored");
}

async fn numbers_every_removal<S: L2 + ?Sized>(store: &S, ledger: &str) {
    let removals = (1..=CALLS).map(|nonce| {
        let removal = removal(nonce, &[u128::from(nonce)]);
        advance(store, ledger, removal)
    });
    let mut numbers: Vec<_> = join_all(removals).await.iter().map(|done| done.seq).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let reply = sync(store, ledger, everything(None, 0, None)).await;
    let reported: Vec<_> = reply.ids.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(reported, numbers, "each of several concurrent removals has its own number");
    assert_eq!(reply.levels.len(), numbers.len(), "and none is lost");
}
