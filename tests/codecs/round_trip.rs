//! Round trips: a value that one node writes is the value that another node reads.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use crinkle_core::Source;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Codec, Json, MessagePack, Postcard, Prost, Raw, Wire};
use crinkle_tests::World;
use serde::{Deserialize, Serialize};

use crate::forge::stored;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) price: Option<f64>,
    pub(crate) stock: BTreeMap<String, Vec<i64>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(string, repeated, tag = "2")]
    pub(crate) names: Vec<String>,
    #[prost(message, optional, boxed, tag = "3")]
    pub(crate) inner: Option<Box<Self>>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) image: Bytes,
}

pub(crate) fn product() -> Product {
    let stock = BTreeMap::from([("Basel".to_owned(), vec![3, -1]), (String::new(), vec![])]);
    Product { id: 42, name: "tea".to_owned(), price: Some(4.5), stock }
}

pub(crate) fn message() -> Message {
    let names = vec!["tea".to_owned(), "thé".to_owned()];
    let image = Bytes::from_static(b"\0\xff");
    let inner = Some(Box::new(Message { id: 7, image: image.clone(), ..Message::default() }));
    Message { id: 42, names, inner, image }
}

/// What one node writes another reads, under this id.
async fn crosses<T, C>(codec: C, id: u8, value: T)
where
    T: Clone + Debug + PartialEq + Send + Sync + 'static,
    C: Codec<T> + Wire + Copy + Debug,
{
    let world = World::new().await;
    let writer = world.node_with(|builder| builder.codec(codec)).await;
    let reader = world.node_with(|builder| builder.codec(codec)).await;
    let _ = writer.cache.set("key", value.clone()).await.expect("no trouble");
    let read = reader.cache.get::<T>("key").await.expect("no trouble").expect("no trouble");
    assert_eq!((&*read, read.meta().source()), (&value, Source::L2));
    let record = stored(&world, "key").await;
    let envelope = Envelope::decode(&record).expect("no trouble");
    assert_eq!((envelope.codec, envelope.compression), (id, 0));
}

#[tokio::test(start_paused = true)]
async fn every_codec_carries_values_between_nodes_under_its_own_id() {
    crosses(MessagePack, 1, product()).await;
    crosses(Json, 2, product()).await;
    crosses(Raw, 3, "text".to_owned()).await;
    crosses(Raw, 3, vec![0_u8, 255]).await;
    crosses(Raw, 3, Bytes::from_static(b"\0\xff")).await;
    crosses(Postcard, 4, product()).await;
    crosses(Prost, 5, message()).await;
}

#[test]
fn postcard_is_the_smallest_of_the_serde_codecs() {
    let size = |codec: &dyn Codec<Product>| codec.encode(&product()).unwrap().len();
    assert!(size(&Postcard) < size(&MessagePack) && size(&MessagePack) < size(&Json));
}
