//! Removals by tag, and clears: each takes one number, however much it hides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::key::in_background;
use crate::coherence::{AT_ONCE, Sending};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::node::{Node, Relayed};
use crate::options::EntryOptions;
use crate::protocol::ledger::{
    Advance, Authority, MAX_TARGETS, Removal, Strength, SyncAsk, Target,
};
use crate::protocol::{Nonce, TagHash};
use crate::receipt::{Receipt, WriteStatus};
use crate::token::Token;

/// How many more barriers than its own ledger a node without L2 may keep.
const SLACK: usize = 4096;

/// Hides every entry that carries one of the tags.
pub(crate) async fn by_tags(
    node: &Arc<Node>,
    strength: Strength,
    tags: &[String],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    tags.iter().try_for_each(|tag| node.check_tag(tag))?;
    node.counters.tag_removals.add();
    let hard = strength == Strength::Hard;
    node.telemetry.emit(|| Event::RemoveByTag { tags: node.telemetry.tags(tags), hard });
    node.relay(|| Relayed::Tags(tags.to_vec(), strength));
    let all = targets(tags);
    if !is_write_behind(node, options) {
        return named(node, tags, targets_of(node, strength, &all, options)).await;
    }
    let (node, tags, options) = (Arc::clone(node), tags.to_vec(), options.clone());
    in_background(&Arc::clone(&node), async move {
        drop(named(&node, &tags, targets_of(&node, strength, &all, &options)).await);
    })
}

/// Remembers the names of the tags, for messages, if their removal waits.
async fn named(
    node: &Node,
    tags: &[String],
    removal: impl Future<Output = Result<Receipt, Error>> + Send,
) -> Result<Receipt, Error> {
    let receipt = removal.await;
    if !matches!(&receipt, Ok(receipt) if receipt.token().is_some()) {
        tags.iter().for_each(|tag| node.recovery.name_tag(TagHash::of(tag), tag));
    }
    receipt
}

/// Whether the caller does not wait for the number.
fn is_write_behind(node: &Node, options: &EntryOptions) -> bool {
    super::key::is_write_behind(node, options) && node.l2.is_some()
}

/// Hides every entry of the cache.
pub(crate) async fn clear(
    node: &Arc<Node>,
    strength: Strength,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    node.counters.clears.add();
    node.telemetry.emit(|| Event::Clear { hard: strength == Strength::Hard });
    node.relay(|| Relayed::Everything(strength));
    let receipt = if is_write_behind(node, options) {
        let (owner, options) = (Arc::clone(node), options.clone());
        in_background(node, async move {
            drop(targets_of(&owner, strength, &[Target::Everything], &options).await);
        })
    } else {
        targets_of(node, strength, &[Target::Everything], options).await
    };
    if strength == Strength::Hard {
        // No entry in L1 is valid any more: free the memory.
        node.l1.clear();
    }
    receipt
}

/// The ledger's targets for these tags.
pub(crate) fn targets(tags: &[String]) -> Vec<Target> {
    tags.iter().map(|tag| Target::Tag(TagHash::of(tag))).collect()
}

/// A removal of this node that has not begun.
pub(crate) fn new(node: &Node, strength: Strength, targets: Vec<Target>) -> Removal {
    Removal { nonce: node.entropy.nonce(), strength, targets }
}

/// Begins removals: they apply on this node from now on. A poll numbers those that no call numbers
/// first.
pub(crate) fn begin(node: &Node, strength: Strength, targets: &[Target]) -> Vec<Removal> {
    begin_all(node, parts(node, strength, targets))
}

fn parts(node: &Node, strength: Strength, targets: &[Target]) -> Vec<Removal> {
    let part = |part: &[Target]| new(node, strength, part.to_vec());
    targets.chunks(MAX_TARGETS).map(part).collect()
}

fn begin_all(node: &Node, parts: Vec<Removal>) -> Vec<Removal> {
    parts.into_iter().map(|part| node.coherence.begin(part)).collect()
}

async fn targets_of(
    node: &Node,
    strength: Strength,
    targets: &[Target],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    if !node.enabled {
        return Ok(Receipt::local());
    }
    // Every part applies locally before the first is sent.
    let parts = parts(node, strength, targets);
    let nonces = parts.iter().map(|part| part.nonce).collect();
    let limit = options.l2_hard_timeout;
    let _sending = node.l2.as_ref().map(|_| sending(node, nonces, limit));
    // Concurrent sends: a server that does not answer costs one timeout, however many parts there
    // are.
    let bus_timed_out = AtomicBool::new(false);
    let removals = begin_all(node, parts).into_iter();
    let commits = removals.map(|removal| commit(node, removal, options, &bus_timed_out));
    let mut results = stream::iter(commits).buffered(AT_ONCE);
    let (mut all, mut covered, mut epoch) = (Ok(Receipt::local()), true, None);
    while let Some(one) = results.next().await {
        let number = one.as_ref().ok().and_then(Receipt::token);
        // Numbers of two ledgers have no order: the first ledger was lost in between.
        covered &= number.is_some_and(|number| *epoch.get_or_insert(number.epoch) == number.epoch);
        all = all.and_then(|all| Ok(all.and(one?)));
    }
    // A token covers all parts, or the receipt has none.
    all.map(|all| if covered { all } else { all.without_token() })
}

