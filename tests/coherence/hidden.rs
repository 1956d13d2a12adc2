//! T11: readers that meet hidden entries write nothing.

use std::time::Duration;

use crinkle_core::{EntryOptions, FailSafe};
use crinkle_tests::{World, pass};

#[tokio::test(start_paused = true)]
async fn readers_that_meet_hidden_entries_write_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let options = EntryOptions::new(Duration::from_secs(600))
        .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)));
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let tags = [["hard", "soft"][number % 2]];
        let _ = one.cache.set(key, number).tags(tags).options(options.clone()).await.unwrap();
        if number % 3 == 0 {
            two.cache.get::<usize>(key).await.unwrap().unwrap();
        }
    }
    let _ = one.cache.remove_by_tag("hard").await.unwrap();
    let _ = one.cache.expire_by_tag("soft").await.unwrap();
    pass(Duration::from_millis(50)).await;
    let before = world.store.keys().len();
    for node in [&one, &two] {
        node.l2.forget();
        for key in &keys {
            assert!(node.cache.get::<usize>(key).await.unwrap().is_none());
            assert_eq!(*node.cache.get_or(key, 7_usize).await.unwrap(), 7);
            assert!(node.cache.peek::<usize>(key).is_none());
            let stale = node.cache.get::<usize>(key).allow_stale().await.unwrap();
            let soft = stale.is_some_and(|read| *read % 2 == 1);
            assert_eq!(soft, key.ends_with(['1', '3', '5', '7', '9']));
        }
        assert_eq!(node.l2.writes(), []);
        assert_eq!(node.cache.health().recovery_backlog, 0);
    }
    assert_eq!(world.store.keys().len(), before);
    let _ = one.cache.remove_all().await.unwrap();
    pass(Duration::from_millis(50)).await;
    for node in [&one, &two] {
        node.l2.forget();
        for key in &keys {
            assert!(node.cache.get::<usize>(key).allow_stale().await.unwrap().is_none());
        }
        assert_eq!(node.l2.writes(), []);
    }
}
