//! Types that changed between two deployments.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::{Codec, Json, MessagePack, Postcard, Prost, Wire};
use crinkle_core::{BoxError, ErrorKind};
use crinkle_tests::{Loads, Node, World, pass};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A codec for types that keep their name while their fields change: all have one schema.
#[derive(Clone, Copy, Debug)]
struct Same<C>(C);

impl<C: Wire> Wire for Same<C> {
    fn id(&self) -> u8 {
        self.0.id()
    }
}

impl<T, C: Codec<T>> Codec<T> for Same<C> {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        self.0.encode(value)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        self.0.decode(bytes)
    }

    fn schema(&self) -> u32 {
        7
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct One {
    id: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Two {
    id: u32,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tolerant {
    id: u32,
    #[serde(default)]
    name: String,
}

fn one() -> One {
    One { id: 1 }
}

fn two() -> Two {
    Two { id: 2, name: "two".to_owned() }
}

fn tolerant(id: u32, name: &str) -> Tolerant {
    Tolerant { id, name: name.to_owned() }
}

async fn node<C>(world: &World, codec: C) -> Node<Same<C>>
where
    Same<C>: Wire + std::fmt::Debug,
{
    world.node_with(|builder| builder.codec(Same(codec))).await
}

/// What a node of the new deployment makes of a value of the old one.
async fn upgrade<Old, New, C>(codec: C, old: Old) -> Option<New>
where
    Old: Send + Sync + 'static,
    New: Clone + Send + Sync + 'static,
    C: Wire + Codec<Old> + Codec<New> + Copy + std::fmt::Debug,
{
    let world = World::new().await;
    let (before, after) = (node(&world, codec).await, node(&world, codec).await);
    let _ = before.cache.set("key", old).await.expect("no trouble");
    let read = after.cache.get::<New>("key").await.expect("no trouble");
    assert_eq!(after.cache.stats().l2_undecodable, u64::from(read.is_none()));
    read.map(|read| (*read).clone())
}

/// A miss that refills, with one load, and then is read by the next node of the new deployment.
async fn refills<Old, New, C>(codec: C, old: Old, new: New)
where
    Old: Clone + Send + Sync + 'static,
    New: Clone + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    C: Wire + Codec<Old> + Codec<New> + Copy + std::fmt::Debug,
{
    assert_eq!(upgrade::<Old, New, C>(codec, old.clone()).await, None);
    let world = World::new().await;
    let (before, after) = (node(&world, codec).await, node(&world, codec).await);
    let _ = before.cache.set("key", old).await.expect("no trouble");
    pass(Duration::from_millis(10)).await;
    let loads = Loads::new();
    let loaded = after.cache.get_or_set("key", loads.value(new.clone())).await.expect("no trouble");
    assert_eq!((&*loaded, loads.count()), (&new, 1));
    let next = node(&world, codec).await;
    assert_eq!(next.cache.get::<New>("key").await.expect("no trouble").as_deref(), Some(&new));
}

#[tokio::test(start_paused = true)]
async fn a_new_field_without_a_default_is_a_counted_miss_that_refills() {
    refills(MessagePack, one(), two()).await;
    refills(Json, one(), two()).await;
    refills(Postcard, one(), two()).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_field_with_a_default_is_read_from_old_records_by_name() {
    assert_eq!(upgrade(MessagePack, one()).await, Some(tolerant(1, "")));
    assert_eq!(upgrade(Json, one()).await, Some(tolerant(1, "")));
    assert_eq!(upgrade::<_, Tolerant, _>(Postcard, one()).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_removed_field_is_skipped_by_name_and_a_miss_by_position() {
    assert_eq!(upgrade(MessagePack, tolerant(2, "two")).await, Some(One { id: 2 }));
    assert_eq!(upgrade(Json, two()).await, Some(One { id: 2 }));
    refills(Postcard, two(), one()).await;
}

#[tokio::test(start_paused = true)]
async fn a_field_of_another_type_is_a_counted_miss_that_refills() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Text {
        id: String,
    }
    let text = Text { id: "one".to_owned() };
    refills(MessagePack, one(), text.clone()).await;
    refills(Json, one(), text.clone()).await;
    refills(Postcard, one(), text).await;
}

#[derive(Clone, PartialEq, prost::Message)]
struct Narrow {
    #[prost(uint32, tag = "1")]
    id: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wide {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Changed {
    #[prost(string, tag = "1")]
    id: String,
}

#[tokio::test(start_paused = true)]
async fn messages_gain_and_lose_fields_and_a_changed_type_is_a_miss() {
    let wide = Wide { id: 2, name: "two".to_owned() };
    assert_eq!(upgrade(Prost, Narrow { id: 1 }).await, Some(Wide { id: 1, name: String::new() }));
    assert_eq!(upgrade(Prost, wide).await, Some(Narrow { id: 2 }));
    assert_eq!(upgrade::<_, Changed, _>(Prost, Narrow { id: 1 }).await, None);
}

/// The schema is the type's path: the same fields under another name are another type.
#[tokio::test(start_paused = true)]
async fn a_renamed_type_is_a_counted_miss_that_refills() {
    let world = World::new().await;
    let (before, after) = (world.node().await, world.node().await);
    let _ = before.cache.set("key", tolerant(1, "one")).await.unwrap();
    pass(Duration::from_millis(10)).await;
    let error = after.cache.get::<Two>("key").await.unwrap_err();
    assert_eq!((error.kind(), after.cache.stats().l2_undecodable), (ErrorKind::TypeMismatch, 1));
    let loads = Loads::new();
    let loaded = after.cache.get_or_set("key", loads.value(two())).await.unwrap();
    assert_eq!((&*loaded, loads.count()), (&two(), 1));
    assert!(after.cache.stats().l2_undecodable > 1);
    let next = world.node().await;
    assert_eq!(next.cache.get::<Two>("key").await.unwrap().as_deref(), Some(&two()));
}
