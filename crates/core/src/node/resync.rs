//! Begins a new session after a possible loss of messages: nothing is dropped, but copies in L1 must
//! be verified before they are fresh again.

use super::Node;
use crate::events::Event;
use crate::protocol::resync::ResyncReason;

impl Node {
    /// Resyncs after a possible loss: entries are verified before they count as fresh again.
    pub(crate) fn resync(&self, why: ResyncReason) {
        let counters = &self.counters;
        counters.resyncs.add();
        match why {
            ResyncReason::Connected => counters.resyncs_connected.add(),
            ResyncReason::MessageLost => counters.resyncs_message_lost.add(),
            ResyncReason::Unconfirmed => counters.resyncs_unconfirmed.add(),
            ResyncReason::SubscriptionLost => counters.resyncs_subscription_lost.add(),
            ResyncReason::Owed => counters.resyncs_owed.add(),
            ResyncReason::L2Back => counters.resyncs_l2_back.add(),
            ResyncReason::NumberConflict => counters.resyncs_number_conflict.add(),
        }
        self.coherence.resync(why);
        self.telemetry.emit(|| Event::Session { cause: why });
    }

    /// Resyncs if a removal's number made this node distrust its ledger: its copies may have been
    /// verified with another history. Further such numbers before the next `SYNC` change nothing.
    pub(crate) fn check_number(&self, distrusts: bool) {
        if distrusts {
            self.resync(ResyncReason::NumberConflict);
        }
    }
}
