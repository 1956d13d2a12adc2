//! From a record's bytes to an entry, or a counted miss.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::probe::judge_record;
use super::unread::Reason;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{Deadlines, Entry, EntryFlags, Meta, Shared, Stamp, Validators};
use crate::l2::compression::expand;
use crate::l2::record::{self, Envelope};
use crate::l2::{Codec, Found};
use crate::options::EntryOptions;
use crate::protocol::Version;
use crate::protocol::record::Head;
use crate::protocol::validity::Verdict;

/// A record as an entry, with what its version is even if the value is of no use.
#[derive(Debug)]
pub(crate) enum ReadInto<T> {
    /// A value of this type under this key.
    Entry(Arc<Entry<T>>),
    /// A record in good order, which nothing hides and this node cannot use; others may.
    Foreign(Foreign),
    /// A record that is of no use to anybody: another key, broken bytes, or one that is hidden.
    Unusable(Option<Version>),
}

/// A record that others may be able to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    pub(crate) version: Version,
    /// It holds a value of another type.
    pub(crate) other_type: bool,
    /// It is left as it is: it has replaced a record that its writer could not use, and a node that
    /// replaced it in turn would start a fight. Or it is too large to be looked at.
    pub(crate) leave: bool,
}

/// Decodes what a READ that began at `stamp` found. A copy that L1 already holds in this version is
/// verified and used again instead.
pub(crate) fn decode<T, C: Codec<T>>(
    inner: &Inner<C>,
    call: &Call,
    found: &Found,
    stamp: Stamp,
    local: Option<&Arc<Entry<T>>>,
) -> ReadInto<T> {
    let key = &*call.key;
    // A copy that a late message marked, or that was given a short life, is less than a fresh record.
    let stale = record::is_stale(&found.bytes, found.ttl_ms);
    let head = record::head(&found.bytes).map(Head::version);
    if found.bytes.len() > inner.settings.max_value_bytes.saturating_add(1 << 20) {
        let beside = local.filter(|e| e.meta.beside && head == Some(e.meta.version));
        if let Some(entry) = beside.filter(|e| !stale && is_alive(inner, e)) {
            return verified(inner, entry, stamp);
        }
        inner.unread(key, Reason::TooLarge);
        let foreign = |version| Foreign { version, other_type: false, leave: true };
        return head
            .map_or(ReadInto::Unusable(None), |version| ReadInto::Foreign(foreign(version)));
    }
    let Some(envelope) = Envelope::decode(&found.bytes) else {
        inner.unread(key, Reason::Damaged);
        return ReadInto::Unusable(head);
    };
    // Above every barrier that is to come, it would survive all removals.
    if envelope.epoch == stamp.epoch && inner.node.is_unacknowledged(envelope.stamp, inner.now()) {
        inner.unread(key, Reason::Unissued);
        return ReadInto::Unusable(Some(envelope.version));
    }
    let same = |e: &Entry<T>| e.meta.version == envelope.version;
    // An expired copy is kept as well: it knows until when its factory is left alone.
    let expired = envelope.expired || inner.recovery.own.is_of(call.hash, envelope.version);
    let replaceable = stale || expired;
    let of_use = |e: &Entry<T>| {
        if e.meta.beside {
            !replaceable && is_alive(inner, e)
        } else {
            replaceable || is_alive(inner, e)
        }
    };
    if let Some(entry) = local.filter(|e| same(e) && of_use(e)) {
        if envelope.expired {
            entry.meta.expire();
        }
        return verified(inner, entry, stamp);
    }
    let (value, len) = match value(inner, key, &envelope, found) {
        Ok(value) => value,
        Err(reason) => {
            let meta = meta(inner, &envelope, found.ttl_ms, stamp, &call.options);
            return unread(inner, key, &envelope, &meta, reason);
        }
    };
    let expired = envelope.expired;
    let meta = meta(inner, &envelope, found.ttl_ms, stamp, &call.options);
    meta.grow(len);
    if expired {
        meta.expire();
    }
    ReadInto::Entry(Arc::new(Entry { meta, value: Shared::Own(value) }))
}

