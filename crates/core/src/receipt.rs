use crate::token::Token;

/// The outcome of a write at one level: in L2, or on the backplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteStatus {
    /// Acknowledged.
    Done,
    /// Not done yet: the write is pending in the background, or waits in the recovery queue as an
    /// invalidation.
    Queued,
    /// The reply was lost: the write may have happened, and is repeated as an invalidation.
    Unknown,
    /// There is nothing to do: no such level, or the call skips it.
    Skipped,
    /// The write was overtaken. Something newer replaced or invalidated the key first, or a removal
    /// by tag or a clear hides the stored value. No node serves the value.
    Superseded,
    /// A `set` reached L2 after its deadline, and L2 removed the key instead. Only this node has
    /// the value, and nothing is pending any more.
    Late,
}

/// The result of a write: whether L2 and the other nodes have it. On this node it always holds when
/// the call returns.
///
/// ```
/// use crinkle_core::{Cache, WriteStatus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let receipt = cache.remove_by_tag("products").await?;
/// assert_eq!(receipt.l2(), WriteStatus::Skipped);
/// assert!(receipt.is_propagated());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    l2: WriteStatus,
    backplane: WriteStatus,
    token: Option<Token>,
    parts: Option<[Part; 2]>,
}

/// The status of the keys, or of the tags, of a call that removes both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    l2: WriteStatus,
    backplane: WriteStatus,
    token: Option<Token>,
}

impl From<Part> for Receipt {
    fn from(Part { l2, backplane, token }: Part) -> Self {
        Self { l2, backplane, token, parts: None }
    }
}

impl From<Receipt> for Part {
    fn from(Receipt { l2, backplane, token, .. }: Receipt) -> Self {
        Self { l2, backplane, token }
    }
}

impl Receipt {
    pub(crate) fn new(l2: WriteStatus, backplane: WriteStatus) -> Self {
        Self { l2, backplane, token: None, parts: None }
    }

    pub(crate) fn local() -> Self {
        Self::new(WriteStatus::Skipped, WriteStatus::Skipped)
    }

    pub(crate) fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// How far the write got in L2.
    #[must_use]
    pub fn l2(&self) -> WriteStatus {
        self.l2
    }

    /// How far the write's notification got.
    #[must_use]
    pub fn backplane(&self) -> WriteStatus {
        self.backplane
    }

    /// Whether every other node can learn of the write and read its result: nothing is queued,
    /// unknown, late or [superseded](WriteStatus::Superseded).
    #[must_use]
    pub fn is_propagated(&self) -> bool {
        [self.l2, self.backplane]
            .iter()
            .all(|status| matches!(status, WriteStatus::Done | WriteStatus::Skipped))
    }

    /// The receipt of the keys, for a call that removes keys and tags
    /// ([`and_tags`](crate::Remove::and_tags)); `None` for other calls.
    ///
    /// [`l2`](Self::l2) and [`backplane`](Self::backplane) of the whole receipt are those of the
    /// part that got less far.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// let receipt = cache.remove("product:42").and_tags(["products"]).await?;
    /// for (what, part) in [("key", receipt.keys_part()), ("tags", receipt.tags_part())] {
    ///     if part.is_some_and(|part| !part.is_propagated()) {
    ///         println!("other nodes receive the removal of the {what} later");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keys_part(&self) -> Option<Self> {
        self.parts.map(|[keys, _]| keys.into())
    }

    /// The receipt of the tags, for a call that removes keys and tags; `None` for other calls.
    #[must_use]
    pub fn tags_part(&self) -> Option<Self> {
        self.parts.map(|[_, tags]| tags.into())
    }

    /// The token of a removal by tag or clear. `None` for other writes, while the removal is
    /// queued, and for more than 64 tags during which the ledger was lost. For a call that removes
    /// keys and tags it is the token of the tags.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// Merges two parts of one call: the weaker status of each level.
    pub(crate) fn and(self, other: Self) -> Self {
        let worse = |a: WriteStatus, b: WriteStatus| if rank(a) >= rank(b) { a } else { b };
        Self {
            l2: worse(self.l2, other.l2),
            backplane: worse(self.backplane, other.backplane),
            token: Token::later(self.token, other.token),
            parts: None,
        }
    }

    pub(super) fn without_token(self) -> Self {
        Self { token: None, ..self }
    }

    /// Merges the receipts of the keys and of the tags of one call.
    pub(super) fn both(keys: Self, tags: Self) -> Self {
        Self { parts: Some([keys.into(), tags.into()]), ..keys.and(tags) }
    }
}

fn rank(status: WriteStatus) -> u8 {
    match status {
        WriteStatus::Skipped => 0,
        WriteStatus::Done => 1,
        WriteStatus::Superseded => 2,
        WriteStatus::Late => 3,
        WriteStatus::Queued => 4,
        WriteStatus::Unknown => 5,
    }
}
