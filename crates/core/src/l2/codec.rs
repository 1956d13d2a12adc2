use std::any::type_name;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::BoxError;

/// Turns values into bytes for L2 and back. The bound `C: Codec<T>` is the only one a cache puts on a
/// value besides `T: Send + Sync + 'static`.
///
/// # Contract
///
/// `decode` must survive any bytes: an error is a counted miss that refills. It runs only on bytes
/// whose record names the same codec [`id`](Codec::id) and [`schema`](Codec::schema).
///
/// ```
/// use bytes::Bytes;
/// use crinkle_core::{BoxError, l2::{Codec, Wire}};
///
/// /// Stores `u32` as four bytes.
/// struct Four;
///
/// impl Wire for Four {
///     fn id(&self) -> u8 { 200 }
/// }
/// impl Codec<u32> for Four {
///     fn encode(&self, value: &u32) -> Result<Bytes, BoxError> {
///         Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
///     }
///     fn decode(&self, bytes: &Bytes) -> Result<u32, BoxError> {
///         Ok(u32::from_be_bytes(bytes[..].try_into()?))
///     }
/// }
/// let four = Four;
/// assert_eq!(four.decode(&four.encode(&7)?)?, 7);
/// # Ok::<(), BoxError>(())
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// Whatever makes the value impossible to encode; it then stays in L1.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the bytes; the read is a miss then.
    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError>;

    /// Names the type in the record, so that bytes of one type are never decoded as another.
    /// Default: a hash of the type's path, so that renaming a type is a miss. Override it to share
    /// entries between programs whose types have different paths.
    fn schema(&self) -> u32 {
        (xxh3_64(type_name::<T>().as_bytes()) >> 32) as u32
    }
}

/// A codec that may be used with an L2; [`NoCodec`] is the one that is not.
pub trait Wire: Send + Sync + 'static {
    /// Names the codec in the record. Below 128 is ours, from 128 on yours.
    fn id(&self) -> u8;
}

/// `MessagePack` with named fields, so that fields can be added. The default.
#[cfg(feature = "messagepack")]
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct MessagePack;

#[cfg(feature = "messagepack")]
impl Wire for MessagePack {
    fn id(&self) -> u8 {
        1
    }
}

#[cfg(feature = "messagepack")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for MessagePack {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// JSON, for records that people read.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct Json;

#[cfg(feature = "json")]
impl Wire for Json {
    fn id(&self) -> u8 {
        2
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Bytes as they are: `Bytes` (not copied), `Vec<u8>` and `String`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct Raw;

impl Wire for Raw {
    fn id(&self) -> u8 {
        3
    }
}

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, BoxError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, BoxError> {
        Ok(bytes.clone())
    }
}

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Raw {
    fn encode(&self, value: &String) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, BoxError> {
        Ok(str::from_utf8(bytes)?.to_owned())
    }
}

/// For caches without an L2: accepts every type and encodes none. A builder with this codec has no
/// `l2` method, so the mistake is a compile error.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct NoCodec;

impl<T> Codec<T> for NoCodec {
    fn encode(&self, _: &T) -> Result<Bytes, BoxError> {
        Err("this cache has no codec, so it has no L2".into())
    }

    fn decode(&self, _: &Bytes) -> Result<T, BoxError> {
        Err("this cache has no codec, so it has no L2".into())
    }
}
