//! Compares the writes of the last seconds with L2 once another primary answers.

use tokio::time::Instant;

use crate::clock::Moment;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::node::Node;
use crate::protocol::commits;
use crate::protocol::record::Head;
use crate::recovery::{KeyWrites, Queued};
use crate::server::ReplicationId;
use crate::telemetry::TARGET;

/// How many records one round trip compares.
const PAGE: usize = 256;

/// Asks the servers for their replication ids; `None` if these do not matter now.
pub(crate) async fn ask(node: &Node, l2: &Access) -> Option<Vec<ReplicationId>> {
    if !l2.holds_records() || !node.recovery.recent_writes.wants_replication_ids() {
        return None;
    }
    Some(l2.replication_ids(node.l2_limit()).await)
}

/// Compares this node's recent writes with L2 if a failover may have lost them, and queues an
/// invalidation of each old value that came back.
///
/// `asked` is when the `SYNC` was sent that L2 has answered. It starts nothing after half a poll,
/// and takes no more than the queue has room for: the next call compares the rest. `None` if
/// nothing was compared, else whether something is left for which there will be room.
pub(crate) async fn reassert(
    node: &Node,
    l2: &Access,
    asked: Moment,
    replication_ids: Vec<ReplicationId>,
) -> Option<bool> {
    let recent_writes = &node.recovery.recent_writes;
    let observed = recent_writes.observe(replication_ids, asked, node.now())?;
    if recent_writes.any_is_silent() {
        let forgotten = observed.forgotten.into_iter().map(|(key, commit)| (key, vec![commit]));
        drop(leave_silent(node, l2, forgotten.collect()));
    }
    forgot(node, observed.missed);
    // The time counts from here: a server that did not answer has taken its whole timeout.
    let (until, mut any) = (Instant::now() + node.settings.poll / 2, false);
    while Instant::now() < until {
        let page = recent_writes.take(PAGE.min(node.recovery.room()));
        if page.is_empty() {
            break;
        }
        any = true;
        compare(node, l2, asked, leave_silent(node, l2, page)).await;
    }
    any.then(|| !recent_writes.is_done())
}

/// Sets aside the writes of servers that do not answer; returns the rest.
fn leave_silent(node: &Node, l2: &Access, page: Vec<KeyWrites>) -> Vec<KeyWrites> {
    let recent_writes = &node.recovery.recent_writes;
    if !recent_writes.any_is_silent() {
        return page;
    }
    let answers = |key_writes: &KeyWrites| {
        let server = l2.server_of(&key_writes.0);
        let silent = recent_writes.is_silent(&server);
        if silent {
            forgot(node, recent_writes.set_aside(server, key_writes));
        }
        !silent
    };
    page.into_iter().filter(answers).collect()
}

/// Counts and reports writes that should be compared and are not remembered (R4).
fn forgot(node: &Node, count: u64) {
    if count == 0 {
        return;
    }
    node.counters.reassert_forgotten.add_many(count);
    let cache = &*node.name;
    tracing::warn!(
        target: TARGET, cache, server = node.telemetry.l2_server.as_deref(), count,
        "another primary of L2 may have lost writes of the last seconds, and this node has written more than it \
         remembers; keys that it has forgotten may serve their old values until they are written again or expire. \
         call `expire_all` if that is not acceptable"
    );
}

async fn compare(node: &Node, l2: &Access, asked: Moment, page: Vec<KeyWrites>) {
    let recent_writes = &node.recovery.recent_writes;
    let heads = heads(node, l2, &page).await;
    for (key_writes, head) in page.into_iter().zip(heads) {
        let (key, commits) = &key_writes;
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(%error, "cannot compare recent writes with L2");
                forgot(node, recent_writes.set_aside(l2.server_of(key), &key_writes));
                continue;
            }
        };
        let Some(strength) = commits::reassert(commits, head) else { continue };
        if recent_writes.is_newest(&key_writes) {
            node.counters.reasserted.add();
            let version = node.entropy.version();
            node.queue(key, Queued { strength, version, not_before: asked });
        }
    }
}

/// The heads of these keys. A key that holds foreign data has no head.
async fn heads(node: &Node, l2: &Access, page: &[KeyWrites]) -> Vec<Result<Option<Head>, L2Error>> {
    let limit = node.l2_limit();
    let heads = l2.read_heads(page.iter().map(|(key, _)| &**key), limit).await.into_iter();
    let foreign = |error: L2Error| match error.kind() {
        L2ErrorKind::Foreign => Ok(None),
        _ => Err(error),
    };
    heads.map(|head| head.or_else(foreign)).collect()
}
