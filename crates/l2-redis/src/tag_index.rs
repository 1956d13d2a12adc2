//! An index of keys by tag, for one purpose: a removal gives memory back at once. What is right never
//! depends on it: an entry that it does not know is hidden by the ledger, and ends with its life.

use crinkle_core::l2::Record;
use crinkle_core::l2::record::Envelope;
use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::{Advance, Advanced, Strength, Target};
use futures_util::future::try_join_all;
use redis::RedisResult;

use crate::client::RedisClient;
use crate::scripts;
use crate::store::life;

/// How many keys are freed in one round trip.
const CHUNK: usize = 512;

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
            call.arg(key).arg(self.most).arg(life(record.ttl_ms));
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
            let (client, set) = (client.clone(), set_of(prefix, *tag));
            drop(tokio::spawn(async move {
                match sweep(&client, &set, advanced).await {
                    Ok(freed) => tracing::debug!(freed, "a removal gave memory back"),
                    Err(error) => {
                        tracing::debug!(%error, "removed entries stay until their lives end");
                    }
                }
            }));
        }
    }
}

/// Frees the keys of a set, chunk by chunk, and puts those back whose records are younger.
async fn sweep(client: &RedisClient, set: &str, advanced: Advanced) -> RedisResult<usize> {
    let mut connection = client.clone();
    let (mut freed, mut younger) = (0, Vec::new());
    // Who is this far among what was written since has seen about all that was there before.
    while younger.len() < CHUNK {
        let mut pop = redis::cmd("SPOP");
        let keys: Vec<String> = pop.arg(set).arg(CHUNK).query_async(&mut connection).await?;
        if keys.is_empty() {
            break;
        }
        let gone = try_join_all(keys.iter().map(|key| free(client, key, advanced))).await?;
        freed += gone.iter().filter(|gone| **gone).count();
        younger.extend(keys.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(key, _)| key));
    }
    for keys in younger.chunks(CHUNK) {
        let () = redis::cmd("SADD").arg(set).arg(keys).query_async(&mut connection).await?;
    }
    Ok(freed)
}

async fn free(client: &RedisClient, key: &str, advanced: Advanced) -> RedisResult<bool> {
    let mut call = scripts::FREE.key(key);
    call.arg(&advanced.epoch.0.to_be_bytes()[..]).arg(&advanced.seq.to_be_bytes()[..]);
    call.invoke_async(&mut client.clone()).await
}

/// The prefix of the cache that a record's key belongs to.
fn prefix_of(key: &str) -> Option<&str> {
    let kinds = ["v1:e:", "v1:h:"];
    kinds.iter().filter_map(|kind| key.find(kind)).min().map(|at| &key[..at])
}

fn set_of(prefix: &str, tag: TagHash) -> String {
    format!("{prefix}v1:t:{:032x}", tag.0)
}
