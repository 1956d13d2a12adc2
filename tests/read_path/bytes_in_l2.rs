//! S12, S13: whatever lies in L2, and whatever a codec does, is a value or a counted miss.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::L2;
use crinkle_core::l2::{Codec, Wire};
use crinkle_core::{BoxError, ErrorKind, Settings};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, pass};

#[tokio::test(start_paused = true)]
async fn flipped_and_cut_records_are_counted_misses_that_refill() {
    let world = World::new().await;
    let writer = world.node().await;
    let _ = writer.cache.set("key", "value".to_owned()).tags(["tag"]).await.unwrap();
    let record = World::record("key");
    let whole = world.store.read(&record, None).await.unwrap().found.unwrap().bytes;
    let cut = (0..whole.len()).map(|len| whole.slice(..len));
    // 5..32 is the store's own part, outside the checksum.
    let flipped = (0..whole.len()).filter(|at| !(5..32).contains(at)).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x10;
        Bytes::from(bytes)
    });
    let longer = [Bytes::from([&whole[..], b"x"].concat())];
    let foreign = [Bytes::from_static(b"\0"), Bytes::from_static(b"O:8:\"stdClass\":0:{}")];
    let broken: Vec<Bytes> = cut.chain(flipped).chain(longer).chain(foreign).collect();
    let reader = world.node().await;
    for (number, bytes) in broken.iter().enumerate() {
        let key = format!("broken:{number}");
        let record = World::record(&key);
        world.store.plant(&record, bytes.clone(), Duration::from_secs(60));
        let before = reader.cache.stats().l2_undecodable;
        assert!(reader.cache.get::<String>(&key).await.unwrap().is_none(), "{number}");
        assert_eq!(reader.cache.stats().l2_undecodable, before + 1, "{number}");
        let loads = Loads::new();
        let read = reader.cache.get_or_set(&key, loads.value("new".to_owned())).await.unwrap();
        assert_eq!((read.as_str(), loads.count()), ("new", 1));
    }
}

/// S12: a whole record under the key of another is not its value.
#[tokio::test(start_paused = true)]
async fn a_record_of_another_key_is_never_answered() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).await.unwrap();
    let found = world.store.read(&World::record("key"), None).await.unwrap().found.unwrap();
    world.store.plant(&World::record("other"), found.bytes, Duration::from_secs(60));
    assert!(two.cache.get::<i32>("other").await.unwrap().is_none());
    assert_eq!(two.cache.stats().l2_undecodable, 1);
    assert_eq!(*two.cache.get_or_set("other", Loads::new().value(2)).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_too_large_stays_in_l1() {
    let world = World::new().await;
    let settings = Settings::default().max_value_bytes(1000);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let large = "x".repeat(2000);
    let read = node.cache.get_or_set("key", Loads::new().value(large.clone())).await.unwrap();
    assert_eq!((read.len(), read.meta().is_stale()), (2000, false));
    assert!(node.cache.peek::<String>("key").is_some());
    assert_eq!(node.cache.stats().l2_unencodable, 1);
    assert_eq!(node.l2.count(L2Op::Put), 0);
    assert!(world.store.keys().is_empty(), "the load lock is given back");
    let error = node.cache.set("set", large).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::TooLarge, Some("set")));
    assert!(error.to_string().contains("1000"), "{error}");
}

#[derive(Debug)]
struct Moody;

impl Wire for Moody {
    fn id(&self) -> u8 {
        200
    }
}

/// Fails on 1, panics on 2, cannot read 3, panics when it reads 4.
impl Codec<u8> for Moody {
    fn encode(&self, value: &u8) -> Result<Bytes, BoxError> {
        match value {
            1 => Err("no".into()),
            2 => panic!("never"),
            _ => Ok(Bytes::copy_from_slice(&[*value])),
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<u8, BoxError> {
        match bytes[..] {
            [3] => Err("no".into()),
            [4] => panic!("never"),
            [value] => Ok(value),
            _ => Err("not a byte".into()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_the_codec_fails_on_stays_in_l1() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.codec(Moody)).await;
    for value in [1_u8, 2] {
        let key = value.to_string();
        let read = node.cache.get_or_set(&key, Loads::new().value(value)).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (value, false));
        assert_eq!(node.cache.peek::<u8>(&key).as_deref(), Some(&value));
        assert_eq!(node.cache.stats().l2_unencodable, u64::from(value) * 2 - 1);
        let error = node.cache.set("set", value).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
    }
    assert!(world.store.keys().is_empty(), "the load locks are given back");
}

#[tokio::test(start_paused = true)]
async fn bytes_the_codec_fails_on_are_a_counted_miss_that_refills() {
    let world = World::new().await;
    let one = world.node_with(|builder| builder.codec(Moody)).await;
    let two = world.node_with(|builder| builder.codec(Moody)).await;
    for (number, value) in [3_u8, 4].into_iter().enumerate() {
        let key = value.to_string();
        let _ = one.cache.set(&key, value).await.unwrap();
        pass(Duration::from_millis(10)).await;
        assert!(two.cache.get::<u8>(&key).await.unwrap().is_none());
        assert_eq!(two.cache.stats().l2_undecodable, 1 + 3 * number as u64);
        assert_eq!(*two.cache.get_or_set(&key, Loads::new().value(9)).await.unwrap(), 9);
        assert_eq!(two.cache.get::<u8>(&key).await.unwrap().as_deref(), Some(&9));
    }
}
