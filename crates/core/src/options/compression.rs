//! Compression of payloads. The compressed form is the plain length as a big-endian `u32`, then an
//! LZ4 block or a Zstandard frame.

use bytes::Bytes;

/// Which payloads are compressed, and how: a setting of the cache that writes. Readers follow the
/// record, so nodes with different settings can read each other's records if they have the feature.
///
/// A payload that would not become smaller is stored uncompressed. `max_value_bytes` limits the
/// uncompressed form, for writes and reads. A record that claims or contains more is a miss, and
/// nothing larger is allocated for it.
///
/// ```
/// use crinkle_core::{Cache, Settings, l2::Compression};
///
/// # #[cfg(feature = "lz4")]
/// let settings = Settings::default().compression(Compression::lz4().above(4096));
/// # #[cfg(not(feature = "lz4"))]
/// # let settings = Settings::default().compression(Compression::none());
/// let cache = Cache::builder("shop").settings(settings).build()?;
/// # Ok::<(), crinkle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    algorithm: Algorithm,
    above: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    None,
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

impl Compression {
    /// No compression. The default.
    #[must_use]
    pub const fn none() -> Self {
        Self::by(Algorithm::None)
    }

    /// LZ4: fast, saves about half of text.
    #[cfg(feature = "lz4")]
    #[must_use]
    pub const fn lz4() -> Self {
        Self::by(Algorithm::Lz4)
    }

    /// Zstandard: slower than LZ4, and saves more. The level is 1 (fast) to 19 (small); its own
    /// default is 3, and negative levels are faster still. Levels out of range are clamped.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub const fn zstd(level: i32) -> Self {
        Self::by(Algorithm::Zstd(level))
    }

    /// Does not compress payloads of up to this many bytes. Default: 1024.
    #[must_use]
    pub const fn above(mut self, bytes: usize) -> Self {
        self.above = bytes;
        self
    }

    const fn by(algorithm: Algorithm) -> Self {
        Self { algorithm, above: 1024 }
    }

    /// The payload to store, and the byte that names its compression.
    pub(crate) fn apply(self, plain: Bytes) -> (u8, Bytes) {
        let packed = if plain.len() > self.above { self.algorithm.pack(&plain) } else { None };
        match (packed, u32::try_from(plain.len())) {
            (Some((how, packed)), Ok(len)) if packed.len() + 4 < plain.len() => {
                (how, [&len.to_be_bytes()[..], &packed].concat().into())
            }
            _ => (0, plain),
        }
    }
}

impl Algorithm {
    #[cfg_attr(
        not(any(feature = "lz4", feature = "zstd")),
        expect(unused_variables, reason = "no algorithm is compiled in")
    )]
    fn pack(self, plain: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4 => Some((1, lz4_flex::block::compress(plain))),
            #[cfg(feature = "zstd")]
            Self::Zstd(level) => Some((2, zstd::bulk::compress(plain, level).ok()?)),
        }
    }
}

/// The uncompressed payload of a record, of at most `most` bytes; `None` if it cannot be restored.
/// The length is checked before anything is allocated, and no byte is written beyond it.
pub(crate) fn expand(how: u8, stored: Bytes, most: usize) -> Option<Bytes> {
    if how == 0 {
        return Some(stored);
    }
    let (len, packed) = stored.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok().filter(|len| *len <= most)?;
    let mut plain = vec![0; len];
    (unpack(how, packed, &mut plain)? == len).then(|| plain.into())
}

#[cfg_attr(
    not(any(feature = "lz4", feature = "zstd")),
    expect(unused_variables, reason = "no algorithm is compiled in")
)]
fn unpack(how: u8, packed: &[u8], plain: &mut [u8]) -> Option<usize> {
    match how {
        #[cfg(feature = "lz4")]
        1 => lz4_flex::block::decompress_into(packed, plain).ok(),
        #[cfg(feature = "zstd")]
        2 => zstd::bulk::decompress_to_buffer(packed, plain).ok(),
        _ => None,
    }
}
