//! The reasons for which the judge excuses what looks like a violation.

use std::cell::RefCell;
use std::collections::BTreeMap;

macro_rules! excuses {
    ($($excuse:ident = $name:literal,)*) => {
        /// One reason. Each is in the table of `docs/verification.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Excuse {
            $($excuse,)*
        }

        impl Excuse {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$excuse,)*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$excuse => $name,)*
                }
            }
        }
    };
}

excuses! {
    TakenBack = "a failover took the change back",
    QueuedBeforeFailover = "a failover came after a write that was queued",
    WrittenLater = "the `set` overlapped the invalidation and may have come later",
    IssuerDied = "the issuer of what a failover took back is dead",
    LastWord = "the node that made the change died before it announced how much it had sent",
    Trouble = "L2 or the bus was in trouble: the bound is the coherence TTL",
    RecoveryBusy = "L2 was in trouble while recovery was to finish",
    Confirmed = "a factory confirmed a `set` without a receipt",
    NumberedAgain = "a promoted server whose clock is behind issued a number again, and the node with the newer number has not synced with it",
    FailoverBetween = "a failover came between a load and its fill",
    ClockJumped = "the clock of a node jumped, so the times it reports are wrong",
    Stopped = "the process did not run, and read its answer late",
    Batch = "one of the two factories loads a batch",
    NotFused = "two factories, and the store does not announce",
    NobodyToRecover = "the node with the queued write is dead",
    Impatient = "a node gives L2 less time than a trip takes, and its circuit breaker opens",
    Unanswered = "a node gives L2 less time than two trips take, and the ledger has not answered before it loads",
    LedgerLost = "the ledger was lost between a removal and a write that is stamped below it",
    DiedOwing = "the node that owed announcements is dead, so the others read L2 after each poll",
    OtherVersion = "nodes of two wire versions: a message that a node cannot decode keeps its copies unverified",
}

/// How often each reason was used.
#[derive(Debug, Default)]
pub(crate) struct Excuses(RefCell<BTreeMap<Excuse, u64>>);

impl Excuses {
    /// Counts the excuse and returns true. Callers evaluate it last, when there would be a
    /// violation otherwise.
    pub(crate) fn holds(&self, excuse: Excuse) -> bool {
        *self.0.borrow_mut().entry(excuse).or_default() += 1;
        true
    }

    pub(crate) fn into_counts(self) -> BTreeMap<&'static str, u64> {
        self.0.into_inner().into_iter().map(|(excuse, count)| (excuse.name(), count)).collect()
    }
}
