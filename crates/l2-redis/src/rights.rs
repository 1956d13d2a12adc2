//! What a user of the server must be allowed to do, and what it may not.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::Instant;

use crate::client::RedisClient;
use crate::error::{is_answer, is_unknown_command, is_without_code, l2_error};
use crate::slots::Address;

/// What stores and scripts run, on one server, behind sentinels and in a cluster. Commands inside scripts
/// are checked too.
const COMMANDS: &str = "+evalsha +eval +script|load +time +publish +subscribe +info +client|setname \
     +role +asking +readonly +cluster|slots \
     +get +getrange +set +setrange +del +pttl +pexpire \
     +type +zadd +zrem +zremrangebyrank +zcount +zscore +zmscore +zrangebyscore";

/// Without `info`, what a failover took back of keys is not asserted again and no replica is read; without
/// `readonly` none of a cluster; without `client|setname` the connection has no name.
const OPTIONAL: [&str; 3] = ["info", "readonly", "client|setname"];

/// How long what was found missing is repeated before the server is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The rights that the user of a cache with this key prefix needs, and none more, as `ACL SETUSER` takes
/// them, on every server. Beside these: `+select` for a database other than 0, and `+sadd +scard +sismember
/// +spop +unlink` with the tag index.
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
    /// [`L2ErrorKind::Denied`] if one is missing, or the server has no such command; the message names each, and
    /// what to do. Otherwise if the server cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn check_store_rights(&self, prefix: &str) -> Result<(), L2Error> {
        let mut missing = Missing::default();
        let places = match self.places().await {
            Ok(places) => places,
            Err(error) if error.code() == Some("NOPERM") => {
                missing.commands.insert("cluster|slots".to_owned());
                return missing.explain(self, prefix);
            }
            Err(error) => return Err(l2_error(&error)),
        };
        let uses = uses(prefix, self.is_cluster());
        let needed = || uses.iter().filter(|used| used.is_needed());
        let tried = places.iter().flat_map(|at| needed().map(move |used| (at, used)));
        let tried = tried.map(async |(at, used)| (used, used.try_at(self, at).await));
        for (used, answer) in join_all(tried).await {
            missing.note_answer(used, answer)?;
        }
        missing.explain(self, prefix)
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

/// A right, and a harmless use of it.
pub(crate) struct Use {
    pub(crate) right: &'static str,
    pub(crate) words: Vec<String>,
}

impl Use {
    /// Whether a store cannot do without it.
    pub(crate) fn is_needed(&self) -> bool {
        !OPTIONAL.contains(&self.right)
    }

    pub(crate) async fn try_at(&self, client: &RedisClient, at: &Address) -> RedisResult<Value> {
        let mut cmd = redis::cmd(&self.words[0]);
        cmd.arg(&self.words[1..]);
        if self.right != "asking" {
            return client.ask_at(at, &cmd).await;
        }
        // It is about the command that comes next, which must not be somebody else's.
        let mut pipe = redis::pipe();
        pipe.add_command(cmd).cmd("TIME");
        let answers = client.pipe_at(at, &pipe, 2).await?;
        answers.into_iter().next().unwrap_or(Value::Nil).extract_error()
    }
}

/// One use of every right, on keys that no record has and on members that no ledger has.
pub(crate) fn uses(prefix: &str, in_cluster: bool) -> Vec<Use> {
    let (record, hashed) = (&*format!("{prefix}v1:e:"), &*format!("{prefix}v1:h:"));
    let (ledger, nothing) = (&*format!("{prefix}v1:L"), "0000000000000000000000000000000000000000");
    let everywhere: [(_, &[&str]); 22] = [
        ("time", &[]),
        ("evalsha", &[nothing, "1", record]),
        ("script|load", &["return 0"]),
        ("get", &[record]),
        ("getrange", &[record, "0", "0"]),
        ("set", &[record, "", "XX", "PX", "1"]),
        ("setrange", &[record, "0", ""]),
        ("del", &[record]),
        ("pttl", &[record]),
        ("pexpire", &[record, "1"]),
        ("get", &[hashed]),
        ("del", &[hashed]),
        ("type", &[ledger]),
        ("zadd", &[ledger, "XX", "0", ""]),
        ("zrem", &[ledger, ""]),
        ("zremrangebyrank", &[ledger, "1", "0"]),
        ("zcount", &[ledger, "1", "0"]),
        ("zscore", &[ledger, "f"]),
        ("zmscore", &[ledger, "f"]),
        ("zrangebyscore", &[ledger, "1", "0"]),
        ("info", &["replication"]),
        // A name that no connection may have.
        ("client|setname", &["no name"]),
    ];
    let of_clusters: [(_, &[&str]); 4] = [
        ("eval", &["return 0", "1", record]),
        ("asking", &[]),
        ("cluster|slots", &[]),
        ("readonly", &[]),
    ];
    let of_clusters = of_clusters.into_iter().filter(|_| in_cluster);
    let used = |(right, rest): (&'static str, &[&str])| {
        let words = right.split('|').chain(rest.iter().copied());
        Use { right, words: words.map(ToOwned::to_owned).collect() }
    };
    everywhere.into_iter().chain(of_clusters).map(used).collect()
}

/// Which kind of right is missing.
enum Refused {
    Command,
    Key,
    Channel,
}

/// In the words of Redis 6.2 to 8.2 and of Valkey, in those of `ACL DRYRUN`, and in ours: NOPERM does not say
/// which kind.
fn refused(said: &str) -> Refused {
    if said.contains("permissions to run") || said.contains("may not run") {
        Refused::Command
    } else if said.contains("channel")
        || said.contains("may not publish")
        || said.contains("may not subscribe")
    {
        Refused::Channel
    } else {
        Refused::Key
    }
}

