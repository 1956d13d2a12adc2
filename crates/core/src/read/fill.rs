//! The end of a load: builds the new entry's metadata and stores it in L2 by compare-and-swap.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::completion::CompletionGuard;
use crate::backplane::message::KeyOp;
use crate::entry::{Entry, EntryFlags, Meta, RecordTtls, Source, Stamp, Value, deadlines};
use crate::factory::Choices;
use crate::l2::change::Change;
use crate::l2::{L2Error, Record};
use crate::node::Node;
use crate::options::EntryOptions;
use crate::protocol::Version;
use crate::protocol::record::Put;
use crate::write::outgoing::{self, Outgoing};

/// The inputs for a new entry's metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    /// The node's knowledge before the load.
    pub(crate) stamp: Stamp,
    /// How long the factory ran.
    pub(crate) took: Duration,
    /// L2 does not answer: the entry stays fresh for one coherence TTL at most.
    pub(crate) degraded: bool,
    /// The entry goes to L2.
    pub(crate) shared: bool,
}

impl NewEntry {
    /// Builds the entry's metadata and its record's TTLs. Both count from now; the stamp is older.
    pub(crate) fn meta(self, node: &Node, key: &str, choices: &Choices) -> (Meta, RecordTtls) {
        let (now, options) = (node.now(), &choices.options);
        let shared = self.shared && !options.skip_l2_write;
        let jitter = match crate::clock::nanos(options.jitter) {
            0 => Duration::ZERO,
            most => Duration::from_nanos(node.entropy.below(most.saturating_add(1))),
        };
        let (mut entry_deadlines, record_ttls) =
            deadlines(options, node.settings.max_lifetime, jitter, now, shared);
        let until = self.stamp.at + node.settings.coherence_ttl;
        if self.degraded {
            entry_deadlines.logical = entry_deadlines.logical.min(until);
        }
        let own = node.records().is_some() && options.skip_l2_write;
        let flags = EntryFlags::new(options, entry_deadlines, self.took, own);
        let tags = node.coherence.intern(choices.tags.iter().map(String::as_str));
        let version = node.entropy.version();
        let (stamp, weight) = (self.stamp, options.weight);
        let mut meta = Meta::new(key, version, tags, stamp, entry_deadlines, flags, weight);
        meta.validators = choices.validators.clone().boxed();
        if self.degraded {
            meta.shorten(until);
        }
        (meta, record_ttls)
    }
}

/// One store of a loaded entry in L2, and its completion.
pub(super) struct Fill<'a, T> {
    pub(super) node: &'a Node,
    pub(super) call: &'a Call,
    pub(super) options: &'a EntryOptions,
    pub(super) entry: Arc<Entry<T>>,
}

impl<T: Value> Fill<'_, T> {
    /// Replaces exactly the expected version in L2 and completes the flight; true if L2 stored it.
    pub(super) async fn put(
        self,
        guard: CompletionGuard,
        expected: Version,
        record: Record,
    ) -> bool {
        let node = self.node;
        let (hash, version) = (self.call.hash, self.entry.meta.version);
        node.flights.own(&guard.flight, version);
        let waiting = node.recovery.get(&self.call.key);
        let entry = Arc::clone(&self.entry);
        let (mut guard, mut kept) = (Some(guard), false);
        if self.options.background_l2 {
            kept = guard.take().is_some_and(|l| l.complete(Arc::clone(&entry), Source::Factory));
        }
        let mut outgoing = self.outgoing();
        match self.send(&mut outgoing, expected, record).await {
            Ok(Put::Stored) => {
                // L2 holds this version now: L1 must not keep a copy of any other, even if it
                // rejects this one.
                node.recovery.local_only.replaced(hash);
                node.flights.receive(hash, version, || node.l1.keep_only(hash, version));
                kept |= guard.is_some_and(|l| l.complete(entry, Source::Factory));
                if let Some(waiting) = waiting.filter(|_| kept) {
                    // L1 kept the value, so the load began after the pending invalidation.
                    node.recovery.acknowledge(&self.call.key, waiting.version, node.now());
                }
                if let Some(outgoing) = &mut outgoing {
                    outgoing.confirm().await;
                }
                true
            }
            Ok(Put::Refused) => {
                match guard {
                    Some(guard) => guard.complete_refused(entry),
                    None => self.withdraw(),
                }
                false
            }
            Err(error) => {
                tracing::debug!(%error, "fill failed; L1 keeps the value for the coherence TTL");
                entry.meta.shorten_to_coherence_ttl(node.settings.coherence_ttl);
                if let Some(guard) = guard {
                    guard.complete(entry, Source::Factory);
                }
                error.is_unknown()
            }
        }
    }

    async fn send(
        &self,
        outgoing: &mut Option<Outgoing<'_>>,
        expected: Version,
        record: Record,
    ) -> Result<Put, L2Error> {
        let Some(l2) = &self.node.l2 else { return Ok(Put::Refused) };
        if l2.is_open(&self.call.key) {
            // Nothing is sent, so no announcement may use a sequence number.
            return Err(L2Error::circuit_open());
        }
        let (key, limit) = (&self.call.key, self.options.l2_hard_timeout);
        let change = Change::Put(expected, record);
        let put = outgoing::send(outgoing, l2, key, change, limit, false).await;
        if let Some(outgoing) = outgoing {
            outgoing.answered(&put).await;
        }
        put
    }

    /// The announcement to the other nodes, if L2 does not publish it.
    fn outgoing(&self) -> Option<Outgoing<'_>> {
        let (version, limit) = (self.entry.meta.version, self.options.l2_hard_timeout);
        Outgoing::new(self.node, KeyOp::Written, version, self.call.hash, limit)
            .filter(|_| !self.options.skip_backplane)
    }

    /// Removes the copy from L1: the callers have their answer, but L2 refused the fill.
    fn withdraw(&self) {
        let (node, hash) = (self.node, self.call.hash);
        node.counters.fill_refused.add();
        let other = node.entropy.version();
        node.flights.receive(hash, other, || node.l1.keep_only(hash, other));
    }
}
