//! Reads records by plain commands where they suffice, else by script. Outside a cluster,
//! concurrent reads share round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use crinkle_core::l2::{L2Error, L2ErrorKind, Read};
use crinkle_core::protocol::Epoch;
use crinkle_core::protocol::record::LoadLockRequest;
use crinkle_redis_client::RedisClient;
use crinkle_redis_client::error::{is_answer, is_demoted, l2_error};
use futures_util::future::join_all;
use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};

use crate::coalesce::{Admission, Coalescer, answer};
use crate::rights::Rights;
use crate::{ledger, reading, scripts};

/// One read: the key, and the load lock that it requests.
type Ask = (String, Option<LoadLockRequest>);

/// The ledger's key, and its epoch.
type FrontierAsk = (String, Epoch);

/// The reads of a store. Clones share the round trips.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    commands: Commands,
    /// `None` in a cluster: there the keys of a batch can belong to several servers, and one that
    /// is down, or is handing a slot over, would hold up the keys of the others.
    coalesced: Option<Coalesced>,
}

#[derive(Clone, Debug)]
struct Coalesced {
    records: Arc<Coalescer<Ask, Read>>,
    frontiers: Arc<Coalescer<FrontierAsk, Option<u64>>>,
}

impl Reads {
    pub(super) fn new(client: RedisClient, rights: Arc<Rights>) -> Self {
        let commands = Commands { client, rights, locks_by_script: Arc::default() };
        let coalesced = (!commands.client.is_cluster()).then(|| {
            let (reads, frontiers) = (commands.clone(), commands.clone());
            let read = move |asks| {
                let commands = reads.clone();
                async move { commands.read_each(asks).await }
            };
            let frontier = move |asks| {
                let commands = frontiers.clone();
                async move { commands.frontiers(asks).await }
            };
            Coalesced {
                records: Coalescer::new(commands.client.clone(), read),
                frontiers: Coalescer::new(commands.client.clone(), frontier),
            }
        });
        Self { commands, coalesced }
    }

    #[cfg(feature = "testing")]
    pub(super) fn lock_by_script(&self) {
        self.commands.locks_by_script.store(true, Ordering::Relaxed);
    }

    /// Reads a record.
    pub(super) async fn read(
        &self,
        key: &str,
        ask: Option<LoadLockRequest>,
    ) -> Result<Read, L2Error> {
        let Some(coalesced) = &self.coalesced else { return self.commands.read(key, ask).await };
        match coalesced.records.admit(|| (key.to_owned(), ask)) {
            Admission::Alone(_alone) => self.commands.read(key, ask).await,
            Admission::Batched(reply) => answer(reply).await,
        }
    }

    /// Reads many records in one round trip.
    pub(super) async fn read_many(&self, asks: &[Ask]) -> Result<Vec<Read>, L2Error> {
        self.commands.read_many(asks).await
    }

    /// Reads the last number of the ledger with this epoch, on the connection that a concurrent
    /// call uses.
    pub(super) async fn frontier(
        &self,
        ledger: &str,
        epoch: Epoch,
    ) -> Result<Option<u64>, L2Error> {
        self.commands.frontier(ledger, epoch).await
    }

    /// Reads it once for all that ask at the same time; it may use another connection than the
    /// concurrent call.
    pub(super) async fn shared_frontier(
        &self,
        ledger: &str,
        epoch: Epoch,
    ) -> Result<Option<u64>, L2Error> {
        let Some(coalesced) = &self.coalesced else { return self.frontier(ledger, epoch).await };
        match coalesced.frontiers.admit(|| (ledger.to_owned(), epoch)) {
            Admission::Alone(_alone) => self.commands.frontier(ledger, epoch).await,
            Admission::Batched(reply) => answer(reply).await,
        }
    }
}

/// Sends the commands of reads.
#[derive(Clone, Debug)]
struct Commands {
    client: RedisClient,
    rights: Arc<Rights>,
    /// The server is older than Redis 7.0: plain commands cannot create load locks.
    locks_by_script: Arc<AtomicBool>,
}

