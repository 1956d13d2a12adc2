//! Checks that a store announces records and removals in the step that writes them.

use std::sync::Arc;
use std::time::Duration;

use crinkle_core::SystemClock;
use crinkle_core::backplane::{Backplane, Subscription, message};
use crinkle_core::l2::{Announce, Deadline, L2};
use crinkle_core::protocol::ledger::{Advance, Removal, Strength, Target};
use crinkle_core::protocol::record::Put;
use crinkle_core::protocol::{Epoch, Nonce, PublisherId, TagHash, Version};

use super::{fresh, next, value};

pub(super) async fn check<S: L2 + ?Sized, B: Backplane + ?Sized>(store: &S, bus: &B, prefix: &str) {
    assert!(store.bus().is_some(), "a store that announces names its bus");
    assert_eq!(store.bus(), bus.bus(), "a store announces on the bus of its backplane");
    let channel = fresh(prefix, "channel");
    let mut subscription =
        bus.subscribe(std::slice::from_ref(&channel)).await.expect("subscribing");
    records(store, &mut *subscription, &channel, prefix).await;
    removals(store, &mut *subscription, &channel, prefix).await;
}

async fn records<S: L2 + ?Sized>(
    store: &S,
    subscription: &mut dyn Subscription,
    channel: &str,
    prefix: &str,
) {
    let key = fresh(prefix, "announced");
    let say = |what: &'static str| {
        Some(Announce { channel: channel.to_owned(), message: what.as_bytes().into() })
    };
    let refused = store.put(&key, Version(1), value(2, "no"), say("refused")).await.expect("put");
    assert_eq!(refused, Put::Refused, "absence never authorises a write");
    store.set(&key, value(3, "set"), None, say("set")).await.expect("set");
    assert_eq!(next(subscription).await, "set", "a refused put announces nothing, a set announces");
    let stored = store.put(&key, Version(3), value(4, "put"), say("put")).await.expect("put");
    assert_eq!(stored, Put::Stored, "a put replaces the version it expects");
    assert_eq!(next(subscription).await, "put", "a put that stores announces");
    let over = Some(Deadline::after(Arc::new(SystemClock), Duration::ZERO));
    let late = store.set(&key, value(5, "late"), over, say("late")).await;
    late.expect_err("a set after its deadline fails");
    assert_eq!(next(subscription).await, "late", "a set after its deadline announces its removal");
    store.expire(&key, Version(6), say("expire")).await.expect("expire");
    assert_eq!(next(subscription).await, "expire", "an expire always announces");
    store.remove(&key, say("remove")).await.expect("remove");
    assert_eq!(next(subscription).await, "remove", "a remove always announces");
}

async fn removals<S: L2 + ?Sized>(
    store: &S,
    subscription: &mut dyn Subscription,
    channel: &str,
    prefix: &str,
) {
    let ledger = fresh(prefix, "announced-ledger");
    let tags = [Target::Tag(TagHash(5)), Target::Tag(TagHash(6))];
    let cases = [(Strength::Hard, tags.to_vec()), (Strength::Soft, vec![Target::Everything])];
    for (nonce, (strength, targets)) in (1..).zip(cases) {
        let removal = Removal { nonce: Nonce(nonce), strength, targets };
        let announce = message::removal(PublisherId(9), nonce, channel, &removal);
        let ask = Advance {
            removal,
            epoch: None,
            frontier: 0,
            new_epoch: Epoch(77),
            retention_ms: 60_000,
        };
        let advanced = store.advance(&ledger, &ask, Some(announce.clone())).await.expect("advance");
        assert!(advanced.announced, "a store reports that it announced a removal");
        let whole = message::numbered(&announce, advanced);
        assert_eq!(next(subscription).await, whole, "the numbers are between head and tail");
    }
}
