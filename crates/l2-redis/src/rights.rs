//! What a user of the server must be allowed to do, and what it may not.

use std::borrow::Cow;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::Instant;

use crate::client::RedisClient;
use crate::error::l2_error;

/// What stores and scripts run. Commands inside scripts are checked too. Without `info`, what a failover
/// took back of keys is not asserted again, without `client|setname` the connection has no name.
const COMMANDS: &str = "+evalsha +script|load +time +publish +subscribe +info +client|setname \
     +get +getrange +set +setrange +del +pttl +pexpire \
     +type +zadd +zrem +zremrangebyrank +zcount +zscore +zmscore +zrangebyscore";

/// How long what was found missing is repeated before the server is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The rights that the user of a cache with this key prefix needs, and none more, as `ACL SETUSER` takes
/// them. Beside these: `+select` for a database other than 0, `+role` behind sentinels, `+sadd +scard
/// +sismember +spop +unlink` with the tag index, `+eval +asking +cluster|slots` in a cluster.
///
/// ```
/// let rule = crinkle_l2_redis::acl_rule("shop:");
/// assert!(rule.starts_with("resetkeys ~shop:* resetchannels &shop:* -@all +evalsha"));
/// ```
#[must_use]
pub fn acl_rule(prefix: &str) -> String {
    format!("resetkeys ~{prefix}* resetchannels &{prefix}* -@all {COMMANDS}")
}

impl RedisClient {
    /// Tries every right that a store with this key prefix cannot do without, and writes nothing. A store
    /// does this by itself before it first meets a ledger.
    ///
    /// # Errors
    ///
    /// [`L2ErrorKind::Denied`] if one is missing; the message names each, and what to grant. Otherwise if
    /// the server cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn check_store_rights(&self, prefix: &str) -> Result<(), L2Error> {
        let (record, hashed) = (format!("{prefix}v1:e:"), format!("{prefix}v1:h:"));
        let ledger = format!("{prefix}v1:L");
        let asked = probes(&record, &hashed, &ledger).map(async |words: Vec<&str>| {
            let (mut command, mut client) = (redis::cmd(words[0]), self.clone());
            let answer: RedisResult<Value> =
                command.arg(&words[1..]).query_async(&mut client).await;
            (words, answer.err())
        });
        let mut missing = Missing::default();
        for (words, error) in join_all(asked).await {
            missing.note(&words, error)?;
        }
        missing.told(self, prefix)
    }

    /// Tries every right that a backplane with this key prefix needs. Nobody hears it.
    ///
    /// # Errors
    ///
    /// As [`check_store_rights`](Self::check_store_rights).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn check_backplane_rights(&self, prefix: &str) -> Result<(), L2Error> {
        let (all, own) = (format!("{prefix}v1:ch"), format!("{prefix}v1:hb:"));
        self.publish(&own, b"").await.map_err(|error| l2_error(&error))?;
        self.subscribe(&[all, own]).await.map(drop).map_err(|error| l2_error(&error))
    }
}

/// One harmless use of every command, on keys that no record has and on members that no ledger has.
fn probes<'a>(
    record: &'a str,
    hashed: &'a str,
    ledger: &'a str,
) -> impl Iterator<Item = Vec<&'a str>> {
    let nothing = "0000000000000000000000000000000000000000";
    [
        vec!["time"],
        vec!["evalsha", nothing, "0"],
        vec!["script", "load", "return 0"],
        vec!["get", record],
        vec!["getrange", record, "0", "0"],
        vec!["set", record, "", "XX", "PX", "1"],
        vec!["setrange", record, "0", ""],
        vec!["del", record],
        vec!["pttl", record],
        vec!["pexpire", record, "1"],
        vec!["get", hashed],
        vec!["del", hashed],
        vec!["type", ledger],
        vec!["zadd", ledger, "XX", "0", ""],
        vec!["zrem", ledger, ""],
        vec!["zremrangebyrank", ledger, "1", "0"],
        vec!["zcount", ledger, "1", "0"],
        vec!["zscore", ledger, "f"],
        vec!["zmscore", ledger, "f"],
        vec!["zrangebyscore", ledger, "1", "0"],
    ]
    .into_iter()
}

/// Which kind of right is missing.
enum Refused {
    Command,
    Key,
    Channel,
}

/// In the words of Redis 6.2 to 8 and of Valkey.
fn refused(error: &RedisError) -> Option<Refused> {
    if error.code() != Some("NOPERM") {
        return None;
    }
    let said = error.to_string();
    Some(if said.contains("permissions to run") {
        Refused::Command
    } else if said.contains("channel") {
        Refused::Channel
    } else {
        Refused::Key
    })
}

