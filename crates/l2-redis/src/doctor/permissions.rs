//! May this user do what a cache does? Every command is tried in a form that changes nothing.

use crinkle_core::l2::L2Error;
use redis::{Cmd, RedisError, RedisResult, Value};

use super::facts::is_answer;
use super::{Report, Severity};
use crate::client::RedisClient;
use crate::error::l2_error;

/// What each command is tried with, after the key. The key is absent, and none of these makes it.
const ON_KEYS: [(&str, &[&str]); 15] = [
    ("get", &[]),
    ("getrange", &["0", "0"]),
    ("set", &["", "XX"]),
    ("setrange", &["0", ""]),
    ("del", &[]),
    ("pttl", &[]),
    ("pexpire", &["1000"]),
    ("type", &[]),
    ("zadd", &["XX", "1", "m"]),
    ("zrem", &["m"]),
    ("zremrangebyrank", &["0", "0"]),
    ("zcount", &["0", "1"]),
    ("zscore", &["m"]),
    ("zmscore", &["m"]),
    ("zrangebyscore", &["0", "1"]),
];

/// A script that no server has.
const NO_SCRIPT: &str = "ffffffffffffffffffffffffffffffffffffffff";

/// What a server has said no to.
#[derive(Default)]
struct Missing {
    commands: Vec<&'static str>,
    keys: bool,
    channels: bool,
}

pub(super) async fn examine(
    client: &RedisClient,
    prefix: &str,
    user: Option<&str>,
    report: &mut Report,
) -> Result<(), L2Error> {
    let mut missing = Missing::default();
    for (name, cmd) in tries(prefix) {
        let answer = match user {
            Some(user) => dry_run(client, user, &cmd).await,
            None if name == "subscribe" => client.subscribe(&[place(prefix)]).await.map(|_| None),
            None => cmd.query_async(&mut client.clone()).await.map(|_: Value| None),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(no)) => missing.note(name, &no),
            Err(error) if !is_answer(&error) => return Err(l2_error(&error)),
            Err(error) if user.is_some() => {
                cannot_dry_run(user.unwrap_or_default(), &error, report);
                return Ok(());
            }
            Err(error) if error.code() == Some("NOPERM") => missing.note(name, &error.to_string()),
            Err(_) => {}
        }
    }
    let server = client.server().await.map_err(|error| l2_error(&error))?;
    let own = server.get_connection_info().redis_settings().username().unwrap_or("default");
    missing.tell(prefix, user.unwrap_or(own), report);
    Ok(())
}

fn place(prefix: &str) -> String {
    format!("{prefix}v1:doctor")
}

fn tries(prefix: &str) -> Vec<(&'static str, Cmd)> {
    let key = place(prefix);
    let on_key = |(name, args): &(&'static str, &[&str])| {
        let mut cmd = redis::cmd(name);
        cmd.arg(&key).arg(*args);
        (*name, cmd)
    };
    let with = |name: &str, args: &[&str]| {
        let mut cmd = redis::cmd(name);
        cmd.arg(args);
        cmd
    };
    let mut all: Vec<_> = ON_KEYS.iter().map(on_key).collect();
    all.push(("evalsha", with("EVALSHA", &[NO_SCRIPT, "1", &key])));
    all.push(("script|load", with("SCRIPT", &["LOAD", "return 1"])));
    all.push(("time", redis::cmd("TIME")));
    all.push(("publish", with("PUBLISH", &[&key, ""])));
    all.push(("subscribe", with("SUBSCRIBE", &[&key])));
    all
}

/// Why the user may not, if so.
async fn dry_run(client: &RedisClient, user: &str, cmd: &Cmd) -> RedisResult<Option<String>> {
    let mut dry = redis::cmd("ACL");
    dry.arg("DRYRUN").arg(user);
    for arg in cmd.args_iter() {
        if let redis::Arg::Simple(arg) = arg {
            dry.arg(arg);
        }
    }
    let said: String = dry.query_async(&mut client.clone()).await?;
    Ok((said != "OK").then_some(said))
}

fn cannot_dry_run(user: &str, error: &RedisError, report: &mut Report) {
    let said = error.detail().unwrap_or_default();
    if said.contains("not found") {
        report.add(
            Severity::Problem,
            "permissions",
            [
                format!("there is no user {user:?} on this server"),
                "whoever connects as that user is refused".to_owned(),
                "create the user (docs/redis.md has the rule), or ask for another".to_owned(),
            ],
        );
        return;
    }
    report.add(
        Severity::Note,
        "permissions",
        [
            format!("the permissions of {user:?} cannot be tried: {error}"),
            "it takes Redis 7.0 and the permission for ACL DRYRUN".to_owned(),
            "connect as that user and leave --user out: each command is tried for real then"
                .to_owned(),
        ],
    );
}

impl Missing {
    /// Servers say whether it was the command, in the words of their version.
    fn note(&mut self, name: &'static str, said: &str) {
        if said.contains("to run the") || said.contains("may not run") {
            self.commands.push(name);
        } else if ["publish", "subscribe"].contains(&name) {
            self.channels = true;
        } else {
            self.keys = true;
        }
    }

    fn tell(&self, prefix: &str, user: &str, report: &mut Report) {
        let keys = self.keys.then(|| format!("~{prefix}*"));
        let channels = self.channels.then(|| format!("&{prefix}*"));
        let commands = self.commands.iter().map(|name| format!("+{name}"));
        let rules: Vec<_> = commands.chain(keys).chain(channels).collect();
        if rules.is_empty() {
            return;
        }
        let rules = rules.join(" ");
        report.add(Severity::Problem, "permissions", [
            format!("user {user:?} lacks {rules}"),
            "a cache whose commands are refused runs on its L1 alone, and its invalidations wait in \
             a queue"
                .to_owned(),
            format!("ACL SETUSER {user} {rules}  (then ACL SAVE, or the same in the ACL file)"),
        ]);
    }
}
