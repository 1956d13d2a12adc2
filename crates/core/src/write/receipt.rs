use crate::protocol::Epoch;

/// How far one part of a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// Acknowledged.
    Done,
    /// Not done yet: it is under way in the background, or waits in the recovery queue, as an
    /// invalidation.
    Queued,
    /// The answer was lost: it may have happened, and is repeated as an invalidation.
    Unknown,
    /// There is nothing to do: no such level, or the call left it out.
    Skipped,
    /// Another change of the same key came in between.
    Superseded,
}

/// How far a write got. The local part always holds when the call returns.
///
/// ```
/// use crinkle_core::{Cache, Reach};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let receipt = cache.remove_by_tag("products").await?;
/// assert_eq!(receipt.l2(), Reach::Skipped);
/// assert!(receipt.is_propagated());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    l2: Reach,
    backplane: Reach,
    barrier: Option<Barrier>,
}

impl Receipt {
    pub(crate) fn new(l2: Reach, backplane: Reach) -> Self {
        Self { l2, backplane, barrier: None }
    }

    pub(crate) fn local() -> Self {
        Self::new(Reach::Skipped, Reach::Skipped)
    }

    pub(crate) fn with_barrier(mut self, barrier: Barrier) -> Self {
        self.barrier = Some(barrier);
        self
    }

    /// How far it got in L2.
    #[must_use]
    pub fn l2(&self) -> Reach {
        self.l2
    }

    /// How far its notification got.
    #[must_use]
    pub fn backplane(&self) -> Reach {
        self.backplane
    }

    /// Whether every other node can know: nothing is queued or unknown.
    #[must_use]
    pub fn is_propagated(&self) -> bool {
        [self.l2, self.backplane]
            .iter()
            .all(|reach| matches!(reach, Reach::Done | Reach::Skipped | Reach::Superseded))
    }

    /// The number of a removal by tag or clear; `None` for other writes and while queued.
    #[must_use]
    pub fn barrier(&self) -> Option<Barrier> {
        self.barrier
    }

    /// The weaker of two parts of one call.
    pub(crate) fn and(self, other: Self) -> Self {
        let worse = |a: Reach, b: Reach| if rank(a) >= rank(b) { a } else { b };
        Self {
            l2: worse(self.l2, other.l2),
            backplane: worse(self.backplane, other.backplane),
            barrier: other.barrier.or(self.barrier),
        }
    }
}

fn rank(reach: Reach) -> u8 {
    match reach {
        Reach::Skipped => 0,
        Reach::Done => 1,
        Reach::Superseded => 2,
        Reach::Queued => 3,
        Reach::Unknown => 4,
    }
}

/// The place of a removal in the ledger: 16 bytes, for a header or a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Barrier {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
}

impl Barrier {
    /// The token as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.epoch.0) << 64) | u128::from(self.seq)).to_be_bytes()
    }

    /// A token from bytes, which may come from anywhere and say anything.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [epoch, seq] = [&bytes[..8], &bytes[8..]]
            .map(|half| half.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)));
        Self { epoch: Epoch(epoch), seq }
    }
}
