//! The rights that a user of the server needs, and which of them are missing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::Instant;

use crate::client::RedisClient;
use crate::cluster::slots::Address;
use crate::error::{is_answer, is_unknown_command, is_without_code, l2_error};

/// Commands of stores, backplanes and scripts, on one server, behind sentinels and in a cluster.
/// The server also checks commands inside scripts.
const COMMANDS: &str = "+evalsha +eval +script|load +time +publish +subscribe +info +client|setname \
     +role +asking +readonly +cluster|slots \
     +get +getrange +set +setrange +del +pttl +pexpire \
     +type +zadd +zrem +zremrangebyrank +zcount +zscore +zmscore +zrangebyscore";

/// Rights that a cache can do without. Without `info` a cache does not repeat writes that a
/// failover lost, and reads no replica; without `readonly` it reads no replica of a cluster;
/// without `client|setname` the connection has no name.
const OPTIONAL: [&str; 3] = ["info", "readonly", "client|setname"];

/// How long a finding is reused before the client checks the rights again.
const REUSE_FOR: Duration = Duration::from_secs(1);

/// Returns the rights that the user of a cache with this key prefix needs, and no others, as `ACL
/// SETUSER` takes them. They apply to every server. A database other than 0 also needs `+select`;
/// the tag index also needs `+sadd +scard +sismember +spop +unlink`.
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
    /// Tries every right that a store with this key prefix needs, and writes nothing. A store does
    /// this by itself before it first uses a ledger.
    ///
    /// # Errors
    ///
    /// [`L2ErrorKind::Denied`] if a right is missing, or the server lacks a command; the message
    /// names each, and what to do. Another kind if the server is unreachable.
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

    /// Tries every right that a backplane with this key prefix needs. No subscriber receives the
    /// trial message.
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

/// A right, and a harmless command to try it.
pub(crate) struct Use {
    pub(crate) right: &'static str,
    pub(crate) words: Vec<String>,
}

impl Use {
    /// Whether a store needs this right.
    pub(crate) fn is_needed(&self) -> bool {
        !OPTIONAL.contains(&self.right)
    }

    pub(crate) async fn try_at(&self, client: &RedisClient, at: &Address) -> RedisResult<Value> {
        let mut cmd = redis::cmd(&self.words[0]);
        cmd.arg(&self.words[1..]);
        if self.right != "asking" {
            return client.ask_at(at, &cmd).await;
        }
        // `ASKING` applies to the next command, which must be our own.
        let mut pipe = redis::pipe();
        pipe.add_command(cmd).cmd("TIME");
        let answers = client.pipe_at(at, &pipe, 2).await?;
        answers.into_iter().next().unwrap_or(Value::Nil).extract_error()
    }
}

/// One trial of every right, on keys without a record and on members that no ledger has.
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
        // An invalid name, so nothing changes.
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

/// Kind of a missing right.
enum Refused {
    Command,
    Key,
    Channel,
}

/// Finds the kind by the text of Redis 6.2 to 8.2, Valkey, `ACL DRYRUN` and our own messages:
/// NOPERM does not name the kind.
fn refused(text: &str) -> Refused {
    if text.contains("permissions to run") || text.contains("may not run") {
        Refused::Command
    } else if text.contains("channel")
        || text.contains("may not publish")
        || text.contains("may not subscribe")
    {
        Refused::Channel
    } else {
        Refused::Key
    }
}

/// The rights that a user lacks.
#[derive(Default)]
pub(crate) struct Missing {
    commands: BTreeSet<String>,
    keys: BTreeSet<String>,
    channels: bool,
    /// Commands that the server lacks.
    unknown: BTreeSet<String>,
}

impl Missing {
    /// Notes a refusal. Any other answer shows that the user has the right.
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

    /// Notes a refused right.
    pub(crate) fn note(&mut self, used: &Use, text: &str) {
        match refused(text) {
            Refused::Command => drop(self.commands.insert(used.right.to_owned())),
            Refused::Channel => self.channels = true,
            Refused::Key => {
                let key = used.words.iter().find(|word| word.contains("v1:"));
                self.keys.extend(key.cloned());
            }
        }
    }

