//! Decodes the bytes of a record into an entry, or counts why it cannot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::judge::judge_record;
use crate::clock::Moment;
use crate::entry::{Deadlines, Entry, EntryFlags, Meta, Shared, Stamp, Validators, Value};
use crate::l2::Found;
use crate::l2::record::{self, Envelope};
use crate::l2::unread::Reason;
use crate::node::{Coded, Node};
use crate::options::EntryOptions;
use crate::options::compression::expand;
use crate::protocol::Version;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// A decoded record, or the version of one that this node cannot use.
#[derive(Debug)]
pub(crate) enum ReadInto<T> {
    /// An entry of this type under this key.
    Entry(Arc<Entry<T>>),
    /// A sound, visible record that this node cannot use; other nodes may.
    Foreign(Foreign),
    /// A record that no node can use: of another key, damaged, or hidden.
    Unusable(Option<Version>),
}

/// A record that only other nodes may be able to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    pub(crate) version: Version,
    /// The record holds a value of another type.
    pub(crate) other_type: bool,
    /// This node must not replace the record.
    ///
    /// Either it already replaced a record that its writer could not use, and nodes must not
    /// replace each other's records in turn. Or it is too large to decode.
    pub(crate) leave: bool,
}

/// Decodes what a READ that began at `stamp` found.
///
/// If L1 already holds a copy of this version, it verifies and reuses that copy.
pub(crate) fn decode<T: Value>(
    node: &Coded<T>,
    call: &Call,
    found: &Found,
    stamp: Stamp,
    local: Option<&Arc<Entry<T>>>,
) -> ReadInto<T> {
    let key = &*call.key;
    // A fresh record beats a copy that a late message expired or that got a short TTL.
    let stale = record::is_stale(&found.bytes, found.ttl_ms);
    let head = record::head(&found.bytes).map(Head::version);
    if found.bytes.len() > node.settings.max_value_bytes.saturating_add(1 << 20) {
        let beside = local.filter(|e| e.meta.beside && head == Some(e.meta.version));
        if let Some(entry) = beside.filter(|e| !stale && is_alive(node, e)) {
            return verified(node, entry, stamp);
        }
        node.unread(key, Reason::TooLarge);
        let foreign = |version| Foreign { version, other_type: false, leave: true };
        return head
            .map_or(ReadInto::Unusable(None), |version| ReadInto::Foreign(foreign(version)));
    }
    let Some(envelope) = Envelope::decode(&found.bytes) else {
        node.unread(key, Reason::Damaged);
        return ReadInto::Unusable(head);
    };
    // Its stamp is above every future barrier: it would survive all removals.
    if envelope.epoch == stamp.epoch && node.coherence.is_unacknowledged(envelope.stamp, node.now())
    {
        node.unread(key, Reason::Unissued);
        return ReadInto::Unusable(Some(envelope.version));
    }
    let same = |e: &Entry<T>| e.meta.version == envelope.version;
    // An expired copy is reused too: it holds the throttle of its factory.
    let expired = envelope.expired || node.recovery.local_only.is_of(call.hash, envelope.version);
    let replaceable = stale || expired;
    let is_reusable = |e: &Entry<T>| {
        if e.meta.beside {
            !replaceable && is_alive(node, e)
        } else {
            replaceable || is_alive(node, e)
        }
    };
    if let Some(entry) = local.filter(|e| same(e) && is_reusable(e)) {
        if envelope.expired {
            entry.meta.expire();
        }
        return verified(node, entry, stamp);
    }
    let (value, len) = match value(node, key, &envelope, found) {
        Ok(value) => value,
        Err(reason) => {
            let meta = meta(node, &envelope, found.ttl_ms, stamp, &call.options);
            return unread(node, key, &envelope, &meta, reason);
        }
    };
    let expired = envelope.expired;
    let meta = meta(node, &envelope, found.ttl_ms, stamp, &call.options);
    meta.grow(len);
    if expired {
        meta.expire();
    }
    ReadInto::Entry(Arc::new(Entry { meta, value: Shared::Own(value) }))
}

fn is_alive<T>(node: &Node, entry: &Entry<T>) -> bool {
    !entry.meta.is_expired() && node.now() < entry.meta.logical()
}

