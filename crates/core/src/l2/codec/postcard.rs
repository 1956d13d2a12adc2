use bytes::Bytes;
use postcard::{take_from_bytes, to_allocvec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, Wire, check_round_trip};
use crate::error::BoxError;

/// Postcard: the smallest records of the serde codecs, and the fastest to read. Its id is 4.
///
/// The bytes contain no field names. If you change the fields of a type, also change its name (or
/// the cache's key prefix); otherwise old bytes may decode to wrong values. Postcard does not limit
/// how deep a value nests. Choose another codec for recursive types, since forged bytes could
/// exhaust the stack. Types whose decoding depends on the data (`untagged`, `tag`, `flatten`,
/// `skip_serializing_if`) are refused: see [`Codec`].
///
/// ```
/// use crinkle_core::l2::{Codec, Postcard};
///
/// let bytes = Postcard.encode(&(7_u32, "seven".to_owned()))?;
/// assert_eq!(bytes.len(), 7);
/// let back: (u32, String) = Postcard.decode(&bytes)?;
/// assert_eq!(back.1, "seven");
/// # Ok::<(), crinkle_core::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct Postcard;

impl Wire for Postcard {
    fn id(&self) -> u8 {
        4
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        let bytes = to_allocvec(value)?.into();
        check_round_trip(value, self.decode(&bytes), false)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        match take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!("{} bytes are left over", rest.len()).into()),
        }
    }
}
