//! The writes of the last seconds are compared with L2 once another primary answers.

use tokio::time::Instant;

use super::Queued;
use super::recent_writes::KeyWrites;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::l2::access::{Access, ReplicationId};
use crate::l2::{L2Error, L2ErrorKind};
use crate::protocol::commits;
use crate::protocol::record::Head;
use crate::telemetry::TARGET;

/// How many records are compared in one round trip.
const PAGE: usize = 256;

/// Asks the servers which history of writes they are in; `None` if that does not matter.
pub(crate) async fn ask<C: Sync>(inner: &Inner<C>, l2: &Access) -> Option<Vec<ReplicationId>> {
    if !l2.holds_records() || !inner.recovery.recent_writes.wants_replication_ids() {
        return None;
    }
    Some(l2.replication_ids(inner.l2_limit()).await)
}

/// Compares what this node wrote recent_writes with what L2 holds, if a failover may have taken it back, and
/// queues an invalidation of what came back. `asked` is when the `SYNC` was sent that L2 has answered.
/// Begins nothing after half a poll, nor more than the queue has room for: the rest is compared next time.
/// `None` if nothing was compared, else whether something is left, and there will be room for it.
pub(crate) async fn reassert<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    asked: Moment,
    replication_ids: Vec<ReplicationId>,
) -> Option<bool> {
    let recent_writes = &inner.recovery.recent_writes;
    let met = recent_writes.observe(replication_ids, asked)?;
    if recent_writes.any_is_silent() {
        let forgotten = met.forgotten.into_iter().map(|(key, commit)| (key, vec![commit]));
        drop(leave_silent(inner, l2, forgotten.collect()));
    }
    forgot(inner, met.missed);
    // Counted from here: one that did not answer has taken its whole timeout.
    let (until, mut any) = (Instant::now() + inner.settings.poll / 2, false);
    while Instant::now() < until {
        let page = recent_writes.take(PAGE.min(inner.recovery.room()));
        if page.is_empty() {
            break;
        }
        any = true;
        compare(inner, l2, asked, leave_silent(inner, l2, page)).await;
    }
    any.then(|| !recent_writes.is_done())
}

/// Sets aside what is held by servers that do not answer; returns the rest.
fn leave_silent<C: Sync>(inner: &Inner<C>, l2: &Access, page: Vec<KeyWrites>) -> Vec<KeyWrites> {
    let recent_writes = &inner.recovery.recent_writes;
    if !recent_writes.any_is_silent() {
        return page;
    }
    let answers = |key_writes: &KeyWrites| {
        let server = l2.server_of(&key_writes.0);
        let silent = recent_writes.is_silent(&server);
        if silent {
            forgot(inner, recent_writes.set_aside(server, key_writes));
        }
        !silent
    };
    page.into_iter().filter(answers).collect()
}

/// Writes that should be compared are not remembered (R3).
fn forgot<C>(inner: &Inner<C>, count: u64) {
    if count == 0 {
        return;
    }
    inner.counters.reassert_forgotten.add_many(count);
    let cache = &*inner.name;
    tracing::warn!(
        target: TARGET, cache, server = inner.telemetry.l2_server.as_deref(), count,
        "another primary of L2 may have lost writes of the last seconds, and this node has written more than it \
         remembers; keys among those that it has forgotten may be answered as they were before, until they are \
         written again or their life is over. `clear` the cache if that cannot be"
    );
}

async fn compare<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment, page: Vec<KeyWrites>) {
    let recent_writes = &inner.recovery.recent_writes;
    let heads = heads(inner, l2, &page).await;
    for (key_writes, head) in page.into_iter().zip(heads) {
        let (key, commits) = &key_writes;
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(%error, "L2 could not be asked whether it still holds what was written");
                forgot(inner, recent_writes.set_aside(l2.server_of(key), &key_writes));
                continue;
            }
        };
        let Some(strength) = commits::reassert(commits, head) else { continue };
        if recent_writes.is_newest(&key_writes) {
            inner.counters.reasserted.add();
            let version = inner.entropy.version();
            inner.queue(key, Queued { strength, version, not_before: asked });
        }
    }
}

/// The heads of these keys; where something else is, there is no head.
async fn heads<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    page: &[KeyWrites],
) -> Vec<Result<Option<Head>, L2Error>> {
    let limit = inner.l2_limit();
    let heads = l2.read_heads(page.iter().map(|(key, _)| &**key), limit).await.into_iter();
    let foreign = |error: L2Error| match error.kind() {
        L2ErrorKind::Foreign => Ok(None),
        _ => Err(error),
    };
    heads.map(|head| head.or_else(foreign)).collect()
}
