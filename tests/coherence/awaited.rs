//! Removals that are on their way while the polls go on.

use std::time::Duration;

use crinkle_core::{EntryOptions, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, go, pass, until};

/// Calls take longer than a poll, and may.
async fn slow(world: &World) -> Node {
    let hour = EntryOptions::new(Duration::from_secs(3600));
    let patient = hour.l2_hard_timeout(Duration::from_secs(5));
    let node = world.node_with(|builder| builder.default_options(patient)).await;
    node.l2.always(L2Op::Advance, Fate::Delay(Duration::from_millis(4500)));
    node.l2.forget();
    node
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_awaited_is_sent_once_whatever_the_polls_do() {
    let world = World::new().await;
    let node = slow(&world).await;
    let tags: Vec<_> = (0..600).map(|n| format!("tag{n}")).collect();
    let polls = node.cache.stats().syncs;
    let receipt = node.cache.remove_by_tags(&tags).await.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Done);
    assert!(node.cache.stats().syncs > polls + 2);
    let sent = node.l2.count(L2Op::Advance);
    pass(Duration::from_secs(10)).await;
    assert_eq!(node.l2.count(L2Op::Advance), sent, "nothing was left to send");
    assert_eq!(sent, tags.len().div_ceil(crinkle_core::protocol::ledger::MAX_TARGETS));
}

#[tokio::test(start_paused = true)]
async fn a_removal_whose_caller_went_away_is_sent_by_the_next_poll() {
    let world = World::new().await;
    let node = slow(&world).await;
    let cache = node.cache.clone();
    let call = go(async move { cache.remove_by_tag("tag").await });
    pass(Duration::from_millis(10)).await;
    assert_eq!(node.l2.count(L2Op::Advance), 1);
    call.abort();
    until("it is numbered", || node.cache.health().pending_removals == 0).await;
    assert_eq!(node.l2.count(L2Op::Advance), 2);
}
