//! Reads from replicas that are known to be in step with their primary.
//!
//! No server reports how far a replica is behind, but each reports its offset in the primary's
//! history. So the client asks the primary for its offset, then the replica, on the connection for
//! reads, for the offset that it has applied. If the replica has reached the primary's offset, it
//! has every write acknowledged before the question to the primary was sent. It may be read until
//! `lag` after that moment. A replica that does not answer is not read.
//!
//! The rule compares no clocks of two machines. It uses the cache's clock, which continues while
//! the machine sleeps. Once `lag` has passed on it, every replica in step has the node's latest
//! writes.
//!
//! After any failure the client closes the connection, and the next refresh looks for another
//! replica.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use crinkle_core::l2::Found;
use crinkle_core::{Clock, Moment, ServerHealth, SystemClock};
use crinkle_redis_client::{Address, CONNECT_TIMEOUT, RedisClient};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{InfoDict, RedisResult};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::reading;

/// How many offsets of the primary are remembered.
const MARKS: usize = 16;

/// One replica of each primary.
#[derive(Debug)]
pub(crate) struct Replicas {
    pub(crate) lag: Duration,
    clock: Arc<dyn Clock>,
    links: Mutex<HashMap<Address, Link>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// A replica of one primary.
#[derive(Debug, Default)]
struct Link {
    /// The primary's offsets and when they were asked for, the newest last.
    marks: VecDeque<Mark>,
    connection: Option<(Moment, MultiplexedConnection)>,
    /// The current replica, or the last one.
    name: Option<Arc<str>>,
    /// The replica has every write acknowledged before this moment.
    in_step: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Mark {
    asked: Moment,
    history: String,
    length: u64,
}

impl Replicas {
    pub(crate) fn new(lag: Duration) -> Self {
        Self::on(Arc::new(SystemClock), lag)
    }

    fn on(clock: Arc<dyn Clock>, lag: Duration) -> Self {
        Self { lag, clock, links: Mutex::default(), keeper: Mutex::default() }
    }

    /// Reads a record from a replica that is in step.
    pub(crate) async fn read(self: &Arc<Self>, client: &RedisClient, key: &str) -> Option<Found> {
        self.keep(client);
        let primary = client.primary_of(key)?;
        let mut connection = self.in_step(&primary)?;
        let mut trust = Trust { replicas: self, primary: &primary, kept: false };
        let asked = reading::one(key, None);
        let (ttl, bytes): (i64, Option<Bytes>) = asked.query_async(&mut connection).await.ok()?;
        trust.kept = true;
        reading::decide(None, ttl, bytes)?.found
    }

    fn in_step(&self, primary: &Address) -> Option<MultiplexedConnection> {
        let links = self.links.lock();
        let link = links.get(primary)?;
        let good = self.may_be_read(link);
        link.connection.as_ref().filter(|_| good).map(|(_, connection)| connection.clone())
    }

    fn may_be_read(&self, link: &Link) -> bool {
        link.in_step.is_some_and(|at| self.clock.now().since(at) < self.lag)
    }

    /// Each current or last replica, and whether it may be read now.
    pub(crate) fn health(&self) -> Vec<ServerHealth> {
        let links = self.links.lock();
        let health = |link: &Link| {
            let up = link.connection.is_some() && self.may_be_read(link);
            Some(ServerHealth::new(link.name.clone()?, up))
        };
        let mut health: Vec<_> = links.values().filter_map(health).collect();
        health.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        health
    }

    /// Starts the task that checks the replicas, for as long as the store exists.
    fn keep(self: &Arc<Self>, client: &RedisClient) {
        let mut keeper = self.keeper.lock();
        if keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            *keeper = Some(client.spawn(keep(Arc::downgrade(self), client.clone())));
        }
    }