#[derive(Default)]
struct Missing {
    commands: Vec<String>,
    keys: Vec<String>,
}

impl Missing {
    /// Whatever else the server says, it may be said to this user.
    fn note(&mut self, words: &[&str], error: Option<RedisError>) -> Result<(), L2Error> {
        let Some(error) = error else { return Ok(()) };
        match refused(&error) {
            Some(Refused::Command) if words[0] == "script" => {
                self.commands.push("script|load".to_owned());
            }
            Some(Refused::Command) => self.commands.push(words[0].to_owned()),
            Some(Refused::Key | Refused::Channel) => self.keys.push(words[1].to_owned()),
            None if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {}
            None => return Err(l2_error(&error)),
        }
        Ok(())
    }

    fn told(mut self, client: &RedisClient, prefix: &str) -> Result<(), L2Error> {
        if self.commands.is_empty() && self.keys.is_empty() {
            return Ok(());
        }
        for names in [&mut self.commands, &mut self.keys] {
            names.sort_unstable();
            names.dedup();
        }
        let grants = self.commands.iter().map(|command| format!("+{command}"));
        let grants = grants.chain((!self.keys.is_empty()).then(|| format!("~{prefix}*")));
        let grants = grants.collect::<Vec<_>>().join(" ");
        let lacks = [("run", &self.commands), ("touch", &self.keys)].into_iter();
        let lacks = lacks.filter(|(_, names)| !names.is_empty());
        let lacks = lacks.map(|(verb, names)| format!("{verb} `{}`", names.join("`, `")));
        let lacks = lacks.collect::<Vec<_>>().join(", nor ");
        Err(L2Error::new(L2ErrorKind::Denied, advice(client, &lacks, &grants, prefix)))
    }
}

fn advice(client: &RedisClient, lacks: &str, grants: &str, prefix: &str) -> String {
    let user = client.user();
    let rule = acl_rule(prefix);
    format!(
        "user `{user}` may not {lacks}: `ACL SETUSER {user} {grants}`; all that it needs is `{rule}`"
    )
}

/// A refused `publish` or `subscribe`, with what to grant.
pub(crate) fn on_channels(
    error: RedisError,
    client: &RedisClient,
    command: &str,
    channels: &[Cow<'_, str>],
) -> RedisError {
    let prefix = channels.first().map_or("", |channel| prefix_of(channel));
    let (lacks, grants) = match refused(&error) {
        Some(Refused::Command) => (format!("run `{command}`"), format!("+{command}")),
        Some(_) => (format!("{command} to `{}`", channels.join("`, `")), format!("&{prefix}*")),
        None => return error,
    };
    let kind = ErrorKind::Server(ServerErrorKind::NoPerm);
    let advice = advice(client, &lacks, &grants, prefix);
    (kind, "the server refused", format!("{advice} ({error})")).into()
}

/// Prefixes never contain what begins the inner part of a name.
fn prefix_of(name: &str) -> &str {
    name.split("v1:").next().unwrap_or_default()
}

/// What a store knows about the rights of its user.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// The prefixes for which they suffice.
    sufficient: Mutex<Vec<String>>,
    missing: Mutex<Option<(String, Instant, L2Error)>>,
}

impl Rights {
    /// Checks them once: some would be missed only when a record is stale, or a lease given back.
    pub(crate) async fn suffice(&self, client: &RedisClient, ledger: &str) -> Result<(), L2Error> {
        let prefix = prefix_of(ledger);
        if self.sufficient.lock().iter().any(|known| known == prefix) {
            return Ok(());
        }
        client.check_store_rights(prefix).await?;
        self.sufficient.lock().push(prefix.to_owned());
        Ok(())
    }

    /// An error of a command for this key; where a right is missing, with its name: scripts of older
    /// servers do not tell.
    pub(crate) async fn explain(
        &self,
        client: &RedisClient,
        key: &str,
        error: &RedisError,
    ) -> L2Error {
        let (error, prefix) = (l2_error(error), prefix_of(key));
        if error.kind() != L2ErrorKind::Denied {
            return error;
        }
        if let Some((of, at, missing)) = &*self.missing.lock()
            && of == prefix
            && at.elapsed() < AGAIN
        {
            return missing.clone();
        }
        let missing = client.check_store_rights(prefix).await.err().unwrap_or(error);
        *self.missing.lock() = Some((prefix.to_owned(), Instant::now(), missing.clone()));
        missing
    }
}
