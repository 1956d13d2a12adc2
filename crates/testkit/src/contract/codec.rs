//! Checks that a codec decodes what it encodes.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use crinkle_core::l2::Codec;

/// Checks a codec against the contract of [`Codec`] with your own values. Include odd ones, such as
/// empty, nested and missing values.
///
/// ```
/// use crinkle_core::l2::MessagePack;
/// use crinkle_testkit::contract;
///
/// contract::codec(&MessagePack, &[Some(1), None]);
/// // Refused, since it would decode as `None`; the contract allows that.
/// contract::codec(&MessagePack, &[Some(()), None]);
/// ```
///
/// # Panics
///
/// If the codec breaks the contract; the message is the broken sentence.
pub fn codec<T: PartialEq + Debug>(codec: &impl Codec<T>, values: &[T]) {
    assert_eq!(codec.schema(), codec.schema(), "a type has one schema");
    for value in values {
        let Ok(bytes) = codec.encode(value) else { continue };
        let back = codec.decode(&bytes);
        let back = back.unwrap_or_else(|error| {
            panic!("encode refuses a value that decode cannot restore, but not {value:?}: {error}")
        });
        assert_eq!(&back, value, "encode refuses a value that decode would restore as another one");
        for broken in broken(&bytes) {
            let decoded = catch_unwind(AssertUnwindSafe(|| drop(codec.decode(&broken))));
            assert!(decoded.is_ok(), "decode never panics, but does for {broken:?}");
        }
    }
}

/// Returns every prefix, every single changed byte, and an extended copy.
fn broken(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let cut = (0..bytes.len()).map(|len| bytes.slice(..len));
    let flipped = (0..bytes.len()).map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x81;
        Bytes::from(bytes)
    });
    cut.chain(flipped).chain([Bytes::from([&bytes[..], b"\xff"].concat())])
}
