//! Compression: which payloads a node compresses, and which sizes a reader accepts.

use bytes::Bytes;
use crinkle_core::l2::Compression;
use crinkle_core::l2::record::Envelope;
use crinkle_core::{ErrorKind, Settings, Source};
use crinkle_tests::World;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::forge::{Forge, MOST, raw, stored};

const KINDS: [(u8, Compression); 3] =
    [(0, Compression::none()), (1, Compression::lz4()), (2, Compression::zstd(3))];

fn text(len: usize) -> Bytes {
    b"all work and no play ".iter().copied().cycle().take(len).collect()
}

fn noise(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
    bytes.into()
}

/// The compression byte and the stored length of what a node with this setting writes.
async fn written(compression: Compression, value: Bytes) -> (u8, usize) {
    let world = World::new().await;
    let node = raw(&world, compression).await;
    let _ = node.cache.set("key", value).await.expect("no trouble");
    let record = stored(&world, "key").await;
    let envelope = Envelope::decode(&record).expect("no trouble");
    (envelope.compression, envelope.payload.len())
}

#[tokio::test(start_paused = true)]
async fn nodes_of_every_setting_read_each_other() {
    let world = World::new().await;
    for (id, compression) in KINDS {
        let writer = raw(&world, compression).await;
        let key = format!("from:{id}");
        let _ = writer.cache.set(&key, text(20_000)).await.unwrap();
        assert_eq!(Envelope::decode(&stored(&world, &key).await).unwrap().compression, id);
        for (_, compression) in KINDS {
            let reader = raw(&world, compression).await;
            let read = reader.cache.get::<Bytes>(&key).await.unwrap().unwrap();
            assert_eq!((&*read, read.meta().source()), (&text(20_000), Source::L2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_is_compressed_like_a_set() {
    let world = World::new().await;
    let node = raw(&world, Compression::lz4()).await;
    node.cache.get_or_set("key", |_| async { crinkle_core::ok(text(20_000)) }).await.unwrap();
    assert_eq!(Envelope::decode(&stored(&world, "key").await).unwrap().compression, 1);
}

#[tokio::test(start_paused = true)]
async fn only_payloads_above_the_size_are_compressed() {
    for (id, compression) in KINDS {
        assert_eq!(written(compression, text(1024)).await, (0, 1024));
        let (how, len) = written(compression, text(1025)).await;
        assert!(how == id && (len < 300) == (id != 0), "{how} {len}");
        assert_eq!(written(compression.above(2000), text(2000)).await.0, 0);
        assert_eq!(written(compression.above(2000), text(2001)).await.0, id);
        assert_eq!(written(compression.above(0), text(100)).await.0, id);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_become_smaller_is_stored_as_it_is() {
    for (_, compression) in KINDS {
        assert_eq!(written(compression, noise(5000)).await, (0, 5000));
        assert_eq!(written(compression.above(0), Bytes::from_static(b"x")).await, (0, 1));
        assert_eq!(written(compression.above(0), Bytes::new()).await, (0, 0));
    }
}

/// A value that its readers would refuse is not written, however small it becomes.
#[tokio::test(start_paused = true)]
async fn the_limit_is_on_the_plain_form() {
    let world = World::new().await;
    for (_, compression) in KINDS {
        let node = raw(&world, compression).await;
        let _ = node.cache.set("key", text(MOST)).await.unwrap();
        let error = node.cache.set("key", text(MOST + 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}

/// An entry weighs in L1 what its plain form has, wherever it came from.
#[tokio::test(start_paused = true)]
async fn a_compressed_record_takes_its_plain_size_in_l1() {
    let world = World::new().await;
    let writer = raw(&world, Compression::zstd(3)).await;
    let settings = Settings::default().capacity_bytes(10_000);
    let reader = world.node_with(|b| b.settings(settings).codec(crinkle_core::l2::Raw)).await;
    for key in ["one", "two", "three"] {
        let _ = writer.cache.set(key, text(6000)).await.unwrap();
        assert!(reader.cache.get::<Bytes>(key).await.unwrap().is_some());
    }
    crinkle_tests::until("L1 holds one of them", || reader.cache.entry_count() == 1).await;
}

/// What version 1 looks like; later versions must read it.
#[tokio::test(start_paused = true)]
async fn compressed_payloads_of_version_1_are_read() {
    let forge = Forge::new().await;
    // 20 bytes: the literal "abcd", a match of 11 bytes at distance 4, the literals "dabcd".
    let lz4 = [&[0, 0, 0, 20, 0x47][..], b"abcd", &[4, 0, 0x50], b"dabcd"].concat();
    // 20 bytes: magic, a single segment of known size, one last raw block.
    let zstd =
        [&[0, 0, 0, 20, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 20, 0xa1, 0, 0][..], b"abcdabcdabcdabcdabcd"]
            .concat();
    for (how, payload) in [(1, lz4), (2, zstd)] {
        let key = format!("golden:{how}");
        forge.plant(&key, how, &payload);
        assert_eq!(forge.read(&key).await.as_deref(), Some(&b"abcdabcdabcdabcdabcd"[..]), "{how}");
    }
}
