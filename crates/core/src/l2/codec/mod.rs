//! The codecs, one file each.
//!
//! The traits are here. `trace` checks that a value decodes to what was encoded.

#[cfg(feature = "json")]
mod json;
#[cfg(feature = "messagepack")]
mod messagepack;
mod none;
#[cfg(feature = "postcard")]
mod postcard;
#[cfg(feature = "prost")]
mod prost;
mod raw;
#[cfg(any(feature = "json", feature = "messagepack", feature = "postcard"))]
mod trace;

use std::any::type_name;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

#[cfg(feature = "json")]
pub use json::Json;
#[cfg(feature = "messagepack")]
pub use messagepack::MessagePack;
pub use none::NoCodec;
#[cfg(feature = "postcard")]
pub use postcard::Postcard;
#[cfg(feature = "prost")]
pub use prost::Prost;
pub use raw::Raw;
#[cfg(any(feature = "json", feature = "messagepack", feature = "postcard"))]
pub use trace::check_round_trip;

use crate::error::BoxError;

/// Encodes values for L2 and decodes them. The bound `C: Codec<T>` is the only one that a cache
/// puts on a value besides `T: Send + Sync + 'static`.
///
/// # Contract
///
/// - `encode` refuses a value that `decode` would not return. A value that decodes to another one
///   is a wrong answer on every other node. One that does not decode is loaded by each node
///   separately. The codecs of this crate decode what they have encoded and compare. A codec over
///   another serde format calls `check_round_trip` for that. A refused value is an error of `set`;
///   a loaded one stays in L1.
/// - `decode` accepts any bytes: an error, or a panic, is a counted miss. It runs only on bytes
///   whose record has the same codec [`id`](Wire::id) and [`schema`](Codec::schema).
/// - `schema` is the same for a type on every node, and differs between types that cannot read each
///   other's bytes.
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
#[diagnostic::on_unimplemented(
    message = "the codec `{Self}` cannot store a `{T}`",
    label = "`{T}` is not a value of this cache",
    note = "derive `serde::Serialize` and `serde::Deserialize` for `{T}`, without borrowed fields",
    note = "or keep it in this process alone: `Cache::builder(..).codec(NoCodec)`, without an L2"
)]
pub trait Codec<T>: Send + Sync + 'static {
    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded, or its bytes not decoded; it then stays in L1.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be decoded; the read is then a miss.
    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError>;

    /// Identifies the type in the record, so that bytes of one type are never decoded as another.
    /// Default: a hash of the type's path, so that renaming a type causes misses. Override it to
    /// share entries between programs whose types have different paths.
    fn schema(&self) -> u32 {
        (xxh3_64(type_name::<T>().as_bytes()) >> 32) as u32
    }
}

/// Gives a codec the id that its records carry, so that no node decodes bytes of another codec.
/// [`NoCodec`] has none, so it works without L2 only.
#[diagnostic::on_unimplemented(
    message = "an L2 needs a codec, and `{Self}` writes no bytes",
    note = "choose one before `.l2(..)`: `.codec(MessagePack)`, `.codec(Json)`, or your own `impl Wire`"
)]
pub trait Wire: Send + Sync + 'static {
    /// Identifies the codec in the record. Ids below 128 are Crinkle's, ids from 128 on yours.
    fn id(&self) -> u8;
}
