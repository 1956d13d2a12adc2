//! Whatever bytes there are: a value or a counted miss, never a panic.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crinkle_core::l2::record::Envelope;
use crinkle_core::l2::{Codec, Compression, Json, MessagePack, Postcard, Prost, Raw};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::forge::{Forge, MOST, raw, stored};
use crate::round_trip::{Message, Product, message, product};

/// The panics of this process from now on: the cache catches those of a decoder.
fn panics() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, before) = (Arc::clone(&count), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        counted.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    count
}

/// A text of this length in the compressed form that a cache has written.
async fn packed(forge: &Forge, compression: Compression, len: usize) -> Vec<u8> {
    let writer = raw(&forge.world, compression).await;
    let text: Bytes = b"all work and no play ".iter().copied().cycle().take(len).collect();
    let _ = writer.cache.set("packed", text).await.expect("no trouble");
    Envelope::decode(&stored(&forge.world, "packed").await).expect("no trouble").payload.to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_wrong_length_a_bomb_and_an_unknown_algorithm_are_counted_misses() {
    let forge = Forge::new().await;
    for (how, compression) in [(1_u8, Compression::lz4()), (2, Compression::zstd(3))] {
        let whole = packed(&forge, compression, 20_000).await;
        let with_len = |len: u32| [&len.to_be_bytes()[..], &whole[4..]].concat();
        let mut cases = vec![with_len(20_000)];
        cases.extend([0, 1, 19_999, 20_001, u32::try_from(MOST).unwrap(), u32::MAX].map(with_len));
        cases.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
        cases.push([&whole[..], b"x"].concat());
        for (number, payload) in cases.iter().enumerate() {
            let key = format!("{how}:{number}");
            forge.plant(&key, how, payload);
            assert_eq!(forge.read(&key).await.is_some(), number == 0, "{key}");
        }
        for other in 3..=255 {
            let key = format!("{how} as {other}");
            forge.plant(&key, other, &whole);
            assert_eq!(forge.read(&key).await, None);
        }
    }
}

/// Much in few bytes, under a length that is allowed.
#[tokio::test(start_paused = true)]
async fn a_bomb_that_lies_about_its_length_is_a_counted_miss() {
    let forge = Forge::new().await;
    let roomy = forge.world.node_with(|builder| builder.codec(Raw)).await;
    for (how, bomb, plain) in [(1, lz4_bomb(), 1 + 19 + 255 * 4096 + 5), (2, zstd_bomb(), 1 << 20)]
    {
        let claim = |len: usize| {
            let len = u32::try_from(len).unwrap();
            let key = format!("{how}:{len}");
            forge.plant(&key, how, &[&len.to_be_bytes()[..], &bomb].concat());
            key
        };
        let read = roomy.cache.get::<Bytes>(claim(plain)).await.unwrap();
        assert!(read.is_some_and(|read| read.len() == plain), "it is a bomb: {how}");
        for len in [plain, 10, 1000, MOST] {
            assert_eq!(forge.read(&claim(len)).await, None, "{how}: {len}");
        }
    }
}

/// One letter, repeated, and the five letters that end a block.
fn lz4_bomb() -> Vec<u8> {
    [&[0x1f, b'x', 1, 0][..], &[255; 4096], &[0, 0x50], b"xxxxx"].concat()
}

/// A frame of 1 MiB: eight blocks of 128 KiB, of one byte each, repeated.
fn zstd_bomb() -> Vec<u8> {
    let mut bomb = b"\x28\xb5\x2f\xfd\xa0\x00\x00\x10\x00".to_vec();
    for last in [0, 0, 0, 0, 0, 0, 0, 1] {
        bomb.extend([2 | last, 0, 0x10, b'x']);
    }
    bomb
}

#[tokio::test(start_paused = true)]
async fn random_payloads_are_values_within_the_limit_or_counted_misses() {
    let forge = Forge::new().await;
    let panics = panics();
    let mut random = StdRng::seed_from_u64(42);
    for (how, compression) in [(1_u8, Compression::lz4()), (2, Compression::zstd(3))] {
        let whole = packed(&forge, compression, 5000).await;
        for number in 0..1500 {
            let mut payload = whole.clone();
            if number % 3 == 0 {
                payload = vec![0; random.random_range(0..200)];
                random.fill_bytes(&mut payload);
                payload.splice(..payload.len().min(2), [0, 0]);
            }
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..payload.len().max(1));
                payload.splice(at..(at + 1).min(payload.len()), [random.random()]);
            }
            let key = format!("{how}:{number}");
            forge.plant(&key, how, &payload);
            assert!(forge.read(&key).await.is_none_or(|value| value.len() <= MOST), "{key}");
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// A codec, on any bytes: an error, or a value that it can write again.
fn decode<T: PartialEq + std::fmt::Debug>(
    codec: &impl Codec<T>,
    bytes: &Bytes,
) -> Result<bool, TestCaseError> {
    let Ok(value) = codec.decode(bytes) else { return Ok(false) };
    let Ok(again) = codec.encode(&value) else { return Ok(true) };
    let back = codec.decode(&again);
    let shown = |value: &T| format!("{value:?}");
    prop_assert_eq!(back.ok().as_ref().map(shown), Some(shown(&value)));
    Ok(true)
}

/// Every codec, on the same bytes; how many could read them.
fn decode_all(bytes: &Bytes) -> Result<usize, TestCaseError> {
    let read = [
        decode::<Product>(&MessagePack, bytes)?,
        decode::<Product>(&Json, bytes)?,
        decode::<Product>(&Postcard, bytes)?,
        decode::<Message>(&Prost, bytes)?,
        decode::<String>(&Raw, bytes)?,
    ];
    prop_assert_eq!(read[4], str::from_utf8(bytes).is_ok());
    Ok(read.into_iter().filter(|read| *read).count())
}

/// What is decoded without any change is what was encoded.
#[test]
fn what_is_whole_is_decoded() {
    for bytes in encodings() {
        assert!(decode_all(&bytes).expect("they come back") >= 1);
    }
}

fn encodings() -> [Bytes; 4] {
    [
        MessagePack.encode(&product()).expect("no trouble"),
        Json.encode(&product()).expect("no trouble"),
        Postcard.encode(&product()).expect("no trouble"),
        Prost.encode(&message()).expect("no trouble"),
    ]
}

proptest! {
    #![proptest_config(crate::seed::config(256))]

    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&bytes.into())?;
    }

    #[test]
    fn any_broken_value_decodes_or_does_not(
        which in 0..4_usize,
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut bytes = encodings()[which].to_vec();
        let at = at.index(bytes.len());
        let end = (at + with.len()).min(bytes.len());
        bytes.splice(at..end, with);
        decode_all(&bytes.into())?;
    }
}

/// Deeper than any honest value: the codecs that can nest refuse it before the stack ends.
#[test]
fn deep_nesting_is_refused() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Deep(Vec<Self>);
    let deep = |byte: u8| Bytes::from(vec![byte; 1 << 20]);
    assert!(Codec::<Deep>::decode(&MessagePack, &deep(0x91)).is_err());
    assert!(Codec::<Deep>::decode(&Json, &deep(b'[')).is_err());
    let mut nested = Message::default();
    for _ in 0..200 {
        nested = Message { inner: Some(Box::new(nested)), ..Message::default() };
    }
    assert!(Prost.encode(&nested).is_err(), "what is not read is not written");
    let bytes = prost::Message::encode_to_vec(&nested).into();
    assert!(Codec::<Message>::decode(&Prost, &bytes).is_err());
}
