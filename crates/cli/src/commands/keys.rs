use std::fmt;

use crinkle_core::l2::record::Envelope;
use crinkle_l2_redis::redis::{self, Cmd, FromRedisValue, Value, cmd, from_redis_value};
use crinkle_l2_redis::{Primary, RedisClient};
use serde::Serialize;

use crate::args::{Global, Keys};
use crate::failure::{FOUND, Failure, OK};
use crate::output::Out;
use crate::server::Server;

/// How many keys of the server one `SCAN` examines.
const PAGE: usize = 500;

/// A key of the cache, as the application writes it.
#[derive(Debug, Serialize)]
struct Key {
    key: String,
    /// The tags, if the record was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
}

pub(crate) async fn run(global: &Global, what: &Keys, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_needed()?;
    let server = Server::connect(global).await?;
    server.ledger_needed(&prefix).await?;
    let mut list = List { server: &server, prefix: &prefix, what, out, shown: 0 };
    let servers = if server.client.is_cluster() {
        let primaries = server.client.primaries().await;
        let primaries = primaries.map_err(|error| Failure::refused(&server.address, &error))?;
        primaries.into_iter().map(At::Primary).collect()
    } else {
        vec![At::Only(server.client.clone())]
    };
    let mut is_whole = true;
    for at in &servers {
        is_whole = is_whole && list.scan(at).await?;
    }
    if !is_whole {
        eprintln!("crinkle: {} keys are shown, and there may be more: see --limit", list.shown);
    }
    Ok(if list.shown == 0 { FOUND } else { OK })
}

/// A server whose keys are listed.
enum At {
    Only(RedisClient),
    /// One of a cluster.
    Primary(Primary),
}

impl At {
    async fn ask(&self, ask: Cmd) -> redis::RedisResult<Value> {
        match self {
            Self::Only(client) => ask.query_async(&mut client.clone()).await,
            Self::Primary(primary) => primary.command(&ask).await,
        }
    }
}

struct List<'a> {
    server: &'a Server,
    prefix: &'a str,
    what: &'a Keys,
    out: Out,
    shown: usize,
}

impl List<'_> {
    /// Lists the keys of one server; false if it stopped at the limit.
    async fn scan(&mut self, at: &At) -> Result<bool, Failure> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            // A prefix contains no characters that are special to MATCH.
            scan.arg(cursor).arg("MATCH").arg(format!("{}v1:[eh]:*", self.prefix));
            scan.arg("COUNT").arg(PAGE);
            let (next, names): (u64, Vec<String>) = self.answer(at.ask(scan)).await?;
            for name in &names {
                let Some(key) = self.of(name, at).await? else { continue };
                if self.shown == self.what.limit {
                    return Ok(false);
                }
                self.out.show(&key)?;
                self.shown += 1;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(true);
            }
        }
    }

    /// The application's key for a Redis key, if it is to be listed.
    async fn of(&self, name: &str, at: &At) -> Result<Option<Key>, Failure> {
        let plain = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix("v1:e:"));
        let key = |key: &str, tags| Key { key: key.to_owned(), tags };
        if let (Some(plain), None) = (plain, &self.what.tag) {
            return Ok(Some(key(plain, None)));
        }
        // Long keys are stored under their hash: the full key and the tags are in the record.
        let mut get = cmd("GET");
        get.arg(name);
        let bytes: Option<Vec<u8>> = self.answer(at.ask(get)).await?;
        let record = bytes.as_deref().and_then(Envelope::decode);
        Ok(record.and_then(|record| {
            let carries =
                self.what.tag.as_ref().is_none_or(|tag| record.tags.contains(&tag.as_str()));
            let tags = record.tags.iter().map(|tag| (*tag).to_owned()).collect();
            carries.then(|| key(record.key, Some(tags)))
        }))
    }

    async fn answer<T: FromRedisValue>(
        &self,
        call: impl Future<Output = redis::RedisResult<Value>>,
    ) -> Result<T, Failure> {
        let at = &self.server.address;
        let answer = tokio::time::timeout(self.server.limit, call).await;
        let answer = answer.map_err(|_| Failure::silent(at, self.server.limit))?;
        let value = answer.and_then(Value::extract_error);
        let parsed = value.and_then(|value| Ok(from_redis_value(value)?));
        parsed.map_err(|error| Failure::refused(at, &error))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}