    /// Checks every replica once.
    async fn refresh(&self, client: &RedisClient) {
        let Ok(primaries) = client.primary_addresses().await else { return };
        self.links.lock().retain(|primary, _| primaries.contains(primary));
        join_all(primaries.iter().map(async |primary| {
            let checked = timeout(CONNECT_TIMEOUT, self.check(client, primary)).await;
            if let Ok(Err(error)) = &checked {
                tracing::debug!(%error, "no replica to read from");
            }
            if !matches!(checked, Ok(Ok(()))) {
                self.leave(primary);
            }
        }))
        .await;
    }

    async fn check(&self, client: &RedisClient, primary: &Address) -> RedisResult<()> {
        let mut ask = redis::cmd("INFO");
        ask.arg("replication");
        let asked = self.clock.now();
        let info: InfoDict = redis::from_redis_value(client.command_at(primary, &ask).await?)?;
        self.mark(primary, asked, &info);
        let known = self.links.lock().get(primary).and_then(|link| link.connection.clone());
        let (since, mut replica) = match known {
            Some(known) => known,
            None => {
                let (name, replica) = client.connect_to_replica(primary).await?;
                self.links.lock().entry(primary.clone()).or_default().name = Some(name);
                (self.clock.now(), replica)
            }
        };
        let info: InfoDict = ask.query_async(&mut replica).await?;
        let mut links = self.links.lock();
        let link = links.entry(primary.clone()).or_default();
        link.in_step = link.reached(&info).or(link.in_step);
        let behind = !self.may_be_read(link);
        // Give up a replica that stays behind; the next refresh picks another.
        let left = behind && self.clock.now().since(since) > self.lag;
        (link.connection, link.in_step) =
            if left { (None, None) } else { (Some((since, replica)), link.in_step) };
        Ok(())
    }

    fn mark(&self, primary: &Address, asked: Moment, info: &InfoDict) {
        let says = |line: &str| info.get::<String>(line);
        if let (Some(history), Some(length)) =
            (says("master_replid"), info.get("master_repl_offset"))
            && says("role").as_deref() == Some("master")
        {
            let mut links = self.links.lock();
            let marks = &mut links.entry(primary.clone()).or_default().marks;
            if marks.len() == MARKS {
                marks.pop_front();
            }
            marks.push_back(Mark { asked, history, length });
        }
    }

    fn leave(&self, primary: &Address) {
        if let Some(link) = self.links.lock().get_mut(primary) {
            (link.connection, link.in_step) = (None, None);
        }
    }
}

impl Link {
    /// The newest moment before which the replica has every write.
    fn reached(&self, info: &InfoDict) -> Option<Moment> {
        let history = info.get::<String>("master_replid")?;
        let applied = info.get::<u64>("slave_repl_offset")?;
        let has = |mark: &&Mark| mark.history == history && mark.length <= applied;
        self.marks.iter().rev().find(has).map(|mark| mark.asked)
    }
}

/// Gives up a replica unless it answers the read.
struct Trust<'a> {
    replicas: &'a Replicas,
    primary: &'a Address,
    kept: bool,
}

impl Drop for Trust<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.replicas.leave(self.primary);
        }
    }
}

async fn keep(replicas: Weak<Replicas>, client: RedisClient) {
    while let Some(replicas) = replicas.upgrade() {
        replicas.refresh(&client).await;
        let pause = (replicas.lag / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
        drop(replicas);
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use crinkle_core::ManualClock;

    use super::*;

    #[test]
    fn a_replica_is_in_step_by_the_clock_of_the_cache_which_goes_on_in_sleep() {
        let (clock, lag) = (Arc::new(ManualClock::new()), Duration::from_secs(1));
        let replicas = Replicas::on(Arc::<ManualClock>::clone(&clock), lag);
        let link = Link { in_step: Some(clock.now()), ..Link::default() };
        clock.advance(lag / 2);
        assert!(replicas.may_be_read(&link));
        // The machine sleeps: only this clock moves.
        clock.advance(lag / 2);
        assert!(!replicas.may_be_read(&link));
        assert!(
            !replicas.may_be_read(&Link::default()),
            "a replica that has not answered must not be read"
        );
    }
}
