//! Reads records by plain commands where they suffice, else by script.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use crinkle_core::l2::{L2Error, Read};
use crinkle_core::protocol::record::LoadLockRequest;
use crinkle_redis_client::error::l2_error;
use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind};

use super::RedisL2;
use crate::{reading, scripts};

impl RedisL2 {
    /// Whether plain commands may serve this request on this server.
    pub(super) fn reads_plainly(&self, ask: Option<LoadLockRequest>) -> bool {
        let known = ask.is_none() || !self.locks_by_script.load(Ordering::Relaxed);
        known && reading::is_plain(ask)
    }

    /// Reads one key; `None` if plain commands do not suffice.
    pub(super) async fn read_plainly(
        &self,
        key: &str,
        ask: Option<LoadLockRequest>,
    ) -> Result<Option<Read>, L2Error> {
        match self.pipe(&reading::one(key, ask)).await {
            Ok((ttl, bytes)) => Ok(reading::decide(ask, ttl, bytes)),
            Err(error) => self.not_plainly(&error).map(|()| None),
        }
    }

    /// Reads many keys in one round trip.
    pub(super) async fn read_many_plainly(
        &self,
        asks: &[(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Option<Read>>, L2Error> {
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

    pub(super) async fn read_many_by_script(
        &self,
        asks: &[&(String, Option<LoadLockRequest>)],
    ) -> Result<Vec<Read>, L2Error> {
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
}
