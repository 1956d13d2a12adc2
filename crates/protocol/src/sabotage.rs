//! Planted bugs, to prove that the simulator finds them. Only with the feature `sabotage`.
//!
//! A bug is planted on one thread: other threads of the process stay correct.

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

            /// The name of the bug.
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
    /// An expiry by tag cancels an earlier removal.
    SoftSoftensHard = "a later expire softens a removal",
    /// Joiners take the result of their flight, even if it was overtaken.
    UncheckedJoin = "unchecked join",
    /// Entries of another epoch stay valid.
    EpochIgnored = "epoch ignored",
    /// A gap in the ledger's announcements is ignored.
    GapIgnored = "gap ignored",
    /// A `set` does not fence what overlaps it.
    NoFenceOnSet = "no fence on set",
    /// A fill is stored where L2 holds nothing.
    AbsentIsFine = "fill with \"absent is fine\"",
    /// A fill is stored over anything.
    FillOverAnything = "fill over anything",
    /// A new subscription does not end the session.
    ReconnectKeepsSession = "reconnect keeps the session",
    /// A removed entry is served stale when a factory fails.
    FailSafeIgnoresHard = "fail-safe ignores hard",
    /// An invalidation that L2 has not received is not queued.
    RecoveryForgets = "recovery forgets",
    /// Recovery settles every invalidation of the key.
    SettleWithoutCompare = "recovery settles without compare",
    /// A failed `set` is sent again with its value.
    RecoveryReplaysValue = "recovery replays the value",
    /// Barriers are dropped before the entries that they hide, and fold into nothing.
    RetentionBelowTtl = "retention below lifetime",
    /// A full recovery queue is emptied, without a clear.
    OverflowDropsSilently = "overflow drops silently",
    /// A load is kept although it was overtaken.
    OvertakenIsKept = "a load keeps what was overtaken",
    /// Of several versions received during a load, the last counts.
    LastReceivedCounts = "the last version heard counts",
    /// Entries of an older session are served without a check.
    VerifySkipped = "verify skipped",
    /// The coherence TTL never ends.
    CoherenceForEver = "coherence TTL never ends",
    /// An unused load lock is not released.
    LoadLockNotReleased = "load lock never released",
    /// A removal counts only once it has a number.
    PendingIgnored = "pending removal does not count",
    /// A removal that a failover lost is not issued again.
    LostNotReissued = "lost barriers not issued again",
    /// A write that a failover lost is not invalidated.
    CommitsForgotten = "lost commits not asserted again",
    /// A node does not notice that its subscription is lost.
    LostSubscriptionUnnoticed = "lost subscription unnoticed",
    /// A gap in a publisher's sequence is no loss.
    HolesIgnored = "holes in a sequence ignored",
    /// How far a sequence has come is announced only once.
    SequencePublishedOnce = "a sequence is told once",
    /// A delayed `set` runs whenever it reaches L2.
    SetRunsLate = "a delayed set runs late",
    /// The invalidation after a `set` of unknown outcome is settled while the `set` may still
    /// run.
    SetSettledAtOnce = "a set that may still run is settled",
    /// Loads that began during a write are not fenced by its end.
    WriteEndUnfenced = "the end of a write fences nothing",
    /// An invalidation that waited for L2 when a read was sent is forgotten with the reply.
    ReadForgetsWaiting = "a read forgets what waited",
    /// A write that an open circuit breaker refused is sent if L2 answers by then.
    OpenCircuitIsSent = "what an open circuit refuses is sent",
    /// A write that is not announced leaves no mark in the ledger.
    UnannouncedUnmarked = "an unannounced write leaves no mark",
    /// A mark for owed announcements does not make other nodes verify.
    MarkIgnored = "a mark of owed announcements is ignored",
    /// A removal drops what its caller's retention allows, not the ledger's.
    RetentionOfTheCaller = "retention of the caller",
    /// A strict read judges by what its node knew before.
    StrictIgnoresLedger = "strict ignores the ledger",
    /// A load is stamped with what its node knew, without a question to the ledger.
    LoadStaysBehind = "a load does not catch up",
    /// A `set` that a removal hides counts as done.
    HiddenSetIsDone = "a hidden set says done",
    /// An entry that a new subscription made unverified is fresh while L2 does not answer.
    UnverifiedIsFresh = "what is unverified is fresh without L2",
    /// L2 is trusted in a new session before it has answered as a primary.
    SessionUnconfirmed = "a new session trusts L2 at once",
    /// L2's records are judged by removals known at the ledger's last reply, however old that
    /// is.
    LedgerNeverOld = "a ledger that does not answer never gets old",
    /// A READ that is sent again requests the same load lock.
    LoadLockRequestedTwice = "the same load lock is asked for twice",
    /// A read keeps a load lock that it turns out not to need.
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

/// Whether this bug is planted on this thread.
#[must_use]
#[inline]
pub fn is_planted(bug: Sabotage) -> bool {
    PLANTED.get() == Some(bug)
}
