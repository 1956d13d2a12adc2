//! Why the judge lets something pass that looks like a violation.

use std::cell::RefCell;
use std::collections::BTreeMap;

macro_rules! excuses {
    ($($excuse:ident = $name:literal,)*) => {
        /// One reason to let something pass. Each is in the table of `docs/verification.md`.
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
    IssuerDied = "who issued what a failover took back is dead",
    LastWord = "who made the change died before it said how much it had sent",
    Trouble = "L2 or the bus was in trouble: the bound is the coherence TTL",
    RecoveryBusy = "L2 was in trouble while recovery was to finish",
    Confirmed = "a factory said that a `set` without a receipt is current",
    NumberedAgain = "a promoted server whose clock is behind issued a number again, and who knows better has not asked it",
    FailoverBetween = "a failover came between a load and its fill",
    ClockJumped = "the clock of a node jumped, so what it says of times is wrong",
    Stopped = "the process did not run, and read its answer late",
    Batch = "one of the two factories was a batch's",
    NotFused = "two factories, and the store does not announce",
    NobodyToRecover = "who had something queued is dead",
    Impatient = "a node gives L2 less time than a trip takes, and leaves it alone after that",
    Unanswered = "a node gives L2 less time than two trips take, and the ledger has not answered before it loads",
    LedgerLost = "the ledger was lost between a removal and a write that is stamped below it",
    DiedOwing = "who owed announcements is dead, so the others look at L2 after each poll",
    OtherVersion = "nodes of two wire versions: what one does not understand keeps it in doubt",
}

/// How often each was used.
#[derive(Debug, Default)]
pub(crate) struct Excuses(RefCell<BTreeMap<Excuse, u64>>);

impl Excuses {
    /// Counts the excuse; always true. Asked last, when without it there would be a violation.
    pub(crate) fn holds(&self, excuse: Excuse) -> bool {
        *self.0.borrow_mut().entry(excuse).or_default() += 1;
        true
    }

    pub(crate) fn into_counts(self) -> BTreeMap<&'static str, u64> {
        self.0.into_inner().into_iter().map(|(excuse, count)| (excuse.name(), count)).collect()
    }
}
