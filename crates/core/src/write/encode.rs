//! Encodes an entry as a record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::millis;
use crate::entry::{Entry, RecordTtls, Value};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::l2::Record;
use crate::l2::record::Envelope;
use crate::node::Coded;

/// Encodes an entry, or returns why L2 cannot hold it. `displaces`: it replaces a record that this
/// node cannot use.
pub(crate) fn encode<T: Value>(
    node: &Coded<T>,
    entry: &Entry<T>,
    deadlines: RecordTtls,
    took: Duration,
    displaces: bool,
) -> Result<Record, Error> {
    let meta = &entry.meta;
    let payload = payload(node, entry).inspect_err(|error| {
        let event = |key| Event::Unencodable { key, error: error.clone() };
        node.note(&node.counters.l2_unencodable, &meta.key, event);
    })?;
    meta.grow(payload.len());
    let (compression, payload) = node.settings.compression.apply(payload);
    let physical_ms = millis(deadlines.physical).max(1);
    let validators = meta.validators.as_deref();
    let envelope = Envelope {
        version: meta.version,
        expired: false,
        epoch: meta.epoch(),
        stamp: meta.frontier(),
        logical_ms: millis(deadlines.logical).max(1),
        physical_ms,
        schema: node.codec.schema(),
        codec: node.codec_id,
        compression,
        key: &meta.key,
        weight: meta.weight,
        etag: validators.and_then(|v| v.etag.as_deref()),
        last_modified: validators.and_then(|v| v.last_modified.as_deref()),
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        tags: meta.tags.iter().map(|tag| tag.name()).collect(),
        displaced: displaces,
        payload: &payload,
    };
    Ok(Record { bytes: envelope.encode(), ttl_ms: physical_ms })
}

fn payload<T: Value>(node: &Coded<T>, entry: &Entry<T>) -> Result<Bytes, Error> {
    let place = || node.place(Some(&entry.meta.key));
    let encoded = catch_unwind(AssertUnwindSafe(|| node.codec.encode(&entry.value)))
        .unwrap_or_else(|_| Err("the codec panicked".into()));
    let payload: Bytes =
        encoded.map_err(|error| Error::with_source(ErrorKind::Codec, place(), "", error))?;
    let (len, most) = (payload.len(), node.settings.max_value_bytes);
    if len > most {
        let what = format!("it has {len} bytes encoded, and max_value_bytes is {most}");
        return Err(Error::new(ErrorKind::TooLarge, place(), what));
    }
    Ok(payload)
}
