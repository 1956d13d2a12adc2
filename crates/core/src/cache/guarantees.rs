use std::fmt;

use super::Cache;
use crate::l2::Atomicity;
use crate::l2::access::Access;

/// What a cache promises, given its store and its backplane. Write it to the log when the service
/// starts.
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
    /// How L2 changes what it holds; `None` without one.
    pub store: Option<Atomicity>,
    /// Whether L2 holds the ledger and no values.
    pub ledger_only: bool,
    /// Whether other nodes are told of changes as they happen.
    pub backplane: bool,
    /// Every guarantee, by number.
    pub all: Vec<Guarantee>,
}

/// One numbered guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantee {
    /// Its number, `S1` to `S18`.
    pub id: &'static str,
    /// What it says.
    pub says: &'static str,
    /// What is weaker with this store and this backplane; `None` if it holds in full.
    pub weaker: Option<&'static str>,
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// What this cache promises, given its store and its backplane, in words to log.
    #[must_use]
    pub fn guarantees(&self) -> Guarantees {
        let inner = self.inner();
        let l2 = inner.l2.as_ref();
        let (store, backplane) = (l2.map(Access::atomicity), inner.bus.is_some());
        Guarantees::of(store, l2.is_some() && inner.records().is_none(), backplane)
    }
}

impl Guarantees {
    fn of(store: Option<Atomicity>, ledger_only: bool, backplane: bool) -> Self {
        let reasons = [
            (ledger_only, LEDGER_ONLY.as_slice()),
            (store == Some(Atomicity::Plain), WITH_PLAIN.as_slice()),
            (store.is_some() && !backplane, WITHOUT_BACKPLANE.as_slice()),
        ];
        let all = PROMISES.map(|(id, says)| {
            let apply = reasons.iter().filter(|(applies, _)| *applies);
            let weaker = apply.flat_map(|(_, weaker)| *weaker).find(|(of, _)| *of == id);
            Guarantee { id, says, weaker: weaker.map(|(_, how)| *how) }
        });
        Self { store, ledger_only, backplane, all: all.into() }
    }

    /// Whether a guarantee holds in full. False for a number that there is not.
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
            Some(Atomicity::CompareAndSwap) => "an L2 that compares and swaps",
            Some(Atomicity::Plain) => "an L2 that cannot compare",
        };
        let backplane = if self.backplane { "a backplane" } else { "no backplane" };
        let alone = if self.ledger_only { " for the ledger alone" } else { "" };
        write!(f, "{store}{alone}, {backplane}")?;
        for Guarantee { id, says, weaker } in &self.all {
            match weaker {
                None => write!(f, "\n{id} holds: {says}")?,
                Some(weaker) => write!(f, "\n{id} is weaker: {says}; but {weaker}")?,
            }
        }
        Ok(())
    }
}

const PROMISES: [(&str, &str); 18] = [
    (
        "S1",
        "after a removal by tag or a clear returned, nothing loaded before is fresh on its node",
    ),
    ("S2", "the same on every node that knows of it: within a poll and a round trip"),
    (
        "S3",
        "what is fresh was right at some moment of the coherence TTL, and of three polls while L2 answers",
    ),
    ("S4", "what was verified before messages may have been lost is verified again"),
    ("S5", "a load replaces exactly the version that it saw"),
    ("S6", "a load that overlaps an invalidation its node was told of is not kept"),
    ("S7", "versions are compared for equality, never by time"),
    ("S8", "when the ledger is lost, nothing stamped before is fresh"),
    ("S9", "what was removed is no fallback either"),
    ("S10", "recovery never brings older data back over newer"),
    ("S11", "nothing of this depends on a node's wall clock"),
    ("S12", "a key never answers with the value of another key, type or cache"),
    ("S13", "any bytes in L2 or on the backplane are a value, a miss or ignored"),
    ("S14", "one load per key and node, and one in all while L2 answers"),
    ("S15", "a receipt says how far a write got"),
    ("S16", "a strict read answers nothing that any node had replaced before it began"),
    (
        "S17",
        "what is written after a removal by tag or a clear returned anywhere is not hidden by it, or its receipt says so; in a Cluster, or with a store that compares and swaps, within a poll",
    ),
    ("S18", "callers that share a load each get what their own options say of its outcome"),
];

const WITH_PLAIN: [(&str, &str); 9] = [
    ("S2", "of two removals by tag at one moment, one may need a poll more"),
    (
        "S3",
        "a load on one node that overlaps a write on another can put back what that replaced, until its life ends",
    ),
    ("S5", "between comparing and writing the record may change"),
    ("S9", "a load on one node that overlaps a removal of its key on another can put it back"),
    ("S10", "an expire that overlaps a set on another node can put the older value back, expired"),
    ("S14", "two nodes that ask at one moment may both load"),
    ("S15", "`Done` says that L2 took the write, not that a write at the same moment has left it"),
    ("S16", "of two removals by tag at one moment, one may need a poll more"),
    ("S17", "of two removals by tag at one moment, one may need a poll more"),
];

const LEDGER_ONLY: [(&str, &str); 2] = [
    ("S14", "values stay on their node, so each node loads its own"),
    ("S17", "a node learns of removals on others from the backplane, or from its next poll"),
];

const WITHOUT_BACKPLANE: [(&str, &str); 1] = [(
    "S3",
    "a key that changed on another node is noticed within the coherence TTL, not within polls",
)];
