//! Every call is a request with its options: also those that ask for a key, reserve it, or expire
//! many of them.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{ErrorKind, FailSafe, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, pass};

async fn filled(world: &World) -> (Node, Node) {
    let (one, two) = (world.node().await, world.node().await);
    for key in ["a", "b", "c"] {
        one.cache
            .set(key, 1)
            .tags([key])
            .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
            .await
            .expect("no trouble");
        assert!(two.cache.get::<i32>(key).await.expect("no trouble").is_some());
    }
    (one, two)
}

async fn seen(node: &Node, key: &str) -> (bool, bool) {
    let fresh = node.cache.get::<i32>(key).await.expect("no trouble").is_some();
    (fresh, node.cache.get::<i32>(key).allow_stale().await.expect("no trouble").is_some())
}

#[tokio::test(start_paused = true)]
async fn expired_keys_are_stale_everywhere_and_stay_as_fallbacks() {
    let world = World::new().await;
    let (one, two) = filled(&world).await;
    let receipt = one.cache.expire_many(["a", "b"]).await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Done));
    pass(Duration::from_millis(10)).await;
    for node in [&one, &two] {
        for (key, fresh) in [("a", false), ("b", false), ("c", true)] {
            assert_eq!(seen(node, key).await, (fresh, true), "{key}");
        }
    }
    assert_eq!((one.cache.stats().expires, one.cache.stats().removes), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn expired_tags_are_stale_everywhere_and_stay_as_fallbacks() {
    let world = World::new().await;
    let (one, two) = filled(&world).await;
    let receipt = one.cache.expire_by_tags(["a", "b"]).await.unwrap();
    assert!(receipt.is_propagated() && receipt.token().is_some());
    two.cache.wait_for(receipt.token().unwrap()).await.unwrap();
    for node in [&one, &two] {
        for (key, fresh) in [("a", false), ("b", false), ("c", true)] {
            assert_eq!(seen(node, key).await, (fresh, true), "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_expiry_of_a_key_and_tags_leaves_fallbacks_too() {
    let world = World::new().await;
    let (one, _) = filled(&world).await;
    let receipt = one.cache.expire("a").and_tags(["b"]).await.unwrap();
    assert!(receipt.keys_part().is_some() && receipt.tags_part().is_some());
    assert_eq!(seen(&one, "a").await, (false, true));
    assert_eq!(seen(&one, "b").await, (false, true));
    assert_eq!(seen(&one, "c").await, (true, true));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_expiry_of_many_keys_still_holds() {
    let world = World::new().await;
    let (one, _) = filled(&world).await;
    one.l2.always(L2Op::Expire, Fate::Delay(Duration::from_secs(60)));
    let mut request = one.cache.expire_many(["a", "b", "c"]).into_future();
    assert!(futures_util::poll!(&mut request).is_pending());
    drop(request);
    for key in ["a", "b", "c"] {
        assert!(one.cache.peek::<i32>(key).is_none(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_for_a_key_says_when_it_needs_an_l2_that_does_not_answer() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Look, Fate::Fail(L2ErrorKind::Disconnected));
    assert!(!node.cache.contains("key").await.unwrap());
    let refused = node.cache.contains("key").require_l2(true).await.unwrap_err();
    assert_eq!((refused.kind(), refused.key()), (ErrorKind::L2, Some("key")));
    assert!(!node.cache.contains("key").require_l2(true).skip_l2_read(true).await.unwrap());
    node.cache.set("key", 1).await.unwrap();
    assert!(node.cache.contains("key").require_l2(true).await.unwrap(), "L1 suffices");
    assert!(node.cache.contains("key").skip_l1_read(true).require_l2(true).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reservation_waits_for_l2_as_long_as_its_call_allows() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Read, Fate::Delay(Duration::from_secs(60)));
    let began = tokio::time::Instant::now();
    let limit = Duration::from_millis(100);
    let error = node.cache.reserve("key").l2_hard_timeout(limit).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::L2, limit));
}