/// Marks a copy as verified: L2 still holds its version.
fn verified<T>(node: &Node, entry: &Arc<Entry<T>>, stamp: Stamp) -> ReadInto<T> {
    entry.meta.verify(stamp);
    node.counters.l1_verified.add();
    ReadInto::Entry(Arc::clone(entry))
}

/// Counts a sound record that this node cannot use, and classifies it.
fn unread<T>(
    node: &Node,
    key: &str,
    envelope: &Envelope<'_>,
    meta: &Meta,
    reason: Reason,
) -> ReadInto<T> {
    let version = envelope.version;
    let verdict = judge_record(node, key, meta);
    let hidden = matches!(verdict, Verdict::Hidden(_));
    // A hidden record says nothing about a running deployment with another type.
    if !(hidden && reason == Reason::OtherType) {
        node.unread(key, reason);
    }
    if hidden || reason == Reason::OtherKey {
        return ReadInto::Unusable(Some(version));
    }
    let (other_type, leave) = (reason == Reason::OtherType, envelope.displaced);
    ReadInto::Foreign(Foreign { version, other_type, leave })
}

/// Decodes the value; also returns its encoded size in bytes.
fn value<T: Value>(
    node: &Coded<T>,
    key: &str,
    envelope: &Envelope<'_>,
    found: &Found,
) -> Result<(T, usize), Reason> {
    match envelope {
        Envelope { key: of, .. } if *of != key => return Err(Reason::OtherKey),
        Envelope { schema, .. } if *schema != node.codec.schema() => {
            return Err(Reason::OtherType);
        }
        Envelope { codec, .. } if *codec != node.codec_id => return Err(Reason::OtherCodec),
        _ => {}
    }
    let stored = found.bytes.slice_ref(envelope.payload);
    catch_unwind(AssertUnwindSafe(|| {
        let plain = expand(envelope.compression, stored, node.settings.max_value_bytes)
            .ok_or(Reason::Compression)?;
        let value = node.codec.decode(&plain).map_err(|_| Reason::Undecodable)?;
        Ok((value, plain.len()))
    }))
    .unwrap_or(Err(Reason::Undecodable))
}

/// Builds the metadata of an L1 copy of a record, for a call with these options.
pub(super) fn meta(
    node: &Node,
    envelope: &Envelope<'_>,
    ttl_ms: u64,
    stamp: Stamp,
    options: &EntryOptions,
) -> Meta {
    // The TTL that the record was stored with bounds the TTL that the store reports. This cache
    // also keeps no copy longer than its own `max_lifetime`. The writer chooses how old the record
    // may become: the ledger keeps barriers for the longest limit of all nodes.
    let known_age = record::age_ms(envelope.physical_ms, ttl_ms);
    let age_ms = known_age.unwrap_or(envelope.physical_ms);
    let left = Duration::from_millis(known_age.map_or(0, |_| ttl_ms.min(envelope.physical_ms)));
    let longest = node.settings.max_lifetime;
    let left = if options.sliding && !left.is_zero() { longest } else { left.min(longest) };
    let now = stamp.at;
    let created = now.as_nanos().saturating_sub(age_ms.saturating_mul(1_000_000));
    let fresh = Duration::from_millis(envelope.logical_ms.saturating_sub(age_ms));
    let most = options.l1_duration.unwrap_or(Duration::MAX);
    let deadlines = Deadlines {
        created: Moment::from_nanos(created),
        logical: now + fresh.min(most).min(left),
        physical: now + left,
    };
    let took = Duration::from_micros(envelope.took_us);
    let mut flags = EntryFlags::new(options, deadlines, took, false);
    if envelope.physical_ms > envelope.logical_ms {
        // The writer stored it with fail-safe.
        flags.keep_to_the_end();
    }
    let stamp = Stamp { epoch: envelope.epoch, frontier: envelope.stamp, generation: 0, ..stamp };
    let tags = node.coherence.intern(envelope.tags.iter().copied());
    let (key, version) = (envelope.key, envelope.version);
    let mut meta = Meta::new(key, version, tags, stamp, deadlines, flags, envelope.weight);
    meta.validators = Validators {
        etag: envelope.etag.map(Into::into),
        last_modified: envelope.last_modified.map(Into::into),
    }
    .boxed();
    meta
}
