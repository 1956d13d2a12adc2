use std::fmt;

use super::Cache;
use crate::l2::Atomicity;
use crate::l2::access::Access;

/// Describes the guarantees of a cache with its store and backplane. It implements `Display`: log
/// it when the service starts.
///
/// ```
/// use crinkle_core::{Cache, l2::MemoryL2};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").l2(MemoryL2::new()).build()?;
/// let guarantees = cache.guarantees();
/// assert!(guarantees.holds("S5"));
/// println!("{guarantees}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// How L2 applies changes; `None` without an L2.
    pub store: Option<Atomicity>,
    /// Whether L2 stores the ledger and no values.
    pub ledger_only: bool,
    /// Whether a backplane notifies other nodes of changes at once.
    pub backplane: bool,
    /// Every guarantee, in order of its number.
    pub all: Vec<Guarantee>,
}

/// One numbered guarantee, and whether it holds in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantee {
    /// The number, `S1` to `S18`.
    pub id: &'static str,
    /// The text of the guarantee.
    pub says: &'static str,
    /// The restriction with this store and this backplane; `None` if the guarantee holds in full.
    pub weaker: Option<&'static str>,
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// Reports which consistency guarantees hold with the configured L2 and backplane, and what
    /// restricts the others. The result implements `Display`, for logging.
    #[must_use]
    pub fn guarantees(&self) -> Guarantees {
        let node = self.node();
        let l2 = node.l2.as_ref();
        let (store, backplane) = (l2.map(Access::atomicity), node.bus.is_some());
        Guarantees::of(store, l2.is_some() && node.records().is_none(), backplane)
    }
}

impl Guarantees {
    fn of(store: Option<Atomicity>, ledger_only: bool, backplane: bool) -> Self {
        let reasons = [
            (ledger_only, LEDGER_ONLY.as_slice()),
            (store == Some(Atomicity::Plain), WITH_PLAIN.as_slice()),
            (store.is_some() && !backplane, WITHOUT_BACKPLANE.as_slice()),
        ];
        let all = GUARANTEES.map(|(id, says)| {
            let apply = reasons.iter().filter(|(applies, _)| *applies);
            let weaker = apply.flat_map(|(_, weaker)| *weaker).find(|(of, _)| *of == id);
            Guarantee { id, says, weaker: weaker.map(|(_, how)| *how) }
        });
        Self { store, ledger_only, backplane, all: all.into() }
    }

    /// Whether a guarantee holds in full. Returns false for an unknown number.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.all.iter().any(|guarantee| guarantee.id == id && guarantee.weaker.is_none())
    }
}

impl fmt::Display for Guarantees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = match self.store {
            None => "no L2",
            Some(Atomicity::Atomic) => "an L2 that runs each operation in one step",
            Some(Atomicity::CompareAndSwap) => "an L2 with compare-and-swap",
            Some(Atomicity::Plain) => "an L2 that cannot compare",
        };
        let backplane = if self.backplane { "a backplane" } else { "no backplane" };
        let ledger_only = if self.ledger_only { " for the ledger only" } else { "" };
        write!(f, "{store}{ledger_only}, {backplane}")?;
        for Guarantee { id, says, weaker } in &self.all {
            match weaker {
                None => write!(f, "\n{id} holds: {says}")?,
                Some(weaker) => write!(f, "\n{id} is weaker: {says}; but {weaker}")?,
            }
        }
        Ok(())
    }
}

const GUARANTEES: [(&str, &str); 18] = [
    ("S1", "once a removal by tag or a clear returns, nothing loaded before is fresh on its node"),
    ("S2", "the same on every node that knows of it: within a poll and a round trip"),
    (
        "S3",
        "a fresh value was right at some moment of the last coherence TTL, and of the last three polls while L2 answers",
    ),
    ("S4", "after a possible loss of messages, entries verified before it are verified again"),
    ("S5", "a load replaces exactly the version that it saw"),
    ("S6", "a load that overlaps an invalidation that its node knows of is not kept"),
    ("S7", "versions are compared for equality, never by time"),
    ("S8", "after the loss of the ledger, nothing stamped before it is fresh"),
    ("S9", "a removed value is not used as a fallback either"),
    ("S10", "recovery never overwrites newer data with older data"),
    ("S11", "no guarantee depends on a node's wall clock"),
    ("S12", "a read of a key never returns the value of another key, type or cache"),
    ("S13", "any bytes in L2 or on the backplane give a value or a miss, or are ignored"),
    ("S14", "one load per key and node, and one on all nodes while L2 answers"),
    ("S15", "a receipt says how far a write got"),
    ("S16", "a strict read returns nothing that any node had replaced before it began"),
    (
        "S17",
        "a removal by tag or a clear does not hide what is written after it returned anywhere, or the receipt of the write says so; in a Cluster, or with a compare-and-swap store, within a poll",
    ),
    ("S18", "callers that share a load each get its outcome by their own options"),
];

const WITH_PLAIN: [(&str, &str); 9] = [
    ("S2", "of two concurrent removals by tag, one may need another poll"),
    (
        "S3",
        "a load on one node that overlaps a write on another can restore the replaced value until it expires",
    ),
    ("S5", "the record may change between the comparison and the write"),
    (
        "S9",
        "a load on one node that overlaps a removal of its key on another can restore the value",
    ),
    ("S10", "an expire that overlaps a set on another node can restore the older value, expired"),
    ("S14", "two nodes that miss at the same moment may both load"),
    ("S15", "`Done` says that L2 accepted the write, not that no concurrent write replaced it"),
    ("S16", "of two concurrent removals by tag, one may need another poll"),
    ("S17", "of two concurrent removals by tag, one may need another poll"),
];

const LEDGER_ONLY: [(&str, &str); 2] = [
    ("S14", "values stay on their node, so each node loads its own"),
    ("S17", "a node learns of removals on others from the backplane, or from its next poll"),
];

const WITHOUT_BACKPLANE: [(&str, &str); 1] = [(
    "S3",
    "a key that changed on another node is noticed within the coherence TTL, not within polls",
)];
