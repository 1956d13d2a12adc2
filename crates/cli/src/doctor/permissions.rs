//! Examines whether a user may run the commands of a cache. Each command is tried in a form that
//! changes nothing.

use crinkle_core::l2::L2Error;
use crinkle_l2_redis::store_trials;
use crinkle_redis_client::RedisClient;
use crinkle_redis_client::acl::{Missing, Trial};
use crinkle_redis_client::error::{is_answer, is_without_code, l2_error};
use redis::{RedisError, RedisResult};

use super::{Report, Severity};

pub(super) async fn examine(
    client: &RedisClient,
    prefix: &str,
    user: Option<&str>,
    in_cluster: bool,
    report: &mut Report,
) -> Result<(), L2Error> {
    let (mut needed, mut useful) = (Missing::default(), Missing::default());
    let mut unknown = Vec::new();
    let channel = format!("{prefix}v1:doctor");
    let on_channel =
        |right: &'static str| Trial::new(right, vec![right.to_owned(), channel.clone()]);
    let mut all = store_trials(prefix, in_cluster);
    all.extend(["publish", "subscribe"].map(on_channel));
    for trial in &all {
        let missing = if trial.is_needed() { &mut needed } else { &mut useful };
        let Some(user) = user else {
            let answer = try_oneself(client, trial, &channel).await;
            if trial.is_needed() && answer.as_ref().is_err_and(is_without_code) {
                unknown.push(trial.right);
            }
            missing.note_answer(trial, answer)?;
            continue;
        };
        match dry_run(client, user, trial).await {
            Ok(detail) if detail == "OK" => {}
            Ok(no) => missing.note(trial, &no),
            Err(error) if !is_answer(&error) => return Err(l2_error(&error)),
            Err(error) if detail(&error).starts_with("Command ") => {
                if trial.is_needed() {
                    unknown.push(trial.right);
                }
            }
            Err(error) => {
                cannot_dry_run(user, &error, report);
                return Ok(());
            }
        }
    }
    report_unknown(&unknown, report);
    let own = client.user();
    let user = user.unwrap_or(&own);
    let of_prefix = needed.depends_on_prefix().then_some(prefix);
    report_missing(&needed.grants(prefix), Severity::Problem, user, of_prefix, report);
    report_missing(&useful.grants(prefix), Severity::Note, user, None, report);
    Ok(())
}

/// Tries commands on the connection for commands, and channels by a backplane's calls.
async fn try_oneself(client: &RedisClient, trial: &Trial, channel: &str) -> RedisResult<()> {
    match trial.right {
        "publish" => client.publish(channel, b"").await,
        "subscribe" => client.subscribe(&[channel.to_owned()]).await.map(drop),
        _ => client.try_right(&RedisClient::only_primary(), trial).await.map(drop),
    }
}

/// Returns the reason of the refusal, or `OK`.
async fn dry_run(client: &RedisClient, user: &str, trial: &Trial) -> RedisResult<String> {
    let mut dry = redis::cmd("ACL");
    dry.arg("DRYRUN").arg(user).arg(&trial.words);
    if trial.right == "publish" {
        dry.arg("");
    }
    dry.query_async(&mut client.clone()).await
}

fn detail(error: &RedisError) -> &str {
    error.detail().unwrap_or_default()
}

/// Reports commands that the server lacks. A server that knows a command answers the trial; a
/// failure without a code means that it does not.
fn report_unknown(commands: &[&str], report: &mut Report) {
    if commands.is_empty() {
        return;
    }
    let has_no_lua = commands.iter().any(|command| ["evalsha", "script|load"].contains(command));
    let (follows, fix) = if has_no_lua {
        (
            "a cache writes and invalidates by Lua scripts: without them it runs on its L1 alone, and uses \
             neither records nor a ledger on this server",
            "use a server that runs Lua scripts (Redis 6.2 or newer, Valkey); if `rename-command` disables \
             the commands, enable them; in a Valkey without Lua, load its Lua engine",
        )
    } else {
        (
            "the calls of a cache that need these commands fail, and it runs on its L1 alone",
            "upgrade to Redis 6.2 or newer, or Valkey; if `rename-command` disables the commands, enable \
             them",
        )
    };
    let what = format!("the server does not offer {}", commands.join(", "));
    report.add(Severity::Problem, "commands", [&*what, follows, fix]);
}

fn cannot_dry_run(user: &str, error: &RedisError, report: &mut Report) {
    if detail(error).contains("not found") {
        report.add(
            Severity::Problem,
            "permissions",
            [
                format!("there is no user {user:?} on this server"),
                "the server refuses every login as that user".to_owned(),
                "create the user (docs/redis.md has the rule), or name another".to_owned(),
            ],
        );
        return;
    }
    report.add(
        Severity::Note,
        "permissions",
        [
            format!("the permissions of {user:?} cannot be tried: {error}"),
            "this needs Redis 7.0 and the permission for ACL DRYRUN".to_owned(),
            "connect as that user and omit --user: the doctor then tries each command for real"
                .to_owned(),
        ],
    );
}

/// Reports missing rights. `prefix`: keys or channels under it are missing, so it may be mistyped.
fn report_missing(
    grants: &str,
    severity: Severity,
    user: &str,
    prefix: Option<&str>,
    report: &mut Report,
) {
    if grants.is_empty() {
        return;
    }
    let (check, follows) = if severity == Severity::Problem {
        (
            "permissions",
            "a cache whose commands are refused runs on its L1 alone, and its invalidations wait in a queue",
        )
    } else {
        (
            "optional_permissions",
            "without info, a cache does not repeat writes that a failover lost and reads no replica; without \
             readonly it reads no replica of a cluster; without client|setname connections have no name",
        )
    };
    let grant =
        format!("ACL SETUSER {user} {grants}  (then ACL SAVE, or the same in the ACL file)");
    let fix = match prefix {
        Some(prefix) => format!(
            "first make sure that {prefix:?} is the key prefix of the cache (its name and a colon, unless it has a \
             key_prefix); only then {grant}"
        ),
        None => grant,
    };
    report.add(severity, check, [format!("user {user:?} lacks {grants}"), follows.to_owned(), fix]);
}
