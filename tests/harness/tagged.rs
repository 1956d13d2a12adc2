//! Tagged entries of a node, and its removals as a listener receives them.

use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_core::backplane::message::{self, Body, Message};
use crinkle_core::backplane::{Backplane, Incoming};
use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::ledger::Item;

use crate::{Node, World};

/// The channel of the cache.
pub const CHANNEL: &str = "shop:v1:ch";

/// Stores 1 under a key with a tag, for longer than any test takes.
///
/// # Panics
///
/// If the node refuses the call.
pub async fn hold(node: &Node, key: &str, tag: &str) {
    let options = EntryOptions::new(Duration::from_secs(6000));
    let _ = node.cache.set(key, 1_u64).tags([tag]).options(options).await.expect("no trouble");
}

/// Returns whether a read finds the value of [`hold`].
///
/// # Panics
///
/// If the read fails.
pub async fn has(node: &Node, key: &str) -> bool {
    node.cache.get::<u64>(key).await.expect("no trouble").is_some()
}

/// A removal as a listener receives it.
///
/// # Panics
///
/// If the bus or the node refuses the call, or the store announces nothing.
pub async fn overheard(world: &World, node: &Node) -> (Epoch, Item) {
    let mut subscription =
        world.bus.subscribe(&[CHANNEL.to_owned()]).await.expect("the bus is there");
    let _ = node.cache.remove_by_tag("overheard").await.expect("no trouble");
    while let Some(Incoming::Message(bytes)) = subscription.next().await {
        if let Some(Message { body: Body::Removal { epoch, item }, .. }) = message::decode(&bytes) {
            return (epoch, item);
        }
    }
    panic!("a removal is announced");
}
