//! The facts that the doctor collects from a server.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crinkle_core::l2::L2Error;
use crinkle_redis_client::RedisClient;
use crinkle_redis_client::error::{is_answer, l2_error};
use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, InfoDict, RedisError,
    RedisResult,
};
use tokio::time::timeout;

/// Limit for a replica to report its time.
const REPLICA_LIMIT: Duration = Duration::from_secs(3);

const SETTINGS: [&str; 7] = [
    "client-output-buffer-limit",
    "save",
    "stop-writes-on-bgsave-error",
    "tcp-keepalive",
    "timeout",
    "maxmemory",
    "maxmemory-policy",
];

pub(super) struct ServerFacts {
    /// `None` if the user lacks the right.
    pub(super) info: Option<InfoDict>,
    /// Empty if the user lacks the right.
    pub(super) config: HashMap<String, String>,
    /// How far the server's clock is ahead of this host's; `None` if the server does not report its
    /// time.
    pub(super) ahead: Option<Ahead>,
    /// Each replica's address, and how far its clock is ahead; `None` if it is unreachable.
    pub(super) replicas: Vec<(String, Option<Ahead>)>,
}

/// How far one clock is ahead of another, in milliseconds, and how uncertain that is.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) ms: i64,
    pub(super) give_or_take: i64,
}

impl ServerFacts {
    pub(super) async fn gather(client: &RedisClient) -> Result<Self, L2Error> {
        let mut commands = client.clone();
        let ahead = allowed(ahead(&mut commands).await)?;
        let info: Option<InfoDict> = ask(&mut commands, &redis::cmd("INFO")).await?;
        let mut config = HashMap::new();
        for name in SETTINGS {
            let mut cmd = redis::cmd("CONFIG");
            cmd.arg("GET").arg(name);
            let Some(found) = ask::<HashMap<String, String>>(&mut commands, &cmd).await? else {
                break;
            };
            config.extend(found);
        }
        let mut facts = Self { info, config, ahead, replicas: Vec::new() };
        facts.ask_replicas(client).await?;
        Ok(facts)
    }

    /// One line of INFO.
    pub(super) fn info<T: FromRedisValue>(&self, name: &str) -> Option<T> {
        self.info.as_ref()?.get(name)
    }

    /// A setting, from CONFIG, or else from INFO.
    pub(super) fn setting<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let said = self.config.get(name).cloned();
        said.or_else(|| self.info(&name.replace('-', "_")))?.parse().ok()
    }

    async fn ask_replicas(&mut self, client: &RedisClient) -> Result<(), L2Error> {
        let lines: Vec<String> = (0..).map_while(|at| self.info(&format!("slave{at}"))).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let primary = client.server().await.map_err(|error| l2_error(&error))?;
        let ours = self.ahead;
        let asked = lines.iter().filter_map(|line| address(line)).map(async |(host, port)| {
            let theirs = timeout(REPLICA_LIMIT, ahead_at(&primary, host, port)).await;
            let theirs = theirs.ok().and_then(Result::ok).zip(ours);
            let ahead = theirs.map(|(theirs, ours)| Ahead {
                ms: theirs.ms - ours.ms,
                give_or_take: theirs.give_or_take + ours.give_or_take,
            });
            (format!("{host}:{port}"), ahead)
        });
        self.replicas = join_all(asked).await;
        Ok(())
    }
}

/// `None` if the server does not know the command or refuses it to the user.
pub(super) async fn ask<T: FromRedisValue>(
    client: &mut RedisClient,
    cmd: &Cmd,
) -> Result<Option<T>, L2Error> {
    allowed(cmd.query_async(client).await)
}

fn allowed<T>(answer: RedisResult<T>) -> Result<Option<T>, L2Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_answer(&error) => Ok(None),
        Err(error) => Err(l2_error(&error)),
    }
}

async fn ahead_at(primary: &Client, host: &str, port: u16) -> RedisResult<Ahead> {
    let info = primary.get_connection_info().clone();
    let mut at = info.addr().clone();
    match &mut at {
        ConnectionAddr::TcpTls { host: named, port: open, .. } => {
            host.clone_into(named);
            *open = port;
        }
        other => *other = ConnectionAddr::Tcp(host.to_owned(), port),
    }
    let replica = Client::open(info.set_addr(at))?;
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REPLICA_LIMIT))
        .set_response_timeout(Some(REPLICA_LIMIT));
    ahead(&mut replica.get_multiplexed_async_connection_with_config(&patient).await?).await
}

/// How far the server's clock is ahead. The server read it about halfway through the round trip.
async fn ahead(there: &mut impl ConnectionLike) -> RedisResult<Ahead> {
    let () = redis::cmd("PING").query_async(there).await.or_else(|error: RedisError| {
        // The PING keeps connecting out of the round trip; a user that may not PING has connected
        // as well.
        if is_answer(&error) { Ok(()) } else { Err(error) }
    })?;
    let before = host_now();
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(there).await?;
    let after = host_now();
    let theirs = Duration::from_secs(seconds) + Duration::from_micros(micros);
    let middle = before + after.saturating_sub(before) / 2;
    let give_or_take = millis(after.saturating_sub(before)) / 2 + 1;
    Ok(Ahead { ms: millis(theirs) - millis(middle), give_or_take })
}

#[expect(clippy::disallowed_methods, reason = "shown to an operator; no decision reads it")]
fn host_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Parses `ip=10.0.0.7,port=6379,state=online,...`.
fn address(line: &str) -> Option<(&str, u16)> {
    let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name));
    Some((field("ip=")?, field("port=")?.parse().ok()?))
}
