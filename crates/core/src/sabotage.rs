//! Planted bugs, to prove that the simulator finds them. Behind the feature `sabotage`; without it the
//! answer about each is no, and what asks is optimised away.
//!
//! One thread, one planted bug: other threads of the process stay sound.

/// Whether this bug is planted on this thread.
#[cfg(feature = "sabotage")]
macro_rules! sabotaged {
    ($bug:ident) => {
        $crate::sabotage::is_planted($crate::sabotage::Sabotage::$bug)
    };
}

/// Whether this bug is planted on this thread: never, in this build.
#[cfg(not(feature = "sabotage"))]
macro_rules! sabotaged {
    ($bug:ident) => {
        $crate::sabotage::never()
    };
}

/// No bug is planted in this build. Inlined, and what asks is gone.
#[cfg(not(feature = "sabotage"))]
#[inline]
pub(crate) const fn never() -> bool {
    false
}

#[cfg(feature = "sabotage")]
pub use planted::{Sabotage, plant};

#[cfg(feature = "sabotage")]
pub(crate) use planted::is_planted;

#[cfg(feature = "sabotage")]
mod planted {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
            /// One planted bug: the production code, with one rule taken out.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[non_exhaustive]
            pub enum Sabotage {
                $($(#[$doc])* $bug,)*
            }

            impl Sabotage {
                /// Every planted bug.
                pub const ALL: &'static [Self] = &[$(Self::$bug,)*];

                /// Its name, in words.
                #[must_use]
                pub fn name(self) -> &'static str {
                    match self {
                        $(Self::$bug => $name,)*
                    }
                }
            }
        };
    }

    bugs! {
        /// A load is stamped when its factory ends.
        StampAtCompletion = "stamp taken at completion",
        /// The level of a tag is overwritten instead of raised.
        BarrierOverwritten = "barrier overwritten instead of max",
        /// An expiry by tag takes back an earlier removal.
        SoftSoftensHard = "a later expire softens a removal",
        /// Joiners take what their flight brings, overtaken or not.
        UncheckedJoin = "unchecked join",
        /// Entries of another epoch stay valid.
        EpochIgnored = "epoch ignored",
        /// A hole in the ledger's announcements is walked over.
        GapIgnored = "gap ignored",
        /// A `set` does not fence what overlaps it.
        NoFenceOnSet = "no fence on set",
        /// A fill is stored where nothing is.
        AbsentIsFine = "fill with \"absent is fine\"",
        /// A fill is stored over anything.
        FillOverAnything = "fill over anything",
        /// A new subscription does not end the session.
        ReconnectKeepsSession = "reconnect keeps the session",
        /// A removed entry stands in for a factory.
        FailSafeIgnoresHard = "fail-safe ignores hard",
        /// What L2 has not heard of is not queued.
        RecoveryForgets = "recovery forgets",
        /// Recovery settles whatever waits for the key.
        SettleWithoutCompare = "recovery settles without compare",
        /// A failed `set` is sent again with its value.
        RecoveryReplaysValue = "recovery replays the value",
        /// Barriers are dropped before what they hide, and fold into nothing.
        RetentionBelowTtl = "retention below lifetime",
        /// A full recovery queue is emptied, and that is all.
        OverflowDropsSilently = "overflow drops silently",
        /// A load is kept although it was overtaken.
        OvertakenIsKept = "a load keeps what was overtaken",
        /// Of several versions heard during a load, the last counts.
        LastReceivedCounts = "the last version heard counts",
        /// Entries of an older session are served without a check.
        VerifySkipped = "verify skipped",
        /// The coherence TTL has no end.
        CoherenceForEver = "coherence TTL never ends",
        /// A load lock that was not used is not given back.
        LoadLockNotReleased = "load lock never released",
        /// A removal counts only once it has a number.
        PendingIgnored = "pending removal does not count",
        /// What a failover took back is not issued again.
        LostNotReissued = "lost barriers not issued again",
        /// What a failover took back of a key stays as it is.
        CommitsForgotten = "lost commits not asserted again",
        /// A node does not notice that it hears nothing.
        LostSubscriptionUnnoticed = "deafness unnoticed",
        /// A hole in a publisher's sequence is no loss.
        HolesIgnored = "holes in a sequence ignored",
        /// How far a sequence has come is told once.
        SequencePublishedOnce = "a sequence is told once",
        /// A delayed `set` runs whenever it arrives.
        SetRunsLate = "a delayed set runs late",
        /// What follows a `set` of unknown outcome is settled while that may still run.
        SetSettledAtOnce = "a set that may still run is settled",
        /// Loads that began during a write are not fenced by its end.
        WriteEndUnfenced = "the end of a write fences nothing",
        /// What waited for L2 when a read was sent is forgotten when it is answered.
        ReadForgetsWaiting = "a read forgets what waited",
        /// What was to be left alone is sent if L2 answers by then.
        OpenCircuitIsSent = "what was left alone is sent",
        /// A write that the others are not told of leaves no mark in the ledger.
        UnannouncedUnmarked = "an unannounced write leaves no mark",
        /// A mark of announcements that are owed verifies nothing.
        MarkIgnored = "a mark of owed announcements is ignored",
        /// A removal drops what its caller's retention allows, not the ledger's.
        RetentionOfTheCaller = "retention of the caller",
        /// A strict read judges by what its node knew before.
        StrictIgnoresLedger = "strict ignores the ledger",
        /// A load is stamped with what its node knew, whatever the ledger says.
        LoadStaysBehind = "a load does not catch up",
        /// A `set` that a removal hides counts as done.
        HiddenSetIsDone = "a hidden set says done",
        /// What a new subscription puts in resync is fresh while L2 does not answer.
        UnverifiedIsFresh = "what is in resync is fresh without L2",
        /// L2 is believed in a new session before it has answered as a primary.
        SessionUnconfirmed = "a new session trusts L2 at once",
        /// What L2 holds is judged by removals as they were known when the ledger last answered, however long ago.
        LedgerNeverOld = "a ledger that does not answer never gets old",
        /// A READ that is sent again asks for the same load lock.
        LoadLockRequestedTwice = "the same load lock is asked for twice",
        /// A lock that a read turns out not to need is kept.
        LoadLockKeptByHit = "a lock that is not needed is kept",
        /// A notification leaves the copy in L1.
        NotificationIgnored = "a notification leaves the copy",
        /// A caller that has joined is served stale though its own options do not allow it.
        LeaderDecides = "a joiner is judged by other options",
    }

    thread_local! {
        static PLANTED: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread, or none.
    pub fn plant(bug: Option<Sabotage>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: Sabotage) -> bool {
        PLANTED.get() == Some(bug)
    }
}
