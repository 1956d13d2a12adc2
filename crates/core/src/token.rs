//! The place of a removal in the ledger, which users hand from node to node.

use std::fmt;
use std::str::FromStr;

use crate::protocol::Epoch;

/// The place of a removal in the ledger, for a header or a cookie: 16 bytes, or 32 hexadecimal
/// digits as text and with serde.
///
/// ```
/// use crinkle_core::Token;
///
/// let token: Token = "00000000000000ab00000000000000cd".parse()?;
/// assert_eq!(token.to_string(), "00000000000000ab00000000000000cd");
/// assert_eq!(Token::from_bytes(token.to_bytes()), token);
/// assert!("any".parse::<Token>().is_err());
/// # Ok::<(), crinkle_core::InvalidToken>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
}

impl Token {
    /// Returns the later of two tokens of one call, which covers both. `None` if they are of two
    /// ledgers.
    pub(crate) fn later(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if one.epoch != other.epoch => None,
            (Some(one), Some(other)) if one.seq > other.seq => Some(one),
            (one, other) => other.or(one),
        }
    }

    /// The token as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.epoch.0) << 64) | u128::from(self.seq)).to_be_bytes()
    }

    /// A token from bytes. The bytes are untrusted input: every value is accepted.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [epoch, seq] = [&bytes[..8], &bytes[8..]]
            .map(|half| half.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
        Self { epoch: Epoch(epoch), seq }
    }
}

/// How many digits a token has as text.
const DIGITS: usize = 32;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.epoch.0, self.seq)
    }
}

/// A text that is no token: a token has 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 32 hexadecimal digits")]
#[non_exhaustive]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        // `from_str_radix` accepts a sign.
        if text.len() != DIGITS || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidToken);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| InvalidToken)?;
        Ok(Self::from_bytes(number.to_be_bytes()))
    }
}

#[cfg(any(feature = "messagepack", feature = "json", feature = "postcard"))]
mod with_serde {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::Token;

    impl Serialize for Token {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for Token {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        }
    }
}
