//! The ledger as the scripts keep it: members and rows to and from the protocol's types.

use crinkle_core::protocol::ledger::{
    Advanced, Levels, Standing, Strength, SyncAsk, SyncReply, Target,
};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use redis::{Pipeline, RedisResult, Value};

use crate::error::is_demoted;
use crate::view::EPOCH_MARK;

/// The longest life a server accepts for sure, in milliseconds (285,000 years).
const MAX_TTL_MS: u64 = 1 << 53;

/// The longest retention that the ledger can note.
const MAX_RETENTION_MS: u64 = 1 << 51;

/// A ledger must not end between two polls, however short the retention.
const MIN_LEDGER_TTL_MS: u64 = 60_000;

/// How long a ledger of which nobody knows how long it is needed is kept by a visitor.
const VISITED_TTL_MS: u64 = 2 * 366 * 86_400_000;

/// How long barriers are to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keeping {
    /// As the caller asks, and longer if others do.
    AsAsked,
    /// As others ask.
    AsOthersDo,
}

impl Keeping {
    /// In milliseconds; 0 for as others ask.
    pub(crate) fn retention(self, asked_ms: u64) -> u64 {
        match self {
            Self::AsAsked => asked_ms.min(MAX_RETENTION_MS),
            Self::AsOthersDo => 0,
        }
    }

    /// A ledger outlives everything it can hide, with a margin.
    pub(crate) fn ledger_ttl(self, asked_ms: u64) -> u64 {
        match self {
            Self::AsAsked => ttl(asked_ms.saturating_mul(2).max(MIN_LEDGER_TTL_MS)),
            Self::AsOthersDo => VISITED_TTL_MS,
        }
    }
}

/// A life that the server accepts.
pub(crate) fn ttl(ms: u64) -> u64 {
    ms.min(MAX_TTL_MS)
}

/// A member of the sorted set and its score.
type Row = (Vec<u8>, f64);

/// Members that are no barriers of tags or registers.
const MARKS: [&[u8]; 5] = [b"f", b"T", b"R", b"FS", b"FH"];

/// What ADVANCE returns: epoch, previous id, number, whether it was announced.
pub(crate) type AdvanceRow = (Vec<u8>, Option<Vec<u8>>, u64, bool);

/// What SYNC returns: standing, epoch, frontier, now, newest id, trim, folded, floors (soft, hard), ids
/// and barriers.
pub(crate) type SyncRow =
    (u8, Vec<u8>, u64, u64, Option<Vec<u8>>, u64, u64, u64, u64, Vec<Row>, Vec<Row>);

/// The member that a removal of `target` scores.
pub(crate) fn member(strength: Strength, target: Target) -> Vec<u8> {
    match (strength, target) {
        (Strength::Soft, Target::Everything) => b"FS".to_vec(),
        (Strength::Hard, Target::Everything) => b"FH".to_vec(),
        (Strength::Soft, Target::Register(index)) => [b"S", &index.to_be_bytes()[..]].concat(),
        (Strength::Hard, Target::Register(index)) => [b"H", &index.to_be_bytes()[..]].concat(),
        (Strength::Soft, Target::Tag(tag)) => [b"s", &tag.0.to_be_bytes()[..]].concat(),
        (Strength::Hard, Target::Tag(tag)) => [b"h", &tag.0.to_be_bytes()[..]].concat(),
    }
}

/// Asks for the last number of the ledger's life that has this epoch. A server that is no primary any more
/// answers reads with what it had; that it is none, it says only to a command that writes, here one that removes
/// a member which is never there.
pub(crate) fn frontier(ledger: &str, epoch: Epoch) -> Pipeline {
    let mark = [&EPOCH_MARK[..], &epoch.0.to_be_bytes()].concat();
    let mut pipe = Pipeline::with_capacity(2);
    pipe.cmd("ZREM").arg(ledger).arg("").cmd("ZMSCORE").arg(ledger).arg(mark).arg("f");
    pipe.ignore_errors();
    pipe
}

