use bytes::Bytes;
use prost::Message;

use super::{Codec, Wire};
use crate::error::BoxError;

/// Protocol Buffers, for messages that `prost` generates or derives. Its id is 5.
///
/// Fields are identified by number. A field that was added reads as its default from old bytes, and
/// one that was removed is skipped. Never reuse a number for another meaning. A message that nests
/// deeper than 100 levels is refused: see [`Codec`].
///
/// ```
/// use crinkle_core::l2::{Codec, Prost};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Price {
///     #[prost(uint64, tag = "1")]
///     cents: u64,
/// }
///
/// let bytes = Prost.encode(&Price { cents: 1_999 })?;
/// assert_eq!(Codec::<Price>::decode(&Prost, &bytes)?.cents, 1_999);
/// # Ok::<(), crinkle_core::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct Prost;

impl Wire for Prost {
    fn id(&self) -> u8 {
        5
    }
}

impl<T: Message + Default + 'static> Codec<T> for Prost {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        let bytes = Bytes::from(value.encode_to_vec());
        T::decode(bytes.clone())
            .map_err(|_| "the message cannot be decoded again; does it nest too deep?")?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        Ok(T::decode(bytes.clone())?)
    }
}
