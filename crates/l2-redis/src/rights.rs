//! The rights that a store needs, and what it knows of its user's rights.

use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_redis_client::RedisClient;
use crinkle_redis_client::acl::{Missing, Trial, prefix_of};
use crinkle_redis_client::error::{is_without_code, l2_error};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::RedisError;
use tokio::time::Instant;

/// How long a finding is reused before the client checks the rights again.
const REUSE_FOR: Duration = Duration::from_secs(1);

/// Tries every right that a store with this key prefix needs, and writes nothing.
pub(crate) async fn check(client: &RedisClient, prefix: &str) -> Result<(), L2Error> {
    let mut missing = Missing::default();
    let primaries = match client.primary_addresses().await {
        Ok(primaries) => primaries,
        Err(error) if error.code() == Some("NOPERM") => {
            missing.note_command("cluster|slots");
            return missing.explain(&client.user(), prefix);
        }
        Err(error) => return Err(l2_error(&error)),
    };
    let trials = store_trials(prefix, client.is_cluster());
    let needed = || trials.iter().filter(|trial| trial.is_needed());
    let tried = primaries.iter().flat_map(|at| needed().map(move |trial| (at, trial)));
    let tried = tried.map(async |(at, trial)| (trial, client.try_right(at, trial).await));
    for (trial, answer) in join_all(tried).await {
        missing.note_answer(trial, answer)?;
    }
    missing.explain(&client.user(), prefix)
}

/// One trial of every right of a store, on keys without a record and on members that no ledger has.
#[must_use]
pub fn store_trials(prefix: &str, in_cluster: bool) -> Vec<Trial> {
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
    let trial = |(right, rest): (&'static str, &[&str])| {
        let words = right.split('|').chain(rest.iter().copied());
        Trial::new(right, words.map(ToOwned::to_owned).collect())
    };
    everywhere.into_iter().chain(of_clusters).map(trial).collect()
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
        check(client, prefix).await?;
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
        let missing = check(client, prefix).await.err();
        let missing = missing.filter(|found| !unclear || found.kind() == L2ErrorKind::Denied);
        *self.missing.lock() = Some((prefix.to_owned(), Instant::now(), missing.clone()));
        missing.unwrap_or(explained)
    }
}
