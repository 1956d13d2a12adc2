//! The calls about one record, and their telemetry: a span, a timing, an error count.

use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use tokio::time::timeout;
use tracing::Instrument;

use super::{Access, Call, timed_out};
use crate::l2::change::Change;
use crate::l2::{Announce, L2Error, L2ErrorKind, Read};
use crate::protocol::record::{LoadLock, LoadLockRequest, Put};
use crate::protocol::{KeyHash, Version};
use crate::telemetry::{Op, spans};

impl Access {
    /// Reads a record. With `ask`, it sets or reports a load lock in the same step.
    pub(crate) async fn read(
        &self,
        key: &str,
        ask: Option<LoadLockRequest>,
        limit: Duration,
    ) -> Result<Read, L2Error> {
        let record_key = self.record_key(key);
        let call = self.store().read(&record_key, ask);
        let read = self.on(Op::Read, key, &record_key, limit, call).await;
        self.count_load_locks(Op::Read, [(ask, read.as_ref().ok())]);
        read
    }

    /// Changes a record. `Refused` if a `Put` found another version.
    pub(crate) async fn change(
        &self,
        key: &str,
        change: Change,
        announce: Option<Announce>,
        limit: Duration,
    ) -> Result<Put, L2Error> {
        let (op, notice, is_announced) = (change.op(), change.notice(), announce.is_some());
        let record_key = self.record_key(key);
        let (store, at) = (self.store(), &*record_key);
        let call = match change {
            Change::Set(record, deadline) => stored(store.set(at, record, deadline, announce)),
            Change::Put(expected, record) => store.put(at, expected, record, announce),
            Change::Remove => stored(store.remove(at, announce)),
            Change::Expire(version) => stored(store.expire(at, version, announce)),
        };
        let changed = self.on(op, key, at, limit, call).await;
        if is_announced && matches!(changed, Ok(Put::Stored)) {
            self.telemetry.published(notice);
        }
        changed
    }

    /// Releases a load lock.
    pub(crate) async fn release(
        &self,
        key: &str,
        load_lock: Version,
        limit: Duration,
    ) -> Result<(), L2Error> {
        let record_key = self.record_key(key);
        let call = self.store().release(&record_key, load_lock);
        self.on(Op::Release, key, &record_key, limit, call).await
    }

    /// Extends a load lock; false if another load has it.
    pub(crate) async fn renew(
        &self,
        key: &str,
        load_lock: Version,
        ttl_ms: u64,
        limit: Duration,
    ) -> Result<bool, L2Error> {
        let record_key = self.record_key(key);
        let call = self.store().renew(&record_key, load_lock, ttl_ms);
        self.on(Op::Renew, key, &record_key, limit, call).await
    }

    /// Makes a call on a key's record.
    async fn on<R>(
        &self,
        op: Op,
        key: &str,
        record_key: &str,
        limit: Duration,
        call: Call<'_, R>,
    ) -> Result<R, L2Error> {
        let result = self.bounded(op, record_key, limit, call).await;
        self.news(|| [KeyHash::of(key)]);
        result
    }

    /// Makes a call with a time limit, a span, a timing and an error count.
    pub(super) async fn timed<R>(
        &self,
        op: Op,
        limit: Duration,
        call: impl Future<Output = Result<R, L2Error>> + Send,
    ) -> Result<R, L2Error> {
        let _timing = self.telemetry.meters.l2(op).time(&*self.telemetry.clock);
        let span = spans::l2(&self.telemetry.cache, op);
        let result = timeout(limit, call.instrument(span.clone())).await;
        let result = result.unwrap_or_else(|_| Err(timed_out(limit)));
        match &result {
            Ok(_) => self.telemetry.l2_succeeded(op, matches!(op, Op::Put | Op::Set)),
            Err(error) => {
                span.record("error", tracing::field::display(error));
                self.telemetry.l2_refused(op, error);
            }
        }
        result
    }

    /// Reports the result of load lock requests. A full store answers without storing the lock, so
    /// that hits continue; this counts as a failed operation.
    pub(super) fn count_load_locks<'r>(
        &self,
        op: Op,
        reads: impl IntoIterator<Item = (Option<LoadLockRequest>, Option<&'r Read>)>,
    ) {
        let (mut granted, mut refused) = (false, false);
        for (ask, read) in reads {
            let (Some(_), Some(read)) = (ask, read) else { continue };
            granted |= read.load_lock == LoadLock::Granted;
            refused |= read.load_lock == LoadLock::None && read.found.is_none();
        }
        if refused {
            let error = L2Error::new(L2ErrorKind::Full, "it did not store the load lock");
            self.telemetry.l2_failed(&error);
            self.telemetry.l2_refused(op, &error);
        } else if granted {
            self.telemetry.l2_succeeded(op, true);
        }
    }
}

/// The reply to a change that L2 always applies.
fn stored(call: Call<'_, ()>) -> Call<'_, Put> {
    call.map_ok(|()| Put::Stored).boxed()
}
