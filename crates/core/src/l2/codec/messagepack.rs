use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, Wire, check_round_trip};
use crate::error::BoxError;

/// The maximum nesting, as in JSON: the default overflows the stack of a small thread.
const MAX_DEPTH: usize = 128;

/// `MessagePack` with named fields, so that fields can be added. The default. Its id is 1.
///
/// A value that the format writes like `None` (`Some(())`, `Some(None)` and others) is refused: see
/// [`Codec`]. So is a value that nests deeper than 128 levels.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct MessagePack;

impl Wire for MessagePack {
    fn id(&self) -> u8 {
        1
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        let bytes = rmp_serde::to_vec_named(value)?.into();
        check_round_trip(value, self.decode(&bytes), false)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        let mut bytes = rmp_serde::Deserializer::from_read_ref(bytes);
        bytes.set_max_depth(MAX_DEPTH);
        Ok(T::deserialize(&mut bytes)?)
    }
}
