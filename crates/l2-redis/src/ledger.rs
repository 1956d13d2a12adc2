//! Converts the ledger's members and rows to and from the types of the protocol.

use crinkle_core::protocol::ledger::{
    Advanced, Levels, Standing, Strength, SyncAsk, SyncReply, Target,
};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use crinkle_redis_client::error::is_demoted;
use redis::{Pipeline, RedisResult, Value};

/// How the epoch member of a ledger of this version begins; see `scripts/ledger.lua`.
pub(crate) const EPOCH_MARK: &[u8; 2] = b"e2";

/// The longest TTL that every server accepts, in milliseconds (285,000 years).
const MAX_TTL_MS: u64 = 1 << 53;

/// The longest retention that the ledger can store, in milliseconds.
const MAX_RETENTION_MS: u64 = 1 << 51;

/// Lower bound of the ledger's TTL: it must outlast the time between two polls, however short the
/// retention.
const MIN_LEDGER_TTL_MS: u64 = 60_000;

/// Ledger TTL that a visitor sets: it does not know how long the nodes need the ledger.
const VISITED_TTL_MS: u64 = 2 * 366 * 86_400_000;

/// Whose retention decides how long the ledger keeps barriers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keeping {
    /// As long as the caller asks, or longer if another node asks for more.
    AsAsked,
    /// As long as the other nodes ask.
    AsOthersDo,
}

impl Keeping {
    /// Retention to send to the scripts, in milliseconds; 0 leaves it to the other nodes.
    pub(crate) fn retention(self, asked_ms: u64) -> u64 {
        match self {
            Self::AsAsked => asked_ms.min(MAX_RETENTION_MS),
            Self::AsOthersDo => 0,
        }
    }

    /// TTL of the ledger: it outlives every entry that it can hide, with a margin.
    pub(crate) fn ledger_ttl(self, asked_ms: u64) -> u64 {
        match self {
            Self::AsAsked => ttl(asked_ms.saturating_mul(2).max(MIN_LEDGER_TTL_MS)),
            Self::AsOthersDo => VISITED_TTL_MS,
        }
    }
}

/// Limits a TTL to what the server accepts.
pub(crate) fn ttl(ms: u64) -> u64 {
    ms.min(MAX_TTL_MS)
}

/// A member of the sorted set and its score.
type Row = (Vec<u8>, f64);

/// Members that are not barriers of tags or registers.
const MARKS: [&[u8]; 5] = [b"f", b"T", b"R", b"FS", b"FH"];

/// What ADVANCE returns: epoch, previous id, number, whether the server published it.
pub(crate) type AdvanceRow = (Vec<u8>, Option<Vec<u8>>, u64, bool);

/// What SYNC returns: standing, epoch, frontier, current time, newest id, trim, folded, floors
/// (soft, hard), ids and barriers.
pub(crate) type SyncRow =
    (u8, Vec<u8>, u64, u64, Option<Vec<u8>>, u64, u64, u64, u64, Vec<Row>, Vec<Row>);

/// The member whose score a removal of `target` sets.
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

/// Reads the last number of the ledger with this epoch. A demoted server answers reads from its old
/// data and refuses only writes. So the pipeline begins with a write: it removes a member that
/// never exists.
pub(crate) fn frontier(ledger: &str, epoch: Epoch) -> Pipeline {
    let mark = [&EPOCH_MARK[..], &epoch.0.to_be_bytes()].concat();
    let mut pipe = Pipeline::with_capacity(2);
    pipe.cmd("ZREM").arg(ledger).arg("").cmd("ZMSCORE").arg(ledger).arg(mark).arg("f");
    pipe.ignore_errors();
    pipe
}

/// Decodes the replies; `None` if there is no ledger with that epoch.
pub(crate) fn issued(answers: Vec<RedisResult<Value>>) -> RedisResult<Option<u64>> {
    let mut answers = answers.into_iter();
    // Other reasons to refuse a write do not mean that the server was demoted.
    if let Some(Err(error)) = answers.next()
        && is_demoted(&error)
    {
        return Err(error);
    }
    let Some(answer) = answers.next() else { return Ok(None) };
    let (mark, number): (Option<f64>, Option<f64>) = redis::from_redis_value(answer?)?;
    Ok(mark.and(number).map(exact))
}

/// Decodes ADVANCE's reply; `None` if it is malformed.
pub(crate) fn advanced((epoch, prev, seq, announced): AdvanceRow) -> Option<Advanced> {
    let prev = prev.map(|id| number(&id).map(Nonce));
    Some(Advanced {
        epoch: Epoch(number(&epoch)?),
        prev: prev.map_or(Some(None), |id| id.map(Some))?,
        seq,
        announced,
    })
}

/// Decodes SYNC's reply and cuts it to the requested page. `None` if the reply is malformed or
/// holds a member of an unknown kind: a node must not skip a barrier that it cannot read.
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
        // A page never splits one number: the next page begins above the last number of this page,
        // and a page holds at least one number.
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

/// Decodes bytes as the reply to SYNC; `None` if they are none. For the fuzz targets.
#[cfg(feature = "testing")]
#[must_use]
pub fn sync_reply(ask: &SyncAsk, bytes: &[u8]) -> Option<SyncReply> {
    synced(ask, redis::from_redis_value(redis::parse_redis_value(bytes).ok()?).ok()?)
}

/// Decodes bytes as the reply to ADVANCE; `None` if they are none. For the fuzz targets.
#[cfg(feature = "testing")]
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

/// Converts a score to a number. Exact, since numbers are below 2^53.
#[expect(clippy::cast_possible_truncation, reason = "scores are whole numbers below 2^53")]
pub(crate) fn exact(score: f64) -> u64 {
    score as u64
}
