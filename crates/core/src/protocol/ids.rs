//! Identities. All are compared for equality only; none is ordered by time.

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
    /// The version of a record, or the id of a load_lock: a random number chosen by the writer.
    ///
    /// Versions are compared for equality and never ordered, so no clock and no reuse can make an
    /// old value look newer than it is (guarantee S7).
    Version(u64)
}

id! {
    /// The identity of one life of the barrier ledger. A lost ledger comes back under another one,
    /// and every entry stamped under the old one stops being valid (guarantee S8).
    Epoch(u64)
}

id! {
    /// The identity of one removal, chosen by its issuer, so that a retry is recognised.
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
    /// The 128-bit hash of a key. Wherever a value could leave the cache, the full key is compared
    /// as well, so a collision costs a miss.
    KeyHash(u128)
}

impl TagHash {
    /// Hashes a tag. The same on every node and in every release.
    ///
    /// ```
    /// use crinkle_core::protocol::TagHash;
    /// assert_eq!(TagHash::of("products"), TagHash::of("products"));
    /// ```
    #[must_use]
    pub fn of(tag: &str) -> Self {
        Self(xxh3_128(tag.as_bytes())).of_name()
    }

    /// The register that its old barriers fold into: its last 16 bits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the last 16 bits are what is wanted")]
    pub fn register(self) -> u16 {
        self.0 as u16
    }
}

impl KeyHash {
    /// Hashes a key. The same on every node and in every release.
    ///
    /// ```
    /// use crinkle_core::protocol::KeyHash;
    /// assert_ne!(KeyHash::of("a"), KeyHash::of("b"));
    /// ```
    #[must_use]
    #[inline]
    pub fn of(key: &str) -> Self {
        Self(xxh3_128(key.as_bytes()))
    }
}
