//! Sends `SET` with its deadline, in the time of the server that gets it.
//!
//! The servers of a cluster, and a server that replaces another, have their own clocks. So the
//! clock is learned from each server over the connection of its commands, and forgotten with that
//! connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crinkle_core::l2::{Announce, Deadline, Record, ServerTime};
use crinkle_core::{Clock, SystemClock};
use crinkle_redis_client::{Attachments, Call, Hop, RedisClient};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, Value, cmd, from_redis_value, pipe};
use tokio::time::timeout;

use crate::ledger::ttl;
use crate::scripts;

/// Limit of a background request for the server's time.
const PATIENCE: Duration = Duration::from_secs(1);

/// One `SET`, for any server.
pub(crate) struct Set<'a> {
    key: &'a str,
    record: &'a Record,
    deadline: Option<Deadline>,
    channel: Cow<'a, str>,
    message: &'a [u8],
}

impl<'a> Set<'a> {
    pub(crate) fn new(
        client: &RedisClient,
        key: &'a str,
        record: &'a Record,
        deadline: Option<Deadline>,
        announce: Option<&'a Announce>,
    ) -> Self {
        let (channel, message) = match announce {
            Some(to) => (client.channel(&to.channel), &to.message[..]),
            None => (Cow::Borrowed(""), &[][..]),
        };
        Self { key, record, deadline, channel, message }
    }

    fn cmd(&self, latest_us: Option<u64>, whole: bool) -> Cmd {
        let hash = scripts::SET.get_hash();
        let text = whole.then(|| scripts::text(hash)).flatten();
        let mut call = cmd(if text.is_some() { "EVAL" } else { "EVALSHA" });
        call.arg(text.unwrap_or(hash)).arg(1).arg(self.key);
        call.arg(&self.record.bytes[..]).arg(ttl(self.record.ttl_ms));
        call.arg(latest_us.map_or_else(String::new, |us| us.to_string()));
        call.arg(&*self.channel).arg(self.message);
        call
    }
}

/// The reply is false if the command missed its deadline.
impl Call for Set<'_> {
    type Reply = bool;

    fn key(&self) -> &str {
        self.key
    }

    fn script(&self) -> &Script {
        &scripts::SET
    }

    async fn send(
        &self,
        commands: &mut MultiplexedConnection,
        attached: &Attachments,
        hop: Hop,
    ) -> RedisResult<bool> {
        attached.get::<Known>().set(commands, self, hop).await
    }
}

/// Refreshes what is known of the servers' clocks, in the background, where it is needed.
pub(crate) fn refresh_clocks(client: &RedisClient) {
    client.visit_connections(|commands, attached| attached.get::<Known>().refresh(commands));
}

/// What is known of the clock of one connection's server.
#[derive(Clone, Default)]
struct Known {
    time: Arc<ServerTime>,
    /// A request for the time is in flight.
    asking: Arc<AtomicBool>,
    /// The connection has sent a `SET`.
    used: Arc<AtomicBool>,
}

impl Known {
    /// Sends a `SET`; false if it missed its deadline. If the server refuses it as late although
    /// the deadline has not passed here, the server's clock was set forward: the `SET` is sent
    /// again with the new time.
    async fn set(
        &self,
        commands: &mut MultiplexedConnection,
        set: &Set<'_>,
        hop: Hop,
    ) -> RedisResult<bool> {
        let in_time = || set.deadline.as_ref().is_some_and(|deadline| !deadline.is_over());
        if self.set_once(commands, set, hop).await? {
            return Ok(true);
        }
        if in_time() { self.set_once(commands, set, hop).await } else { Ok(false) }
    }

    async fn set_once(
        &self,
        commands: &mut MultiplexedConnection,
        set: &Set<'_>,
        hop: Hop,
    ) -> RedisResult<bool> {
        let latest = match &set.deadline {
            None => None,
            Some(deadline) => Some(self.latest_us(commands, deadline).await?),
        };
        let (call, asked) = (set.cmd(latest, hop.whole), SystemClock.now());
        let reply = if hop.asking {
            // One pipeline, so that no other command comes between the two.
            let both = pipe().cmd("ASKING").add_command(call).clone();
            commands.send_packed_commands(&both, 0, 2).await?.pop().unwrap_or(Value::Nil)
        } else {
            commands.send_packed_command(&call).await?
        };
        let (stored, time_us): (bool, u64) = from_redis_value(reply.extract_error()?)?;
        if !stored {
            self.time.forget();
        }
        self.time.learn(time_us, asked, SystemClock.now());
        self.used.store(true, Ordering::Relaxed);
        Ok(stored)
    }

    async fn latest_us(
        &self,
        commands: &mut MultiplexedConnection,
        deadline: &Deadline,
    ) -> RedisResult<u64> {
        if let Some(latest) = self.time.latest_us(deadline, &SystemClock) {
            return Ok(latest);
        }
        self.ask(commands).await?;
        let latest = self.time.latest_us(deadline, &SystemClock);
        latest.ok_or_else(|| {
            RedisError::from((ErrorKind::Io, "the server took too long to answer TIME"))
        })
    }

    async fn ask(&self, commands: &mut MultiplexedConnection) -> RedisResult<()> {
        let asked = SystemClock.now();
        let reply = commands.send_packed_command(&cmd("TIME")).await?.extract_error()?;
        let (s, us): (u64, u64) = from_redis_value(reply)?;
        self.time.learn(s.saturating_mul(1_000_000).saturating_add(us), asked, SystemClock.now());
        Ok(())
    }

    /// Asks for the time in the background, so that the next `SET` need not.
    fn refresh(&self, commands: &MultiplexedConnection) {
        let due = self.used.load(Ordering::Relaxed) && self.time.is_due(SystemClock.now());
        if !due || self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (known, mut commands) = (self.clone(), commands.clone());
        let asked = Asked(Arc::clone(&self.asking));
        tokio::spawn(async move {
            let _asked = asked;
            // If this fails, the next `SET` asks.
            drop(timeout(PATIENCE, known.ask(&mut commands)).await);
        });
    }
}

/// Marks the request as done, also if the runtime drops the task.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
