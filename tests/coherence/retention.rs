//! T10: the retention belongs to the ledger, not to the caller.

use std::time::Duration;

use crinkle_core::sabotage::{Sabotage, plant};
use crinkle_core::{EntryOptions, Settings};
use crinkle_tests::{Node, World, pass};

const HOUR: Duration = Duration::from_secs(3600);

async fn node(world: &World, max_lifetime: Duration) -> Node {
    let settings = Settings::default().max_lifetime(max_lifetime);
    world.node_with(|builder| builder.settings(settings)).await
}

/// A node with a shorter `max_lifetime` makes the ledger forget nothing that another needs. If it did, what
/// it forgets would hide every older entry, tagged or not. Returns how many of the ten reads found nothing.
async fn a_roll_out(world: World, before: Duration, after: Duration) -> usize {
    let old = node(&world, before).await;
    let long = EntryOptions::new(HOUR * 24 * 30);
    for at in 0..5 {
        let _ = old
            .cache
            .set(format!("untagged {at}"), 1)
            .options(long.clone())
            .await
            .expect("no trouble");
    }
    pass(Duration::from_secs(60)).await;
    let _ = old.cache.remove_by_tag("early").await.expect("no trouble");
    let new = node(&world, after).await;
    for _ in 0..8 {
        pass(HOUR / 2).await;
        let _ = new.cache.remove_by_tag("late").await.expect("no trouble");
        let _ = old.cache.remove_by_tag("later").await.expect("no trouble");
    }
    let mut missing = 0;
    for at in 0..5 {
        for node in [&old, &new] {
            let found = node.cache.get::<i32>(format!("untagged {at}")).await;
            missing += usize::from(found.expect("no trouble").is_none());
        }
    }
    missing
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_that_shortens_the_longest_life_clears_nothing() {
    assert_eq!(a_roll_out(World::new().await, HOUR * 24 * 7, HOUR).await, 0);
    assert_eq!(a_roll_out(World::apart().await, HOUR * 24 * 7, HOUR).await, 0);
}

/// The same, with the rule taken out: the removals of the node with the shorter life clear everything.
#[tokio::test(start_paused = true)]
async fn a_ledger_that_forgets_by_the_callers_retention_clears_everything() {
    plant(Some(Sabotage::RetentionOfTheCaller));
    let missing = a_roll_out(World::new().await, HOUR * 24 * 7, HOUR).await;
    plant(None);
    assert_eq!(missing, 10);
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_that_lengthens_the_longest_life_clears_nothing() {
    let world = World::new().await;
    let old = node(&world, HOUR).await;
    let new = node(&world, HOUR * 24 * 7).await;
    let long = EntryOptions::new(HOUR * 24 * 7);
    let _ = new.cache.set("untagged", 1).options(long).await.unwrap();
    pass(Duration::from_secs(60)).await;
    let _ = new.cache.remove_by_tag("early").await.unwrap();
    for _ in 0..12 {
        pass(HOUR).await;
        let _ = old.cache.remove_by_tag("late").await.unwrap();
    }
    for node in [&old, &new] {
        assert!(node.cache.get::<i32>("untagged").await.unwrap().is_some());
    }
}
