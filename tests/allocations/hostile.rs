//! Hostile bytes: a false length in a record makes no decoder allocate much memory.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Codec, Compression, L2, MemoryL2, MessagePack, Postcard, Prost, Raw};
use crinkle_core::{Cache, Settings};
use stats_alloc::Region;

use crate::{ALLOCATOR, TURN};

const MOST: usize = 4 << 20;

fn allocated<R>(run: impl FnOnce() -> R) -> usize {
    let region = Region::new(ALLOCATOR);
    run();
    region.change().bytes_allocated
}

/// Each claims to hold far more than there is.
#[tokio::test]
async fn a_codec_believes_no_length() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Message {
        #[prost(string, repeated, tag = "1")]
        names: Vec<String>,
        #[prost(fixed64, repeated, tag = "2")]
        numbers: Vec<u64>,
    }
    let _turn = TURN.lock().await;
    let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let packed = [
        bytes(b"\xdd\xff\xff\xff\xff"),
        bytes(b"\xc6\xff\xff\xff\xff"),
        bytes(b"\xdb\xff\xff\xff\xff"),
    ];
    let varint = bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    let protobuf = [bytes(b"\x0a\xff\xff\xff\xff\x0f"), bytes(b"\x12\xff\xff\xff\xff\x0f")];
    let all = allocated(|| {
        for bytes in &packed {
            assert!(Codec::<Vec<u64>>::decode(&MessagePack, bytes).is_err());
            assert!(Codec::<Vec<u8>>::decode(&MessagePack, bytes).is_err());
            assert!(Codec::<String>::decode(&MessagePack, bytes).is_err());
        }
        assert!(Codec::<Vec<u64>>::decode(&Postcard, &varint).is_err());
        assert!(Codec::<String>::decode(&Postcard, &varint).is_err());
        for bytes in &protobuf {
            assert!(Codec::<Message>::decode(&Prost, bytes).is_err());
        }
    });
    // serde takes a list's word for up to 1 MiB.
    assert!(all < 8 << 20, "{all} bytes");
}

#[tokio::test]
async fn a_compressed_record_believes_no_length() {
    let _turn = TURN.lock().await;
    let store = MemoryL2::new();
    let settings = Settings::default().max_value_bytes(MOST).compression(Compression::lz4());
    let builder = Cache::builder("shop").settings(settings).codec(Raw).l2(store.clone());
    let cache = builder.build().unwrap();
    cache.ready().await.unwrap();
    let _ = cache.set("key", Bytes::from(vec![7; MOST])).await.unwrap();
    let record = store.read("shop:v1:e:key", None).await.unwrap().found.unwrap().bytes;
    let sound = Envelope::decode(&record).unwrap();
    assert_eq!(sound.compression, 1);
    for compression in [1, 2, 3] {
        for (len, most) in [(MOST, MOST), (MOST + 1, 0), (u32::MAX as usize, 0)] {
            let payload = [&u32::try_from(len).unwrap().to_be_bytes()[..], &[0x50; 64]].concat();
            let key = format!("{compression}:{len}");
            let forged = Envelope { key: &key, compression, payload: &payload, ..sound.clone() };
            let at = format!("shop:v1:e:{key}");
            store.plant(&at, forged.encode(), Duration::from_secs(60));
            let region = Region::new(ALLOCATOR);
            assert!(cache.get::<Bytes>(&key).await.unwrap().is_none());
            let all = region.change().bytes_allocated;
            assert!(all < most + (64 << 10), "{key}: {all} bytes");
        }
    }
}
