//! Identities. Code compares them for equality only; none is ordered by time.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }
    };
}

id! {
    /// The version of a record, or the id of a load lock: a random number chosen by the writer.
    ///
    /// Code compares versions for equality and never orders them. No clock and no reuse can
    /// therefore make an old value look newer than it is (guarantee S7).
    Version(u64)
}

id! {
    /// The identity of one history of the barrier ledger. A ledger that is lost and rebuilt has
    /// another epoch, and every entry stamped under the old one becomes invalid (guarantee S8).
    Epoch(u64)
}

id! {
    /// The identity of one removal. Its issuer chooses it, so that the ledger recognises a retry.
    Nonce(u64)
}

id! {
    /// The identity of one cache instance as a publisher on the backplane.
    PublisherId(u128)
}

id! {
    /// The 128-bit hash of a tag. A collision hides too much, never too little.
    TagHash(u128)
}

id! {
    /// The 128-bit hash of a key. Wherever a value could leave the cache, the code also compares
    /// the full key, so a collision costs a miss.
    KeyHash(u128)
}

impl TagHash {
    /// Hashes a tag. The result is the same on every node and in every release.
    ///
    /// ```
    /// use crinkle_protocol::TagHash;
    /// assert_eq!(TagHash::of("products"), TagHash::of("products"));
    /// ```
    #[must_use]
    #[inline]
    pub fn of(tag: &str) -> Self {
        Self(xxh3_128(tag.as_bytes())).of_name()
    }

    /// The register that the tag's old barriers fold into: the last 16 bits of the hash.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the last 16 bits are what is wanted")]
    #[inline]
    pub fn register(self) -> u16 {
        self.0 as u16
    }
}

impl KeyHash {
    /// Hashes a key. The result is the same on every node and in every release.
    ///
    /// ```
    /// use crinkle_protocol::KeyHash;
    /// assert_ne!(KeyHash::of("a"), KeyHash::of("b"));
    /// ```
    #[must_use]
    #[inline]
    pub fn of(key: &str) -> Self {
        Self(xxh3_128(key.as_bytes()))
    }
}