impl Commands {
    async fn pipe<T: FromRedisValue>(&self, pipe: &Pipeline) -> RedisResult<T> {
        pipe.query_async(&mut self.client.clone()).await
    }

    /// Whether plain commands may serve this request on this server.
    fn reads_plainly(&self, ask: Option<LoadLockRequest>) -> bool {
        let known = ask.is_none() || !self.locks_by_script.load(Ordering::Relaxed);
        known && reading::is_plain(ask)
    }

    async fn read(&self, key: &str, ask: Option<LoadLockRequest>) -> Result<Read, L2Error> {
        if self.reads_plainly(ask) {
            match self.pipe(&reading::one(key, ask)).await {
                Ok((ttl, bytes)) => {
                    if let Some(read) = reading::decide(ask, ttl, bytes) {
                        return Ok(read);
                    }
                }
                Err(error) => self.not_plainly(&error)?,
            }
        }
        self.read_by_script(key, ask).await
    }

    async fn read_by_script(
        &self,
        key: &str,
        ask: Option<LoadLockRequest>,
    ) -> Result<Read, L2Error> {
        match reading::by_script(key, ask).invoke_async(&mut self.client.clone()).await {
            Ok(reply) => Ok(reading::found(ask, reply)),
            Err(error) => Err(self.rights.explain(&self.client, key, &error).await),
        }
    }

    /// Reads records that do not belong together in one round trip; one that fails, or that needs
    /// the script, concerns no other.
    async fn read_each(&self, asks: Vec<Ask>) -> Vec<Result<Read, L2Error>> {
        // Decided once: a reply to one key can turn plain commands off for the next ones.
        let plain: Vec<bool> = asks.iter().map(|(_, ask)| self.reads_plainly(*ask)).collect();
        let mut pipe = Pipeline::with_capacity(2 * asks.len());
        for ((key, ask), _) in asks.iter().zip(&plain).filter(|(_, plain)| **plain) {
            reading::add(&mut pipe, key, *ask);
        }
        pipe.ignore_errors();
        let replies: Vec<RedisResult<Value>> = if pipe.is_empty() {
            Vec::new()
        } else {
            match self.pipe(&pipe).await {
                Ok(replies) => replies,
                Err(error) => return vec![Err(l2_error(&error)); asks.len()],
            }
        };
        let mut replies = replies.into_iter();
        let each = asks.iter().zip(plain).map(|((key, ask), plain)| {
            let read = plain.then(|| self.plain_reply(*ask, replies.next(), replies.next()));
            async move {
                match read.transpose()?.flatten() {
                    Some(read) => Ok(read),
                    None => self.read_by_script(key, *ask).await,
                }
            }
        });
        join_all(each.collect::<Vec<_>>()).await
    }

    /// Decodes the two replies of one key; `None` if the script has to decide.
    fn plain_reply(
        &self,
        ask: Option<LoadLockRequest>,
        ttl: Option<RedisResult<Value>>,
        bytes: Option<RedisResult<Value>>,
    ) -> Result<Option<Read>, L2Error> {
        let (Some(ttl), Some(bytes)) = (ttl, bytes) else {
            return Err(L2Error::new(L2ErrorKind::Other, "the server left a command unanswered"));
        };
        let decoded = ttl.and_then(|ttl| Ok((redis::from_redis_value(ttl)?, bytes?)));
        let decoded = decoded.and_then(|(ttl, bytes)| Ok((ttl, redis::from_redis_value(bytes)?)));
        match decoded {
            Ok((ttl, bytes)) => Ok(reading::decide(ask, ttl, bytes)),
            Err(error) => self.not_plainly(&error).map(|()| None),
        }
    }

