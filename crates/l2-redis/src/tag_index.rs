//! An index of keys by tag with one purpose: a removal frees memory at once. Correctness never
//! depends on it: the ledger hides an entry that the index misses, and its memory is freed when its
//! TTL ends.

use crinkle_core::l2::Record;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, Target};
use crinkle_redis_client::RedisClient;
use futures_util::future::try_join_all;
use redis::RedisResult;

use crate::ledger::ttl;
use crate::scripts;

/// How many keys one round trip frees.
const CHUNK: usize = 512;

/// How many bytes of a record are read to find its tags. A record with tags behind that stays until
/// its TTL ends.
const TAGS_END: usize = 8 * 1024;

/// The index: one set of keys per tag.
#[derive(Clone, Debug)]
pub(crate) struct TagIndex {
    /// Most keys per tag.
    pub(crate) most: usize,
}

impl TagIndex {
    /// Adds a key to the sets of its record's tags.
    pub(crate) async fn note(&self, client: &RedisClient, key: &str, record: &Record) {
        let Some(prefix) = prefix_of(key) else { return };
        let Some(envelope) = Envelope::decode(&record.bytes) else { return };
        let notes = envelope.tags.iter().map(|tag| async move {
            let set = set_of(prefix, TagHash::of(tag));
            let mut call = scripts::INDEX.key(set);
            call.arg(key).arg(self.most).arg(ttl(record.ttl_ms));
            call.invoke_async::<()>(&mut client.clone()).await
        });
        if let Err(error) = try_join_all(notes).await {
            tracing::debug!(%error, "a key is missing in the tag index; it stays until its TTL ends");
        }
    }

    /// Frees what a removal hides, in the background, once the ledger has numbered it.
    pub(crate) fn removed(client: &RedisClient, ledger: &str, ask: &Advance, advanced: Advanced) {
        let Some(prefix) = ledger.strip_suffix("v1:L") else { return };
        if ask.removal.strength != Strength::Hard {
            return;
        }
        for target in &ask.removal.targets {
            let Target::Tag(tag) = target else { continue };
            let sweep =
                Sweep { client: client.clone(), set: set_of(prefix, *tag), tag: *tag, advanced };
            drop(client.spawn(async move {
                match sweep.run().await {
                    Ok(freed) => tracing::debug!(freed, "a removal freed memory"),
                    Err(error) => {
                        tracing::debug!(%error, "removed entries stay until their TTL ends");
                    }
                }
            }));
        }
    }
}

/// Frees the entries that one removal of a tag hides.
struct Sweep {
    client: RedisClient,
    set: String,
    tag: TagHash,
    advanced: Advanced,
}

/// Result for one key of the set.
#[derive(PartialEq, Eq)]
enum Swept {
    Freed,
    /// There is no record, or it does not have the tag.
    Gone,
    /// The record is newer than the removal.
    Younger,
}

impl Sweep {
    /// Frees the keys of the set in chunks, and puts keys with newer records back.
    async fn run(&self) -> RedisResult<usize> {
        let mut connection = self.client.clone();
        let ttl: i64 = redis::cmd("PTTL").arg(&self.set).query_async(&mut connection).await?;
        let (mut freed, mut younger) = (0, Vec::new());
        // With this many newer records, nearly all older ones have been seen.
        while younger.len() < CHUNK {
            let mut pop = redis::cmd("SPOP");
            let keys: Vec<String> =
                pop.arg(&self.set).arg(CHUNK).query_async(&mut connection).await?;
            if keys.is_empty() {
                break;
            }
            let swept = try_join_all(keys.iter().map(|key| self.free(key))).await?;
            freed += swept.iter().filter(|swept| **swept == Swept::Freed).count();
            let kept = keys.into_iter().zip(swept).filter(|(_, swept)| *swept == Swept::Younger);
            younger.extend(kept.map(|(key, _)| key));
        }
        for keys in younger.chunks(CHUNK) {
            let () =
                redis::cmd("SADD").arg(&self.set).arg(keys).query_async(&mut connection).await?;
        }
        self.restore_ttl(ttl, &mut connection).await?;
        Ok(freed)
    }

    /// Restores the set's TTL, which it loses if it was empty in between.
    async fn restore_ttl(&self, ttl: i64, connection: &mut RedisClient) -> RedisResult<()> {
        let now: i64 = redis::cmd("PTTL").arg(&self.set).query_async(connection).await?;
        if now == -1 && ttl > 0 {
            let () = redis::cmd("PEXPIRE").arg(&self.set).arg(ttl).query_async(connection).await?;
        }
        Ok(())
    }

    async fn free(&self, key: &str) -> RedisResult<Swept> {
        let mut getrange = redis::cmd("GETRANGE");
        getrange.arg(key).arg(0).arg(TAGS_END - 1);
        let bytes: Vec<u8> = getrange.query_async(&mut self.client.clone()).await?;
        let tagged = record::tags(&bytes)
            .is_some_and(|tags| tags.into_iter().any(|tag| TagHash::of(tag) == self.tag));
        let Some(head) = record::head(&bytes).filter(|_| tagged) else { return Ok(Swept::Gone) };
        let Advanced { epoch, seq, .. } = self.advanced;
        let mut call = scripts::FREE.key(key);
        for number in [epoch.0, seq, head.version().0] {
            call.arg(&number.to_be_bytes()[..]);
        }
        let freed: bool = call.invoke_async(&mut self.client.clone()).await?;
        Ok(if freed { Swept::Freed } else { Swept::Younger })
    }
}

/// The prefix of the cache that owns a record's key.
fn prefix_of(key: &str) -> Option<&str> {
    let kinds = ["v1:e:", "v1:h:"];
    kinds.iter().filter_map(|kind| key.find(kind)).min().map(|at| &key[..at])
}

fn set_of(prefix: &str, tag: TagHash) -> String {
    format!("{prefix}v1:t:{:032x}", tag.0)
}
