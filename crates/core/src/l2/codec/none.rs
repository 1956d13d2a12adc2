use bytes::Bytes;

use super::Codec;
use crate::error::BoxError;

/// For caches without an L2: accepts every type and encodes none. A builder with this codec has no
/// `l2` method, so choosing an L2 does not compile.
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
