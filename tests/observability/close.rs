//! What `close` could not send, how many and which; errors that say their cause once.

use std::error::Error as _;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_core::{Error, ErrorKind, PendingWrites, Settings};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, Node, TestError, World, gated, options, pass};

fn pending(error: &Error) -> PendingWrites {
    assert_eq!(error.kind(), ErrorKind::NotPropagated);
    error.downcast_ref::<PendingWrites>().expect("what was not sent").clone()
}

async fn in_trouble(settings: Settings) -> Node {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.settings(settings)).await;
    node.l2.down();
    for key in 0..12 {
        let _ = node.cache.remove(format!("price:{key:02}")).await.expect("no error");
    }
    let _ = node.cache.remove_by_tag("category:7").await.expect("no error");
    let _ = node.cache.expire_all().await.expect("no error");
    node
}

#[tokio::test(start_paused = true)]
async fn close_says_how_many_invalidations_are_lost_and_names_the_first_ten() {
    let node = in_trouble(Settings::default()).await;
    let error = node.cache.close().await.unwrap_err();
    let lost = pending(&error);
    assert_eq!((lost.keys, lost.removals, lost.first.len()), (12, 2, 10));
    assert_eq!(lost.first[0], "key \"price:00\"");
    let said = error.to_string();
    assert!(
        said.contains("12 invalidations of keys and 2 removals by tag are lost (repeat"),
        "{said}"
    );
    assert!(said.contains("key \"price:09\", .."), "{said}");
    assert!(!said.contains("region"), "there is none: {said}");
}

#[tokio::test(start_paused = true)]
async fn tags_are_named_although_no_entry_carries_them() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    let _ = node.cache.remove_by_tag("category:7").await.unwrap();
    let _ = node.cache.remove_all().await.unwrap();
    let lost = pending(&node.cache.close().await.unwrap_err());
    assert_eq!((lost.keys, lost.removals), (0, 2));
    assert_eq!(lost.first, ["tag \"category:7\"", "everything"]);
}

#[tokio::test(start_paused = true)]
async fn close_names_nothing_where_keys_are_redacted() {
    let node = in_trouble(Settings::default().redact_keys(true)).await;
    let error = node.cache.close().await.unwrap_err();
    let lost = pending(&error);
    assert_eq!((lost.keys, lost.removals, lost.first.len()), (12, 2, 0));
    assert!(!format!("{error} {error:?}").contains("price"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn loads_that_go_on_are_not_called_a_write() {
    let world = World::new().await;
    let node = world.node().await;
    let gate = Gate::new();
    let cache = node.cache.clone();
    let call = crinkle_tests::load(&cache, "key", &[], options(), gated(&gate, 1));
    pass(Duration::from_millis(1)).await;
    let said = node.cache.close().await.unwrap_err().to_string();
    assert!(said.contains("loads were still running") && !said.contains("write of"), "{said}");
    gate.open();
    drop(call);
}

/// `{:#}` of `anyhow` prints an error and then each of its sources.
#[tokio::test(start_paused = true)]
async fn an_error_says_its_cause_once() {
    let world = World::new().await;
    let node = world.node().await;
    let failed = node.cache.get_or_set("key", Loads::new().fail::<_, u32>()).await.unwrap_err();
    assert!(failed.factory_error::<TestError>().is_some());
    let denied = L2Error::new(L2ErrorKind::Denied, std::io::Error::other("no right"));
    assert_eq!(denied.cause().to_string(), "no right");
    let lost = crinkle_core::backplane::BackplaneError::new(TestError::new());
    node.l2.down();
    let pending = node.cache.remove("key").require_propagation().await.unwrap_err();
    let causes = ["the source is down", "no right", "the source is down", "injected by the test"];
    let errors: [anyhow::Error; 4] = [failed.into(), denied.into(), lost.into(), pending.into()];
    for (error, cause) in errors.into_iter().zip(causes) {
        let (whole, said) = (format!("{error:#}"), error.to_string());
        assert_eq!(whole.matches(cause).count(), 1, "{whole}");
        assert!(said.contains(cause), "a log without the chain has the cause: {said}");
    }
}

/// What the message does not say yet is still there.
#[test]
fn a_cause_that_the_message_does_not_contain_is_its_source() {
    let deep = anyhow::anyhow!("the deepest").context("above");
    let error = L2Error::new(L2ErrorKind::Other, deep.into_boxed_dyn_error());
    assert_eq!(error.to_string(), "L2 failed: above");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the deepest"));
}