/// Commits one part. `bus_timed_out`: another part has used up the time for the backplane.
async fn commit(
    node: &Node,
    removal: Removal,
    options: &EntryOptions,
    bus_timed_out: &AtomicBool,
) -> Result<Receipt, Error> {
    let Some(l2) = &node.l2 else { return Ok(commit_locally(node, removal)) };
    let (circuit_open, limit) = (l2.is_ledger_open(), options.l2_hard_timeout);
    let mut patience = if bus_timed_out.load(Ordering::Relaxed) { Duration::ZERO } else { limit };
    let numbered = number(node, l2, removal, limit, &mut patience).await;
    if patience.is_zero() {
        bus_timed_out.store(true, Ordering::Relaxed);
    }
    match numbered {
        Ok(receipt) if options.require_propagation && !receipt.is_propagated() => {
            let what = "it holds on this node and L2 has it, but its notification may be lost";
            Err(Error::new(ErrorKind::NotPropagated, node.place(None), what))
        }
        Ok(receipt) => Ok(receipt),
        Err(error) => {
            node.counters.queued.add();
            if node.closing.is_cancelled() {
                let what = "the removal was applied locally but could not be sent to L2";
                return Err(Error::with_source(ErrorKind::Closed, node.place(None), what, error));
            }
            if options.require_propagation {
                let what = "the removal is queued and holds on this node";
                let place = node.place(None);
                return Err(Error::with_source(ErrorKind::NotPropagated, place, what, error));
            }
            let unknown = error.is_unknown() && !circuit_open;
            let status = if unknown { WriteStatus::Unknown } else { WriteStatus::Queued };
            Ok(Receipt::new(status, if node.bus.is_some() { status } else { WriteStatus::Skipped }))
        }
    }
}

/// Requests the ledger's number for a removal that has begun here. A failed attempt may have its
/// number all the same, so another attempt needs another nonce. `patience` is how long the bus may
/// take; the call subtracts the time that it waits.
pub(crate) async fn number(
    node: &Node,
    l2: &Access,
    removal: Removal,
    limit: Duration,
    patience: &mut Duration,
) -> Result<Receipt, L2Error> {
    let ask = advance(node, removal.clone());
    // While the circuit breaker is open nothing is sent, so no message may take a sequence number.
    let bus = node.bus.as_ref().filter(|_| !l2.is_ledger_open());
    let (seq, announce) = bus.and_then(|bus| bus.announce_removal(&removal)).unzip();
    let numbers = l2.advance(&ask, announce, limit).await;
    if let (Err(error), Some(bus), Some(seq)) = (&numbers, bus, seq)
        && !error.is_unknown()
    {
        spend(patience, |left| bus.void(seq, left)).await;
    }
    let numbers = numbers?;
    node.check_number(node.coherence.committed(removal.clone(), numbers));
    let backplane = match &node.bus {
        None => WriteStatus::Skipped,
        Some(bus) => {
            let publish = |left| bus.publish_removal(&removal, seq, numbers, left);
            if spend(patience, publish).await.is_ok() {
                WriteStatus::Done
            } else {
                WriteStatus::Unknown
            }
        }
    };
    let token = Token { epoch: numbers.epoch, seq: numbers.seq };
    Ok(Receipt::new(WriteStatus::Done, backplane).with_token(token))
}

/// Runs a call and subtracts its duration from the time left.
async fn spend<R, F: Future<Output = R>>(
    left: &mut Duration,
    call: impl FnOnce(Duration) -> F,
) -> R {
    let began = Instant::now();
    let result = call(*left).await;
    *left = left.saturating_sub(began.elapsed());
    result
}

fn commit_locally(node: &Node, removal: Removal) -> Receipt {
    let ask = advance(node, removal.clone());
    let numbers = {
        let mut ledger = node.own_ledger.lock();
        let numbers = ledger.advance(own_clock(node), &ask);
        // Under the same lock, so that the replica receives the numbers in order.
        node.coherence.committed(removal, numbers);
        if node.coherence.known().barriers > ledger.len() + SLACK {
            compare_locally(node, &mut ledger);
        }
        numbers
    };
    Receipt::local().with_token(Token { epoch: numbers.epoch, seq: numbers.seq })
}

/// Starts the ledger of a cache without L2.
pub(crate) fn begin_locally(node: &Node) {
    compare_locally(node, &mut node.own_ledger.lock());
}

/// Compares the replica with the local ledger. The node then folds and forgets what the ledger has
/// folded and forgotten.
fn compare_locally(node: &Node, ledger: &mut Authority) {
    let ask: SyncAsk = node.coherence.ask(node.entropy.epoch(), usize::MAX, node.retention_ms());
    let reply = ledger.sync(own_clock(node), &ask);
    let _ = node.coherence.synced(&reply, || node.entropy.nonce());
}

pub(crate) fn advance(node: &Node, removal: Removal) -> Advance {
    let known = node.coherence.known();
    Advance {
        removal,
        epoch: known.epoch,
        frontier: known.highest,
        new_epoch: node.entropy.epoch(),
        retention_ms: node.retention_ms(),
    }
}

fn own_clock(node: &Node) -> u64 {
    node.now().as_nanos() / 1000
}

/// Begins a call that sends these removals, so that no poll sends them as well.
pub(crate) fn sending(node: &Node, nonces: Vec<Nonce>, limit: Duration) -> Sending<'_> {
    Sending::begin(&node.coherence.sending, &*node.clock, nonces, limit)
}
