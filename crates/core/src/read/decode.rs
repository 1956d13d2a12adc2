//! From a record's bytes to an entry, or a counted miss.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::probe::judge_record;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::entry::{Entry, Lives, Manner, Meta, Shared, Stamp, Validators};
use crate::events::Event;
use crate::l2::compression::expand;
use crate::l2::record::Envelope;
use crate::l2::{Codec, Found};
use crate::options::EntryOptions;
use crate::protocol::Version;
use crate::protocol::validity::Verdict;

/// A record as an entry, with what its version is even if the value is of no use.
#[derive(Debug)]
pub(crate) enum ReadInto<T> {
    /// A value of this type under this key.
    Entry(Arc<Entry<T>>),
    /// A value of another type, which nothing hides.
    OtherType(Version),
    /// A record whose value cannot be used: another key or codec, broken bytes, or another type that
    /// is hidden anyway.
    Unusable(Option<Version>),
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
    if found.bytes.len() > inner.settings.max_value_bytes.saturating_add(1 << 20) {
        undecodable(inner, key);
        return ReadInto::Unusable(None);
    }
    let Some(envelope) = Envelope::decode(&found.bytes) else {
        undecodable(inner, key);
        return ReadInto::Unusable(crate::l2::record::head(&found.bytes).map(|h| h.version()));
    };
    // Above every barrier that is to come, it would survive all removals.
    if envelope.epoch == stamp.epoch && inner.node.is_unheard_of(envelope.stamp, inner.now()) {
        undecodable(inner, key);
        return ReadInto::Unusable(Some(envelope.version));
    }
    // A copy that a late message marked, or that was given a short life, is less than a fresh record.
    let stale = crate::l2::record::is_stale(&found.bytes, found.ttl_ms);
    let alive = |e: &Entry<T>| !e.meta.is_expired() && inner.now() < e.meta.logical();
    let same = |e: &Entry<T>| e.meta.version == envelope.version;
    // An expired copy is kept as well: it knows until when its factory is left alone.
    let of_use = |e: &Entry<T>| stale || envelope.expired || alive(e);
    if let Some(entry) = local.filter(|e| same(e) && of_use(e)) {
        if envelope.expired {
            entry.meta.expire();
        }
        entry.meta.verify(stamp);
        inner.counters.l1_verified.add();
        return ReadInto::Entry(Arc::clone(entry));
    }
    if envelope.key == key && envelope.schema != inner.codec.schema() {
        let meta = meta(inner, &envelope, found.ttl_ms, stamp, &call.options);
        if let Verdict::Hidden(_) = judge_record(inner, key, &meta) {
            return ReadInto::Unusable(Some(envelope.version));
        }
        undecodable(inner, key);
        return ReadInto::OtherType(envelope.version);
    }
    let ours = envelope.key == key && envelope.codec == inner.codec_id;
    let value = if ours { value(inner, &envelope, found) } else { None };
    let Some((value, len)) = value else {
        undecodable(inner, key);
        return ReadInto::Unusable(Some(envelope.version));
    };
    let expired = envelope.expired;
    let meta = meta(inner, &envelope, found.ttl_ms, stamp, &call.options);
    meta.grow(len);
    if expired {
        meta.expire();
    }
    ReadInto::Entry(Arc::new(Entry { meta, value: Shared::Own(value) }))
}

fn undecodable<C>(inner: &Inner<C>, key: &str) {
    inner.note(&inner.counters.l2_undecodable, key, |key| Event::Undecodable { key });
}

/// The value, and how many bytes it has encoded.
fn value<T, C: Codec<T>>(
    inner: &Inner<C>,
    envelope: &Envelope<'_>,
    found: &Found,
) -> Option<(T, usize)> {
    let stored = found.bytes.slice_ref(envelope.payload);
    catch_unwind(AssertUnwindSafe(|| {
        let plain = expand(envelope.compression, stored, inner.settings.max_value_bytes)?;
        Some((inner.codec.decode(&plain).ok()?, plain.len()))
    }))
    .ok()
    .flatten()
}

/// What is known of a record, for a copy that a call with these options makes.
pub(super) fn meta<C>(
    inner: &Inner<C>,
    envelope: &Envelope<'_>,
    ttl_ms: u64,
    stamp: Stamp,
    options: &EntryOptions,
) -> Meta {
    let age_ms = envelope.physical_ms.saturating_sub(ttl_ms);
    let now = stamp.at;
    let created = now.as_nanos().saturating_sub(age_ms.saturating_mul(1_000_000));
    let fresh = Duration::from_millis(envelope.logical_ms.saturating_sub(age_ms));
    let most = options.l1_duration.unwrap_or(Duration::MAX);
    let left = Duration::from_millis(ttl_ms);
    let longest = if options.sliding { inner.settings.max_lifetime } else { Duration::ZERO };
    let lives = Lives {
        created: Moment::from_nanos(created),
        logical: now + fresh.min(most),
        physical: now + left.max(longest),
    };
    let took = Duration::from_micros(envelope.took_us);
    let manner = Manner::new(options, lives, took, false);
    let stamp = Stamp { epoch: envelope.epoch, frontier: envelope.stamp, generation: 0, ..stamp };
    let tags = inner.node.intern(envelope.tags.iter().copied());
    let (key, version) = (envelope.key, envelope.version);
    let mut meta = Meta::new(key, version, tags, stamp, lives, manner, envelope.weight);
    meta.validators = Validators {
        etag: envelope.etag.map(Into::into),
        last_modified: envelope.last_modified.map(Into::into),
    }
    .boxed();
    meta
}
