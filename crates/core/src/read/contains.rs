//! Checks whether a key has a fresh value, without returning it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Call;
use super::judge::{Asked, may_ask};
use super::probe::REREADS;
use super::verify::{check_one, is_caught_up};
use crate::background::ensure_runtime_runs;
use crate::background::sweep::drop_dead;
use crate::error::Error;
use crate::flight::checks::Checked;
use crate::l2::record::{Envelope, is_stale};
use crate::node::Node;
use crate::protocol::validity::Verdict;
use crate::read::catch_up::{AskLedger, beside};

/// Whether a fresh value of any type is in L1 or L2.
pub(crate) async fn contains(node: &Arc<Node>, call: Call) -> Result<bool, Error> {
    node.check_open(Some(&call.key))?;
    call.options.validate(&node.place(Some(&call.key)))?;
    let options = &call.options;
    let judged = || {
        let erased = node.l1.get(call.hash, &call.key).filter(|_| !options.skip_l1_read)?;
        Some((node.coherence.judge(erased.meta(), node.now()), erased))
    };
    // Without L2, L1 is the only source: there is nothing to verify it against.
    let strict = options.strict && node.l2.is_some();
    if !strict && matches!(judged(), Some((Verdict::Fresh, _))) {
        return Ok(true);
    }
    if options.skip_l2_read {
        return Ok(false);
    }
    ensure_runtime_runs(node).await;
    // One limit covers all requests to L2.
    let (limit, asked) = (options.l2_hard_timeout, Instant::now());
    let left = || limit.saturating_sub(asked.elapsed());
    match judged() {
        Some((Verdict::Fresh, _)) if !strict => return Ok(true),
        Some((Verdict::Fresh | Verdict::Unverified, erased)) => {
            match check_one(node, erased, left(), strict).await {
                Checked::Same => return Ok(true),
                Checked::Failed => return unanswered(node, &call),
                Checked::Other => {}
            }
        }
        Some((Verdict::Hidden(_), _)) => drop_dead(node, call.hash),
        _ => {}
    }
    for _ in 0..=REREADS {
        match in_l2(node, &call, left).await {
            // A resync started during the read: read again.
            Ok(Some(Verdict::Unverified)) => {}
            Ok(verdict) => return Ok(verdict == Some(Verdict::Fresh)),
            Err(NoAnswer) => break,
        }
    }
    unanswered(node, &call)
}

fn unanswered(node: &Node, call: &Call) -> Result<bool, Error> {
    match call.options.require_l2 && node.records().is_some() {
        true => Err(node.l2_required(&call.key)),
        false => Ok(false),
    }
}

/// L2 did not answer, or this node cannot judge the answer.
struct NoAnswer;

/// The verdict on the record in L2; `None` if there is no usable one.
async fn in_l2(
    node: &Node,
    call: &Call,
    left: impl Fn() -> Duration + Send + Sync,
) -> Result<Option<Verdict>, NoAnswer> {
    let Some(l2) = node.records().filter(|_| node.enabled) else { return Ok(None) };
    let may_ask = may_ask(node, l2, &call.key, left()).await;
    let limit = left();
    if !may_ask || limit.is_zero() {
        return Err(NoAnswer);
    }
    let asked = Asked::now(node, &call.key);
    let read = l2.read(&call.key, None, limit);
    let (read, mark) = beside(node, l2, AskLedger::own_if(call.options.strict), limit, read).await;
    let Some(found) = read.map_err(|_| NoAnswer)?.found else { return Ok(None) };
    if !is_caught_up(node, mark, left()).await {
        return Err(NoAnswer);
    }
    let envelope = Envelope::decode(&found.bytes).filter(|e| e.key == &*call.key);
    let fresh = |e: &Envelope<'_>| !e.expired && !is_stale(&found.bytes, found.ttl_ms);
    let Some(envelope) = envelope.filter(fresh) else { return Ok(None) };
    let meta = super::decode::meta(node, &envelope, found.ttl_ms, asked.stamp, &call.options);
    Ok(Some(asked.judge(node, &call.key, &meta)))
}
