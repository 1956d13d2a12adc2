use crinkle_core::l2::L2Error;
use crinkle_core::protocol::ledger::{Levels, Strength, Target};
use crinkle_core::protocol::{Epoch, TagHash};
use crinkle_redis_client::RedisClient;
use crinkle_redis_client::error::l2_error;
use redis::{FromRedisValue, Pipeline};

use crate::ledger::{EPOCH_MARK, exact, member, number};

/// What the ledger's key of a prefix holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerView {
    /// Nothing.
    Absent,
    /// Not a ledger: what it is.
    Foreign(String),
    /// A ledger of another version of Crinkle: how its epoch begins.
    OtherVersion(String),
    /// A ledger.
    Present(LedgerState),
}

/// The state of a ledger at one moment. Numbers are microseconds since the Unix epoch on the
/// server's clock, or slightly above; zero means never.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerState {
    /// The ledger's epoch.
    pub epoch: Epoch,
    /// The last number issued.
    pub frontier: u64,
    /// The newest `expire_all` (soft) and `remove_all`, or old removals that were merged into the floor.
    pub floor: Levels,
    /// Barriers at or below this number may have been merged into the floor.
    pub trimmed: u64,
    /// Barriers of tags at or below this number are in registers.
    pub folded: u64,
    /// How many tags and registers have a barrier; one that was both removed and expired counts
    /// twice.
    pub barriers: u64,
    /// How many removals the ledger remembers by id.
    pub ids: u64,
    /// Remaining TTL of the key, in milliseconds.
    pub ttl_ms: u64,
    /// The current time on the server's clock.
    pub now_us: u64,
}

/// The barriers of one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagBarriers {
    /// The newest removals of the tag itself.
    pub own: Levels,
    /// The newest of the old removals that share the tag's register.
    pub register: Levels,
}

/// A read-only view, for operators. SYNC would create a missing ledger and renew the TTL of an
/// existing one; this changes nothing.
impl LedgerView {
    /// Reads the ledger under this key prefix.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses the user.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn read(client: &RedisClient, prefix: &str) -> Result<Self, L2Error> {
        let key = format!("{prefix}v1:L");
        let (kind,): (String,) = asked(client, redis::pipe().cmd("TYPE").arg(&key)).await?;
        match &*kind {
            "none" => return Ok(Self::Absent),
            "zset" => {}
            _ => return Ok(Self::Foreign(format!("a {kind}"))),
        }
        let mut pipe = redis::pipe();
        pipe.cmd("ZRANGEBYSCORE").arg(&key).arg(-1).arg(-1);
        pipe.cmd("ZMSCORE").arg(&key).arg(&["f", "T", "R", "FS", "FH"]);
        pipe.cmd("ZCOUNT").arg(&key).arg("(0").arg("+inf");
        pipe.cmd("ZCOUNT").arg(&key).arg("-inf").arg("(-1");
        pipe.cmd("PTTL").arg(&key).cmd("TIME");
        let (epoch, marks, above, ids, pttl, (s, us)): Row = asked(client, &pipe).await?;
        let set = marks.iter().flatten().filter(|number| **number > 0.0).count() as u64;
        let mark = |at: usize| marks.get(at).copied().flatten().map_or(0, exact);
        let Some((begins, epoch)) = epoch.first().and_then(|member| member.split_at_checked(2))
        else {
            return Ok(Self::Foreign("a sorted set without an epoch".to_owned()));
        };
        let Some(epoch) = number(epoch).filter(|_| begins == EPOCH_MARK) else {
            return Ok(Self::OtherVersion(begins.escape_ascii().to_string()));
        };
        Ok(Self::Present(LedgerState {
            epoch: Epoch(epoch),
            frontier: mark(0),
            trimmed: mark(1),
            folded: mark(2),
            floor: Levels { soft: mark(3), hard: mark(4) },
            barriers: above.saturating_sub(set),
            ids,
            ttl_ms: u64::try_from(pttl).unwrap_or(0),
            now_us: s.saturating_mul(1_000_000).saturating_add(us),
        }))
    }
}

impl TagBarriers {
    /// Reads the barriers of these tags, in their order, from the ledger under this key prefix.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses the user, or the key is not a ledger.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn read(
        client: &RedisClient,
        prefix: &str,
        tags: &[TagHash],
    ) -> Result<Vec<Self>, L2Error> {
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("ZMSCORE").arg(format!("{prefix}v1:L"));
        for tag in tags {
            for target in [Target::Tag(*tag), Target::Register(tag.register())] {
                pipe.arg(member(Strength::Soft, target)).arg(member(Strength::Hard, target));
            }
        }
        let (scores,): (Vec<Option<f64>>,) = asked(client, &pipe).await?;
        let levels = |soft: Option<f64>, hard: Option<f64>| Levels {
            soft: soft.map_or(0, exact),
            hard: hard.map_or(0, exact),
        };
        let of_tag = |four: &[Option<f64>; 4]| Self {
            own: levels(four[0], four[1]),
            register: levels(four[2], four[3]),
        };
        Ok(scores.as_chunks().0.iter().map(of_tag).collect())
    }
}

async fn asked<T: FromRedisValue>(client: &RedisClient, pipe: &Pipeline) -> Result<T, L2Error> {
    pipe.query_async(&mut client.clone()).await.map_err(|error| l2_error(&error))
}

/// Epoch, marks, how many scores are above and below zero, remaining TTL, time.
type Row = (Vec<Vec<u8>>, Vec<Option<f64>>, u64, u64, i64, (u64, u64));
