//! Records that no cache has written.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::Settings;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Compression, L2, Raw};
use crinkle_tests::{Node, World};

/// The largest payload of the caches that read what is forged.
pub(crate) const MOST: usize = 64 * 1024;

/// A reader of [`Bytes`], and a sound record to forge others from.
pub(crate) struct Forge {
    pub(crate) world: World,
    pub(crate) reader: Node<Raw>,
    model: Bytes,
}

impl Forge {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let writer = raw(&world, Compression::none()).await;
        let _ = writer.cache.set("model", Bytes::from_static(b"model")).await.expect("no trouble");
        let model = stored(&world, "model").await;
        let reader = raw(&world, Compression::none()).await;
        Self { world, reader, model }
    }

    /// Plants a record with this payload and a sound checksum.
    pub(crate) fn plant(&self, key: &str, compression: u8, payload: &[u8]) {
        let model = Envelope::decode(&self.model).expect("no trouble");
        let record = Envelope { key, compression, payload, ..model }.encode();
        let life = Duration::from_millis(model.physical_ms);
        self.world.store.plant(&World::record(key), record, life);
    }

    /// What the reader makes of a record: a value, or a miss that is counted.
    pub(crate) async fn read(&self, key: &str) -> Option<Bytes> {
        let before = self.reader.cache.stats().l2_undecodable;
        let read = self.reader.cache.get::<Bytes>(key).await.expect("no trouble");
        let counted = self.reader.cache.stats().l2_undecodable - before;
        assert_eq!(counted, u64::from(read.is_none()), "{key}");
        read.map(|read| (*read).clone())
    }
}

/// A node of byte strings of at most [`MOST`] bytes.
pub(crate) async fn raw(world: &World, compression: Compression) -> Node<Raw> {
    let settings = Settings::default().max_value_bytes(MOST).compression(compression);
    world.node_with(|builder| builder.settings(settings).codec(Raw)).await
}

/// The record at a key.
pub(crate) async fn stored(world: &World, key: &str) -> Bytes {
    world
        .store
        .read(&World::record(key), None)
        .await
        .expect("no trouble")
        .found
        .expect("no trouble")
        .bytes
}
