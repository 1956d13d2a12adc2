//! The rights that a user of the server needs, and the advice for those that are missing.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use crate::error::{is_answer, is_unknown_command, l2_error};

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

/// Returns the rights that the user of a cache with this key prefix needs, and no others, as `ACL
/// SETUSER` takes them. They apply to every server. A database other than 0 also needs `+select`;
/// the tag index also needs `+sadd +scard +sismember +spop +unlink`.
///
/// ```
/// let rule = crinkle_redis_client::acl::acl_rule("shop:");
/// assert!(rule.starts_with("resetkeys ~shop:* resetchannels &shop:* -@all +evalsha"));
/// ```
#[must_use]
pub fn acl_rule(prefix: &str) -> String {
    format!("resetkeys ~{prefix}* resetchannels &{prefix}* -@all {COMMANDS}")
}

/// A right, and a harmless command to try it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trial {
    /// The right, as in `ACL SETUSER`, without the plus.
    pub right: &'static str,
    /// The words of the command.
    pub words: Vec<String>,
}

impl Trial {
    /// The trial of a right by this command.
    #[must_use]
    pub fn new(right: &'static str, words: Vec<String>) -> Self {
        Self { right, words }
    }

    /// Whether a cache needs this right.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !OPTIONAL.contains(&self.right)
    }
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
#[derive(Clone, Debug, Default)]
pub struct Missing {
    commands: BTreeSet<String>,
    keys: BTreeSet<String>,
    channels: bool,
    /// Commands that the server lacks.
    unknown: BTreeSet<String>,
}

impl Missing {
    /// Notes a refusal. Any other answer shows that the user has the right.
    ///
    /// # Errors
    ///
    /// If the server did not answer the command itself.
    pub fn note_answer<T>(&mut self, trial: &Trial, answer: RedisResult<T>) -> Result<(), L2Error> {
        match answer {
            Err(error) if error.code() == Some("NOPERM") => self.note(trial, &error.to_string()),
            Err(error) if is_unknown_command(&error) => {
                self.unknown.insert(trial.right.replace('|', " ").to_uppercase());
            }
            Err(error) if !is_answer(&error) => return Err(l2_error(&error)),
            _ => {}
        }
        Ok(())
    }

    /// Notes a refused right.
    pub fn note(&mut self, trial: &Trial, text: &str) {
        match refused(text) {
            Refused::Command => self.note_command(trial.right),
            Refused::Channel => self.channels = true,
            Refused::Key => {
                let key = trial.words.iter().find(|word| word.contains("v1:"));
                self.keys.extend(key.cloned());
            }
        }
    }

    /// Notes that the user may not run this command.
    pub fn note_command(&mut self, right: impl Into<String>) {
        self.commands.insert(right.into());
    }

    /// Whether rights on keys or channels are missing; these depend on the prefix.
    #[must_use]
    pub fn depends_on_prefix(&self) -> bool {
        self.channels || !self.keys.is_empty()
    }

    /// Names the commands that the server lacks, and what to do; `None` if there are none.
    fn lacking_commands(&self) -> Option<String> {
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
    #[must_use]
    pub fn grants(&self, prefix: &str) -> String {
        let keys = (!self.keys.is_empty()).then(|| format!("~{prefix}*"));
        let channels = self.channels.then(|| format!("&{prefix}*"));
        let commands = self.commands.iter().map(|command| format!("+{command}"));
        commands.chain(keys).chain(channels).collect::<Vec<_>>().join(" ")
    }

    /// Returns an error that names what is missing for this user, and what to do.
    ///
    /// # Errors
    ///
    /// [`L2ErrorKind::Denied`] if anything is missing.
    pub fn explain(&self, user: &str, prefix: &str) -> Result<(), L2Error> {
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
        Err(L2Error::new(L2ErrorKind::Denied, advice(user, &lacks, &grants, prefix)))
    }
}

fn advice(user: &str, lacks: &str, grants: &str, prefix: &str) -> String {
    let rule = acl_rule(prefix);
    format!(
        "user `{user}` may not {lacks}: `ACL SETUSER {user} {grants}`; all that it needs is `{rule}`"
    )
}

/// Explains a refused `publish` or `subscribe`, with the ACL rule to grant.
pub(crate) fn on_channels(
    error: RedisError,
    user: &str,
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
    let advice = advice(user, &lacks, &grants, prefix);
    (kind, "the server refused", format!("{advice} ({error})")).into()
}

/// The key prefix of a name. No prefix contains `v1:`, which begins the internal part.
#[must_use]
pub fn prefix_of(name: &str) -> &str {
    name.split("v1:").next().unwrap_or_default()
}