    async fn read_many(&self, asks: &[Ask]) -> Result<Vec<Read>, L2Error> {
        let mut reads = self.read_many_plainly(asks).await?;
        let open: Vec<_> = (0..asks.len()).filter(|at| reads[*at].is_none()).collect();
        let left: Vec<_> = open.iter().map(|at| &asks[*at]).collect();
        for (at, read) in open.iter().zip(self.read_many_by_script(&left).await?) {
            reads[*at] = Some(read);
        }
        Ok(reads.into_iter().flatten().collect())
    }

    /// Reads many records by plain commands; `None` for a key whose reply does not suffice.
    async fn read_many_plainly(&self, asks: &[Ask]) -> Result<Vec<Option<Read>>, L2Error> {
        let mut reads: Vec<Option<Read>> = vec![None; asks.len()];
        let plain = |at: &usize| self.reads_plainly(asks[*at].1);
        let places: Vec<_> = (0..asks.len()).filter(plain).collect();
        if places.is_empty() {
            return Ok(reads);
        }
        let mut pipe = Pipeline::with_capacity(2 * places.len());
        for at in &places {
            reading::add(&mut pipe, &asks[*at].0, asks[*at].1);
        }
        let replies: Vec<(i64, Option<Bytes>)> = match self.pipe(&pipe).await {
            Ok(replies) => replies,
            Err(error) => {
                self.not_plainly(&error)?;
                return Ok(reads);
            }
        };
        for (at, (ttl, bytes)) in places.into_iter().zip(replies) {
            reads[at] = reading::decide(asks[at].1, ttl, bytes);
        }
        Ok(reads)
    }

    /// Decides whether to read by script instead. If the server refuses the commands, the read uses
    /// a script; if it does not know them, all later reads do. Other errors go to the caller.
    fn not_plainly(&self, error: &RedisError) -> Result<(), L2Error> {
        if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            return Err(l2_error(error));
        }
        if error.to_string().contains("syntax error") {
            self.locks_by_script.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn read_many_by_script(&self, asks: &[&Ask]) -> Result<Vec<Read>, L2Error> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for (key, ask) in asks {
            pipe.invoke_script(&reading::by_script(key, *ask));
        }
        let replies = match self.pipe(&pipe).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let mut load = redis::pipe();
                let loaded: Result<(), _> =
                    self.pipe(load.load_script(&scripts::READ).ignore()).await;
                loaded.map_err(|error| l2_error(&error))?;
                self.pipe(&pipe).await
            }
            replies => replies,
        };
        let replies: Vec<reading::ReadReply> = replies.map_err(|error| l2_error(&error))?;
        Ok(asks.iter().zip(replies).map(|((_, ask), reply)| reading::found(*ask, reply)).collect())
    }

    /// Two commands, whatever the size of the ledger, on the connection of the concurrent call.
    async fn frontier(&self, ledger: &str, epoch: Epoch) -> Result<Option<u64>, L2Error> {
        let answers = self.pipe(&ledger::frontier(ledger, epoch)).await;
        match answers.and_then(ledger::issued) {
            Ok(issued) => Ok(issued),
            // SYNC reports or corrects any other error. The same server may have answered the
            // concurrent call.
            Err(error) if is_answer(&error) && !is_demoted(&error) => Ok(None),
            Err(error) => Err(l2_error(&error)),
        }
    }

    /// Reads the frontier once for all that ask for the same.
    async fn frontiers(&self, asks: Vec<FrontierAsk>) -> Vec<Result<Option<u64>, L2Error>> {
        let mut different: Vec<&FrontierAsk> = Vec::new();
        for ask in &asks {
            if !different.contains(&ask) {
                different.push(ask);
            }
        }
        let read = different.iter().map(|(ledger, epoch)| self.frontier(ledger, *epoch));
        let answers = join_all(read).await;
        let found = |ask| different.iter().position(|one| *one == ask);
        let unasked = || Err(L2Error::new(L2ErrorKind::Other, "the ledger was not asked"));
        let of = |ask| found(ask).map_or_else(unasked, |at| answers[at].clone());
        asks.iter().map(of).collect()
    }
}