    /// Whether rights on keys or channels are missing; these depend on the prefix.
    pub(crate) fn depends_on_prefix(&self) -> bool {
        self.channels || !self.keys.is_empty()
    }

    /// Names the commands that the server lacks, and what to do; `None` if there are none.
    pub(crate) fn lacking_commands(&self) -> Option<String> {
        let names: Vec<_> = self.unknown.iter().map(|name| format!("`{name}`")).collect();
        let lua =
            self.unknown.iter().any(|name| name.starts_with("EVAL") || name.starts_with("SCRIPT"));
        let lua =
            if lua { ", with Lua scripts (load the Lua engine of a Valkey without)" } else { "" };
        (!names.is_empty()).then(|| format!(
            "the server has no {}: a cache cannot work without. Check its configuration for `rename-command`, and any proxy for \
             blocked commands; a cache needs Redis 6.2 or newer, or Valkey{lua}",
            names.join(", ")
        ))
    }

    /// The ACL rules that grant the missing rights; empty if none is missing.
    pub(crate) fn grants(&self, prefix: &str) -> String {
        let keys = (!self.keys.is_empty()).then(|| format!("~{prefix}*"));
        let channels = self.channels.then(|| format!("&{prefix}*"));
        let commands = self.commands.iter().map(|command| format!("+{command}"));
        commands.chain(keys).chain(channels).collect::<Vec<_>>().join(" ")
    }

    fn explain(&self, client: &RedisClient, prefix: &str) -> Result<(), L2Error> {
        if !self.unknown.is_empty() {
            return Err(L2Error::new(
                L2ErrorKind::Denied,
                self.lacking_commands().unwrap_or_default(),
            ));
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

/// Explains a refused `publish` or `subscribe`, with the ACL rule to grant.
pub(crate) fn on_channels(
    error: RedisError,
    client: &RedisClient,
    command: &str,
    channels: &[Cow<'_, str>],
) -> RedisError {
    let prefix = channels.first().map_or("", |channel| prefix_of(channel));
    if is_unknown_command(&error) {
        let unknown = [command.to_uppercase()].into();
        let explained =
            Missing { unknown, ..Missing::default() }.lacking_commands().unwrap_or_default();
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

/// The key prefix of a name. No prefix contains `v1:`, which begins the internal part.
fn prefix_of(name: &str) -> &str {
    name.split("v1:").next().unwrap_or_default()
}

/// What a store knows of its user's rights.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// The prefixes for which the rights suffice.
    sufficient: Mutex<Vec<String>>,
    /// The last check that a refusal triggered: prefix, time, and the error if a right was missing.
    missing: Mutex<Option<(String, Instant, Option<L2Error>)>>,
}

impl Rights {
    /// Checks the rights once per prefix. Otherwise some would fail late: when a record is stale,
    /// or when a load lock is released.
    pub(crate) async fn suffice(&self, client: &RedisClient, ledger: &str) -> Result<(), L2Error> {
        let prefix = prefix_of(ledger);
        if self.sufficient.lock().iter().any(|known| known == prefix) {
            return Ok(());
        }
        client.check_store_rights(prefix).await?;
        self.sufficient.lock().push(prefix.to_owned());
        Ok(())
    }

    /// Converts a command's error, and names the missing right if that is the cause. Inside
    /// scripts, servers report a missing right without a code, in text that has changed twice. So
    /// any error without a code triggers a check of all rights, whose answers have codes.
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
            && at.elapsed() < REUSE_FOR
        {
            return missing.clone().unwrap_or(explained);
        }
        let missing = client.check_store_rights(prefix).await.err();
        let missing = missing.filter(|found| !unclear || found.kind() == L2ErrorKind::Denied);
        *self.missing.lock() = Some((prefix.to_owned(), Instant::now(), missing.clone()));
        missing.unwrap_or(explained)
    }
}
