//! An index of keys by tag, for one purpose: a removal gives memory back at once. What is right never
//! depends on it: an entry that it does not know is hidden by the ledger, and ends with its life.

use crinkle_core::l2::Record;
use crinkle_core::l2::record::{self, Envelope};
use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, Target};
use futures_util::future::try_join_all;
use redis::RedisResult;

use crate::client::RedisClient;
use crate::ledger::ttl;
use crate::scripts;

/// How many keys are freed in one round trip.
const CHUNK: usize = 512;

/// How much of a record is read to find its tags. One whose tags lie behind that ends by itself.
const LOOK: usize = 8 * 1024;

/// The keys of each tag, in a set of the server.
#[derive(Clone, Debug)]
pub(crate) struct TagIndex {
    /// How many keys a tag has at most.
    pub(crate) most: usize,
}

impl TagIndex {
    /// A record goes to the server under this key.
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
            tracing::debug!(%error, "a key is missing in the index of its tags; it ends by itself");
        }
    }

    /// A removal was numbered: what it hides goes, in the background.
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
                    Ok(freed) => tracing::debug!(freed, "a removal gave memory back"),
                    Err(error) => {
                        tracing::debug!(%error, "removed entries stay until their lives end");
                    }
                }
            }));
        }
    }
}

/// The end of what one removal of a tag hides.
struct Sweep {
    client: RedisClient,
    set: String,
    tag: TagHash,
    advanced: Advanced,
}

/// What became of a key of the set.
#[derive(PartialEq, Eq)]
enum Swept {
    Freed,
    /// There is no record, or none that has the tag.
    Gone,
    /// Its record is younger than the removal.
    Younger,
}

impl Sweep {
    /// Frees the keys of the set, chunk by chunk, and puts those back whose records are younger.
    async fn run(&self) -> RedisResult<usize> {
        let mut connection = self.client.clone();
        let ttl: i64 = redis::cmd("PTTL").arg(&self.set).query_async(&mut connection).await?;
        let (mut freed, mut younger) = (0, Vec::new());
        // Who is this far among what was written since has seen about all that was there before.
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
        self.end_again(ttl, &mut connection).await?;
        Ok(freed)
    }

    /// A set that was emptied meanwhile has lost its life.
    async fn end_again(&self, ttl: i64, connection: &mut RedisClient) -> RedisResult<()> {
        let now: i64 = redis::cmd("PTTL").arg(&self.set).query_async(connection).await?;
        if now == -1 && ttl > 0 {
            let () = redis::cmd("PEXPIRE").arg(&self.set).arg(ttl).query_async(connection).await?;
        }
        Ok(())
    }

    async fn free(&self, key: &str) -> RedisResult<Swept> {
        let mut look = redis::cmd("GETRANGE");
        look.arg(key).arg(0).arg(LOOK - 1);
        let bytes: Vec<u8> = look.query_async(&mut self.client.clone()).await?;
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

/// The prefix of the cache that a record's key belongs to.
fn prefix_of(key: &str) -> Option<&str> {
    let kinds = ["v1:e:", "v1:h:"];
    kinds.iter().filter_map(|kind| key.find(kind)).min().map(|at| &key[..at])
}

fn set_of(prefix: &str, tag: TagHash) -> String {
    format!("{prefix}v1:t:{:032x}", tag.0)
}
