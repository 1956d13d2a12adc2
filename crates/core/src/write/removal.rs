//! Removals by tag, and clears: one number each, whatever they hide.

use super::{Barrier, Reach, Receipt};
use crate::cache::{Inner, Relayed};
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::options::EntryOptions;
use crate::protocol::TagHash;
use crate::protocol::ledger::{
    Advance, Authority, MAX_TARGETS, Removal, Strength, SyncAsk, Target,
};

/// How much more than its own ledger a node without L2 may keep.
const SLACK: usize = 4096;

/// Hides every entry that carries one of the tags.
pub(crate) async fn by_tags<C: Sync>(
    inner: &Inner<C>,
    strength: Strength,
    tags: &[String],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    tags.iter().try_for_each(|tag| inner.check_tag(tag))?;
    inner.counters.tag_removals.add();
    let hard = strength == Strength::Hard;
    inner.telemetry.tell(|| Event::RemoveByTag { tags: inner.telemetry.tags(tags), hard });
    inner.relay(|| Relayed::Tags(tags.to_vec(), strength));
    targets_of(inner, strength, &targets(tags), options).await
}

/// Hides every entry of the cache.
pub(crate) async fn clear<C: Sync>(
    inner: &Inner<C>,
    strength: Strength,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    inner.counters.clears.add();
    inner.telemetry.tell(|| Event::Clear { hard: strength == Strength::Hard });
    inner.relay(|| Relayed::Everything(strength));
    let receipt = targets_of(inner, strength, &[Target::Everything], options).await;
    if strength == Strength::Hard {
        // Nothing in L1 is valid any more; give the memory back.
        inner.l1.clear();
    }
    receipt
}

/// What the ledger calls the tags.
pub(crate) fn targets(tags: &[String]) -> Vec<Target> {
    tags.iter().map(|tag| Target::Tag(TagHash::of(tag))).collect()
}

/// A removal of this node, not begun yet.
pub(crate) fn new<C>(inner: &Inner<C>, strength: Strength, targets: Vec<Target>) -> Removal {
    Removal { nonce: inner.entropy.nonce(), strength, targets }
}

/// Removals that hold here from now on, and that a poll has numbered if nobody does before.
pub(crate) fn begin<C>(inner: &Inner<C>, strength: Strength, targets: &[Target]) -> Vec<Removal> {
    let begin = |part: &[Target]| inner.node.begin(new(inner, strength, part.to_vec()));
    targets.chunks(MAX_TARGETS).map(begin).collect()
}

async fn targets_of<C: Sync>(
    inner: &Inner<C>,
    strength: Strength,
    targets: &[Target],
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    if !inner.enabled {
        return Ok(Receipt::local());
    }
    // All of them hold here before the first is sent.
    let mut receipt = Receipt::local();
    for removal in begin(inner, strength, targets) {
        receipt = receipt.and(commit(inner, removal, options).await?);
    }
    Ok(receipt)
}

async fn commit<C: Sync>(
    inner: &Inner<C>,
    removal: Removal,
    options: &EntryOptions,
) -> Result<Receipt, Error> {
    let Some(l2) = &inner.l2 else { return Ok(commit_locally(inner, removal)) };
    let left_alone = l2.is_open();
    match number(inner, l2, removal, options.l2_hard_timeout).await {
        Ok(receipt) if options.require_propagation && !receipt.is_propagated() => {
            let what = "L2 has it, but its notification may be lost";
            Err(Error::new(ErrorKind::NotPropagated, inner.place(None), what))
        }
        Ok(receipt) => Ok(receipt),
        Err(error) => {
            inner.counters.l2_errors.add();
            inner.counters.queued.add();
            if inner.closing.is_cancelled() {
                let what = "the removal holds here, but nobody is left to tell L2";
                return Err(Error::with_source(ErrorKind::Closed, inner.place(None), what, error));
            }
            if options.require_propagation {
                let what = "the removal is queued and holds on this node";
                let place = inner.place(None);
                return Err(Error::with_source(ErrorKind::NotPropagated, place, what, error));
            }
            let unknown = error.is_unknown() && !left_alone;
            let reach = if unknown { Reach::Unknown } else { Reach::Queued };
            Ok(Receipt::new(reach, if inner.bus.is_some() { reach } else { Reach::Skipped }))
        }
    }
}

/// Has the ledger number a removal that has begun here; safe to repeat.
pub(crate) async fn number<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    removal: Removal,
    limit: std::time::Duration,
) -> Result<Receipt, L2Error> {
    let ask = advance(inner, removal.clone());
    let announce = inner.bus.as_ref().and_then(|bus| bus.announce_removal(&removal));
    let numbers = l2.advance(&ask, announce, limit).await?;
    inner.node.committed(removal.clone(), numbers);
    let backplane = match &inner.bus {
        None => Reach::Skipped,
        Some(bus) => match bus.publish_removal(&removal, numbers, limit).await {
            Ok(()) => Reach::Done,
            Err(_) => Reach::Unknown,
        },
    };
    let barrier = Barrier { epoch: numbers.epoch, seq: numbers.seq };
    Ok(Receipt::new(Reach::Done, backplane).with_barrier(barrier))
}

fn commit_locally<C>(inner: &Inner<C>, removal: Removal) -> Receipt {
    let ask = advance(inner, removal.clone());
    let numbers = {
        let mut ledger = inner.own_ledger.lock();
        let numbers = ledger.advance(own_clock(inner), &ask);
        // Under the same lock, so that the replica hears the numbers in order.
        inner.node.committed(removal, numbers);
        if inner.node.known().barriers > ledger.len() + SLACK {
            compare_locally(inner, &mut ledger);
        }
        numbers
    };
    Receipt::local().with_barrier(Barrier { epoch: numbers.epoch, seq: numbers.seq })
}

/// Begins the ledger of a cache without L2.
pub(crate) fn begin_locally<C>(inner: &Inner<C>) {
    compare_locally(inner, &mut inner.own_ledger.lock());
}

/// A node folds and forgets what the ledger does when it compares.
fn compare_locally<C>(inner: &Inner<C>, ledger: &mut Authority) {
    let ask: SyncAsk = inner.node.ask(inner.entropy.epoch(), usize::MAX, inner.retention_ms());
    let reply = ledger.sync(own_clock(inner), &ask);
    let _ = inner.node.synced(&reply, || inner.entropy.nonce());
}

fn advance<C>(inner: &Inner<C>, removal: Removal) -> Advance {
    let known = inner.node.known();
    Advance {
        removal,
        epoch: known.epoch,
        frontier: known.highest,
        new_epoch: inner.entropy.epoch(),
        retention_ms: inner.retention_ms(),
    }
}

fn own_clock<C>(inner: &Inner<C>) -> u64 {
    inner.now().as_nanos() / 1000
}