/// What a user lacks.
#[derive(Default)]
pub(crate) struct Missing {
    commands: BTreeSet<String>,
    keys: BTreeSet<String>,
    channels: bool,
    /// What the server does not have.
    unknown: BTreeSet<String>,
}

impl Missing {
    /// Whatever else the server says, it may be said to this user.
    pub(crate) fn note_answer<T>(
        &mut self,
        used: &Use,
        answer: RedisResult<T>,
    ) -> Result<(), L2Error> {
        match answer {
            Err(error) if error.code() == Some("NOPERM") => self.note(used, &error.to_string()),
            Err(error) if is_unknown_command(&error) => {
                self.unknown.insert(used.right.replace('|', " ").to_uppercase());
            }
            Err(error) if !is_answer(&error) => return Err(l2_error(&error)),
            _ => {}
        }
        Ok(())
    }

    /// The server has said no.
    pub(crate) fn note(&mut self, used: &Use, said: &str) {
        match refused(said) {
            Refused::Command => drop(self.commands.insert(used.right.to_owned())),
            Refused::Channel => self.channels = true,
            Refused::Key => {
                let key = used.words.iter().find(|word| word.contains("v1:"));
                self.keys.extend(key.cloned());
            }
        }
    }

    /// Whether keys or channels are missing, which depend on the prefix.
    pub(crate) fn is_of_the_prefix(&self) -> bool {
        self.channels || !self.keys.is_empty()
    }

    /// What the server does not have, and what to do about it; `None` if it has all.
    pub(crate) fn has_not(&self) -> Option<String> {
        let names: Vec<_> = self.unknown.iter().map(|name| format!("`{name}`")).collect();
        let lua =
            self.unknown.iter().any(|name| name.starts_with("EVAL") || name.starts_with("SCRIPT"));
        let lua =
            if lua { ", with Lua scripts (load the Lua engine of a Valkey without)" } else { "" };
        (!names.is_empty()).then(|| format!(
            "the server has no {}: a cache cannot do without. TopologyRefresh for `rename-command` in its configuration, or \
             for a proxy that does not pass them on; it takes Redis 6.2 or newer, or Valkey{lua}",
            names.join(", ")
        ))
    }

    /// What would grant it; nothing if nothing is missing.
    pub(crate) fn grants(&self, prefix: &str) -> String {
        let keys = (!self.keys.is_empty()).then(|| format!("~{prefix}*"));
        let channels = self.channels.then(|| format!("&{prefix}*"));
        let commands = self.commands.iter().map(|command| format!("+{command}"));
        commands.chain(keys).chain(channels).collect::<Vec<_>>().join(" ")
    }

    fn explain(&self, client: &RedisClient, prefix: &str) -> Result<(), L2Error> {
        if !self.unknown.is_empty() {
            return Err(L2Error::new(L2ErrorKind::Denied, self.has_not().unwrap_or_default()));
        }
        let grants = self.grants(prefix);
        if grants.is_empty() {
            return Ok(());
        }
        let lacks = [("run", &self.commands), ("touch", &self.keys)].into_iter();
        let lacks = lacks.filter(|(_, names)| !names.is_empty());
        let quoted = |names: &BTreeSet<String>| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let lacks = lacks.map(|(verb, names)| format!("{verb} {}", quoted(names)));
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
    if is_unknown_command(&error) {
        let unknown = [command.to_uppercase()].into();
        let explained = Missing { unknown, ..Missing::default() }.has_not().unwrap_or_default();
        return (ErrorKind::Server(ServerErrorKind::NoPerm), "the server refused", explained)
            .into();
    }
    if error.code() != Some("NOPERM") {
        return error;
    }
    let (lacks, grants) = match refused(&error.to_string()) {
        Refused::Command => (format!("run `{command}`"), format!("+{command}")),
        _ => (format!("{command} to `{}`", channels.join("`, `")), format!("&{prefix}*")),
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
    /// What was missing under a prefix when it was last looked at; `None` if nothing was.
    missing: Mutex<Option<(String, Instant, Option<L2Error>)>>,
}

impl Rights {
    /// Checks them once: some would be missed only when a record is stale, or a load lock given back.
    pub(crate) async fn suffice(&self, client: &RedisClient, ledger: &str) -> Result<(), L2Error> {
        let prefix = prefix_of(ledger);
        if self.sufficient.lock().iter().any(|known| known == prefix) {
            return Ok(());
        }
        client.check_store_rights(prefix).await?;
        self.sufficient.lock().push(prefix.to_owned());
        Ok(())
    }

    /// An error of a command for this key; where a right is missing, with its name. Servers tell a script that a
    /// right is missing without a code, and in words that have changed twice: whatever has no code may mean it,
    /// so each right is tried then, and the code of that answer decides.
    pub(crate) async fn explain(
        &self,
        client: &RedisClient,
        key: &str,
        error: &RedisError,
    ) -> L2Error {
        let (explained, prefix) = (l2_error(error), prefix_of(key));
        let unclear = explained.kind() == L2ErrorKind::Other && is_without_code(error);
        if explained.kind() != L2ErrorKind::Denied && !unclear {
            return explained;
        }
        if let Some((of, at, missing)) = &*self.missing.lock()
            && of == prefix
            && at.elapsed() < AGAIN
        {
            return missing.clone().unwrap_or(explained);
        }
        let missing = client.check_store_rights(prefix).await.err();
        let missing = missing.filter(|found| !unclear || found.kind() == L2ErrorKind::Denied);
        *self.missing.lock() = Some((prefix.to_owned(), Instant::now(), missing.clone()));
        missing.unwrap_or(explained)
    }
}
