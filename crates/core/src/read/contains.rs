//! Whether there is a value, without having it.

use std::sync::Arc;

use super::Call;
use super::probe::synced;
use crate::cache::Inner;
use crate::entry::{Entry, Shared};
use crate::error::Error;
use crate::l2::record::{Envelope, is_stale};
use crate::protocol::validity::Verdict;

/// Whether a fresh value of any type is in L1 or L2.
pub(crate) async fn contains<C: Send + Sync>(inner: &Inner<C>, call: Call) -> Result<bool, Error> {
    call.options.validate(&inner.place(Some(&call.key)))?;
    let held = inner.l1.get(call.hash, &call.key);
    if held.is_some_and(|held| inner.node.judge(held.meta(), inner.now()) == Verdict::Fresh) {
        return Ok(true);
    }
    let limit = call.options.l2_hard_timeout;
    let Some(l2) = inner.records().filter(|l2| inner.enabled && !l2.is_open()) else {
        return Ok(false);
    };
    if !synced(inner, limit).await {
        return Ok(false);
    }
    let stamp = inner.node.stamp(inner.now());
    let read = l2.on(&call.key, limit, |store, key| store.read(key, None)).await;
    let Some(found) = read.ok().and_then(|read| read.found) else { return Ok(false) };
    let Some(envelope) = Envelope::decode(&found.bytes).filter(|e| e.key == &*call.key) else {
        return Ok(false);
    };
    let meta = super::decode::meta(inner, &envelope, found.ttl_ms, stamp, &call.options);
    if envelope.expired || is_stale(&found.bytes, found.ttl_ms) {
        return Ok(false);
    }
    let entry = Arc::new(Entry { meta, value: Shared::Own(()) });
    Ok(super::probe::judge_record(inner, &call.key, &entry.meta) == Verdict::Fresh)
}
