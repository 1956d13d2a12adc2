//! From an entry to a record's bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::cache::Inner;
use crate::clock::{Moment, nanos};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::l2::record::Envelope;
use crate::l2::{Codec, Record};

/// Encodes an entry, or says why it has to stay in L1.
pub(crate) fn encode<T, C: Codec<T>>(inner: &Inner<C>, entry: &Entry<T>) -> Result<Record, Error> {
    let meta = &entry.meta;
    let place = || inner.place(Some(&meta.key));
    let encoded = catch_unwind(AssertUnwindSafe(|| inner.codec.encode(&entry.value)))
        .unwrap_or_else(|_| Err("the codec panicked".into()));
    let payload: Bytes =
        encoded.map_err(|error| Error::with_source(ErrorKind::Codec, place(), "", error))?;
    let (len, most) = (payload.len(), inner.settings.max_value_bytes);
    if len > most {
        let what = format!("it has {len} bytes encoded, and max_value_bytes is {most}");
        return Err(Error::new(ErrorKind::TooLarge, place(), what));
    }
    meta.grow(len);
    let physical_ms = millis_between(meta.created, meta.physical);
    let envelope = Envelope {
        version: meta.version,
        expired: false,
        epoch: meta.stamp.epoch,
        stamp: meta.stamp.frontier,
        logical_ms: millis_between(meta.created, meta.logical()),
        physical_ms,
        schema: inner.codec.schema(),
        codec: inner.codec_id,
        key: &meta.key,
        weight: meta.weight,
        tags: meta.tags.iter().map(|tag| tag.name()).collect(),
        payload: &payload,
    };
    Ok(Record { bytes: envelope.encode(), ttl_ms: physical_ms })
}

/// Milliseconds from one moment to a later one, at least one.
fn millis_between(from: Moment, to: Moment) -> u64 {
    (nanos(to.since(from)) / 1_000_000).max(1)
}