fn is_alive<T, C>(inner: &Inner<C>, entry: &Entry<T>) -> bool {
    !entry.meta.is_expired() && inner.now() < entry.meta.logical()
}

/// L2 still holds what a copy is of, or stands beside.
fn verified<T, C>(inner: &Inner<C>, entry: &Arc<Entry<T>>, stamp: Stamp) -> ReadInto<T> {
    entry.meta.verify(stamp);
    inner.counters.l1_verified.add();
    ReadInto::Entry(Arc::clone(entry))
}

/// A sound record that this node cannot use.
fn unread<T, C>(
    inner: &Inner<C>,
    key: &str,
    envelope: &Envelope<'_>,
    meta: &Meta,
    reason: Reason,
) -> ReadInto<T> {
    let version = envelope.version;
    let verdict = judge_record(inner, key, meta);
    let hidden = matches!(verdict, Verdict::Hidden(_));
    // What is hidden is no news of another deployment.
    if !(hidden && reason == Reason::OtherType) {
        inner.unread(key, reason);
    }
    if hidden || reason == Reason::OtherKey {
        return ReadInto::Unusable(Some(version));
    }
    let (other_type, leave) = (reason == Reason::OtherType, envelope.displaced);
    ReadInto::Foreign(Foreign { version, other_type, leave })
}

/// The value, and how many bytes it has encoded.
fn value<T, C: Codec<T>>(
    inner: &Inner<C>,
    key: &str,
    envelope: &Envelope<'_>,
    found: &Found,
) -> Result<(T, usize), Reason> {
    match envelope {
        Envelope { key: of, .. } if *of != key => return Err(Reason::OtherKey),
        Envelope { schema, .. } if *schema != inner.codec.schema() => {
            return Err(Reason::OtherType);
        }
        Envelope { codec, .. } if *codec != inner.codec_id => return Err(Reason::OtherCodec),
        _ => {}
    }
    let stored = found.bytes.slice_ref(envelope.payload);
    catch_unwind(AssertUnwindSafe(|| {
        let plain = expand(envelope.compression, stored, inner.settings.max_value_bytes)
            .ok_or(Reason::Compression)?;
        let value = inner.codec.decode(&plain).map_err(|_| Reason::Undecodable)?;
        Ok((value, plain.len()))
    }))
    .unwrap_or(Err(Reason::Undecodable))
}

/// What is known of a record, for a copy that a call with these options makes.
pub(super) fn meta<C>(
    inner: &Inner<C>,
    envelope: &Envelope<'_>,
    ttl_ms: u64,
    stamp: Stamp,
    options: &EntryOptions,
) -> Meta {
    // What the store says is left is bounded by what the record was stored with, and this cache keeps no copy
    // for longer than its own limit. How old the record may be is its writer's choice: the ledger keeps what
    // hides it for the longest of all nodes.
    let known_age = record::age_ms(envelope.physical_ms, ttl_ms);
    let age_ms = known_age.unwrap_or(envelope.physical_ms);
    let left = Duration::from_millis(known_age.map_or(0, |_| ttl_ms.min(envelope.physical_ms)));
    let longest = inner.settings.max_lifetime;
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
        // It was stored with fail-safe.
        flags.keep_to_the_end();
    }
    let stamp = Stamp { epoch: envelope.epoch, frontier: envelope.stamp, generation: 0, ..stamp };
    let tags = inner.node.intern(envelope.tags.iter().copied());
    let (key, version) = (envelope.key, envelope.version);
    let mut meta = Meta::new(key, version, tags, stamp, deadlines, flags, envelope.weight);
    meta.validators = Validators {
        etag: envelope.etag.map(Into::into),
        last_modified: envelope.last_modified.map(Into::into),
    }
    .boxed();
    meta
}
