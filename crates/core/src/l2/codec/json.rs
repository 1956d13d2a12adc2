use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, Wire, check_round_trip};
use crate::error::BoxError;

/// JSON, for records that people read. Its id is 2.
///
/// A value that JSON writes like `None` (`Some(())`, `Some(None)`, `NaN` and the infinities) is
/// refused: see [`Codec`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value that callers write down")]
pub struct Json;

impl Wire for Json {
    fn id(&self) -> u8 {
        2
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        let bytes = serde_json::to_vec(value)?.into();
        check_round_trip(value, self.decode(&bytes), true)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