/// What the answers say: nothing if there is no such life.
pub(crate) fn issued(answers: Vec<RedisResult<Value>>) -> RedisResult<Option<u64>> {
    let mut answers = answers.into_iter();
    // Whatever else refuses writes leaves the primary what it is.
    if let Some(Err(error)) = answers.next()
        && is_demoted(&error)
    {
        return Err(error);
    }
    let Some(answer) = answers.next() else { return Ok(None) };
    let (mark, number): (Option<f64>, Option<f64>) = redis::from_redis_value(answer?)?;
    Ok(mark.and(number).map(exact))
}

/// Decodes ADVANCE's reply; `None` if it is not one.
pub(crate) fn advanced((epoch, prev, seq, announced): AdvanceRow) -> Option<Advanced> {
    let prev = prev.map(|id| number(&id).map(Nonce));
    Some(Advanced {
        epoch: Epoch(number(&epoch)?),
        prev: prev.map_or(Some(None), |id| id.map(Some))?,
        seq,
        announced,
    })
}

/// Decodes SYNC's reply and cuts it to the page that was asked for; `None` if it is not one, or holds
/// what this version does not know: who cannot read a barrier must not go on without it.
pub(crate) fn synced(ask: &SyncAsk, row: SyncRow) -> Option<SyncReply> {
    let (standing, epoch, frontier, now_us, last, trim, folded, soft, hard, ids, rows) = row;
    let standing = match standing {
        0 => Standing::Current,
        1 => Standing::Reload,
        2 => Standing::NewEpoch,
        _ => return None,
    };
    let from = if standing == Standing::Current { ask.from } else { 0 };
    let barriers = rows.iter().filter(|(member, _)| !MARKS.contains(&&member[..]));
    let mut levels = barriers.map(level).collect::<Option<Vec<_>>>()?;
    let cut = levels.get(ask.page).map(|(seq, _, _)| *seq);
    let mut upto = u64::MAX;
    if let (Some(cut), Some((first, _, _))) = (cut, levels.first().copied()) {
        // One number is never split: the next page begins above the last one of this page, which
        // holds at least one.
        levels.retain(|(seq, _, _)| *seq < cut || *seq == first);
        upto = levels.last().map_or(from, |(seq, _, _)| *seq);
    }
    let ids = ids.iter().rev().filter_map(id).take_while(|(seq, _)| *seq <= upto).collect();
    Some(SyncReply {
        standing,
        epoch: Epoch(number(&epoch)?),
        frontier,
        trim,
        folded,
        floor: Levels { soft, hard },
        last: last.and_then(|id| number(&id)).map(Nonce),
        ids,
        levels,
        complete: cut.is_none(),
        now_us,
    })
}

/// What the bytes of a server are taken for where the answer of SYNC belongs. For the fuzz targets.
#[must_use]
pub fn sync_reply(ask: &SyncAsk, bytes: &[u8]) -> Option<SyncReply> {
    synced(ask, redis::from_redis_value(redis::parse_redis_value(bytes).ok()?).ok()?)
}

/// The same for ADVANCE.
#[must_use]
pub fn advance_reply(bytes: &[u8]) -> Option<Advanced> {
    advanced(redis::from_redis_value(redis::parse_redis_value(bytes).ok()?).ok()?)
}

fn level((member, score): &Row) -> Option<(u64, Target, Strength)> {
    let (kind, name) = member.split_first()?;
    let tag = || Some(Target::Tag(TagHash(u128::from_be_bytes(name.try_into().ok()?))));
    let register = || Some(Target::Register(u16::from_be_bytes(name.try_into().ok()?)));
    let (target, strength) = match kind {
        b's' => (tag()?, Strength::Soft),
        b'h' => (tag()?, Strength::Hard),
        b'S' => (register()?, Strength::Soft),
        b'H' => (register()?, Strength::Hard),
        _ => return None,
    };
    Some((exact(*score), target, strength))
}

fn id((member, score): &Row) -> Option<(u64, Nonce)> {
    Some((exact(-score), Nonce(number(member.strip_prefix(b"i")?)?)))
}

pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Numbers are below 2^53, so a score holds one exactly.
#[expect(clippy::cast_possible_truncation, reason = "scores are whole numbers below 2^53")]
pub(crate) fn exact(score: f64) -> u64 {
    score as u64
}
