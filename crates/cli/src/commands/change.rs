use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crinkle_backplane::RedisBackplane;
use crinkle_core::l2::{L2, Raw};
use crinkle_core::protocol::record::LoadLock;
use crinkle_core::{Cache, EntryOptions, Receipt, Settings, Token};
use crinkle_l2_redis::RedisL2;
use serde::Serialize;
use tokio::time::timeout;

use super::inspect::redis_key;
use crate::args::{Command, Consent, Global};
use crate::failure::{FOUND, Failure, OK};
use crate::output::{Hex, Number, Out};
use crate::server::Server;

/// Barrier limit of this command: it never folds, since the caches fold their own old barriers.
const NEVER_FOLD: usize = 1 << 40;

/// The result of a change.
#[derive(Debug, Serialize)]
struct Done {
    prefix: String,
    address: String,
    /// `remove`, `expire`, `remove_by_tag`, `expire_by_tag`, `clear`, `clear_hard`.
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether L2 held a record or load lock of the key before; `None` if L2 did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// The ledger's number, for tags and clears.
    epoch: Option<Hex>,
    #[serde(flatten)]
    number: Option<Number>,
    /// How many nodes were subscribed; `None` if the user may not ask.
    subscribers: Option<u64>,
}

pub(crate) async fn run(global: &Global, command: &Command, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_given()?;
    let server = Server::connect(global).await?;
    // A wrong prefix would create a new ledger, and no node would receive the change.
    server.ledger_needed(prefix).await?;
    let subscribers = server.subscribers(prefix).await;
    let mut done = Done {
        prefix: prefix.to_owned(),
        address: server.address.clone(),
        change: change(command),
        key: None,
        found: None,
        tags: Vec::new(),
        epoch: None,
        number: None,
        subscribers,
    };
    match command {
        Command::Remove { key, .. } => done.key = Some(key.clone()),
        Command::RemoveByTag { tags, .. } => done.tags.clone_from(tags),
        _ => {}
    }
    let Some(consent) = command.consent() else {
        return Err(Failure::usage("no command that changes something"));
    };
    confirm(consent, &done)?;
    if let Some(key) = &done.key {
        done.found = found(&server, prefix, key).await;
    }
    let cache = cache(&server, prefix)?;
    let receipt = carry_out(&cache, &done).await;
    // Nothing is left to drain: the receipt has waited for everything.
    drop(cache);
    let receipt = receipt.map_err(|error| Failure::of_change(&server.address, &error))?;
    if let Some(barrier) = receipt.token() {
        let [epoch, number] = halves(barrier);
        (done.epoch, done.number) = (Some(Hex(epoch)), Number::of(number));
    }
    out.show(&done)?;
    Ok(if done.found == Some(false) { FOUND } else { OK })
}

/// Whether the key exists on the server; `None` if the server does not answer.
async fn found(server: &Server, prefix: &str, key: &str) -> Option<bool> {
    let key = redis_key(prefix, key);
    let store = RedisL2::new(server.client.clone());
    let read = timeout(server.limit, store.read(&key, None)).await.ok()?.ok()?;
    Some(read.found.is_some() || read.load_lock != LoadLock::None)
}

fn change(command: &Command) -> &'static str {
    match command {
        Command::Remove { soft: true, .. } => "expire",
        Command::Remove { .. } => "remove",
        Command::RemoveByTag { soft: true, .. } => "expire_by_tag",
        Command::RemoveByTag { .. } => "remove_by_tag",
        Command::Clear { hard: true, .. } => "clear_hard",
        _ => "clear",
    }
}

/// A temporary cache on this server, so that a change runs the same code as in the application.
fn cache(server: &Server, prefix: &str) -> Result<Cache<Raw>, Failure> {
    let limit = server.limit;
    let options =
        EntryOptions::new(Duration::from_secs(1)).l2_soft_timeout(limit).l2_hard_timeout(limit);
    // Time for a poll and its answers, even on a slow server.
    let settings =
        Settings::default().capacity(1).coherence_ttl(limit * 4 + Duration::from_secs(10));
    let built = Cache::builder("crinkle-cli")
        .codec(Raw)
        .key_prefix(prefix)
        .settings(settings)
        .default_options(options)
        .l2(RedisL2::new(server.client.clone()).visiting().with_barriers(NEVER_FOLD))
        .backplane(RedisBackplane::new(server.client.clone()))
        .build();
    built.map_err(|error| Failure::usage(error.to_string()))
}

/// Splits a token into epoch and number.
fn halves(barrier: Token) -> [u64; 2] {
    let both = u128::from_be_bytes(barrier.to_bytes());
    [both >> 64, both & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(u64::MAX))
}

async fn carry_out(cache: &Cache<Raw>, done: &Done) -> Result<Receipt, crinkle_core::Error> {
    let key = done.key.as_deref().unwrap_or_default();
    match done.change {
        "expire" => cache.expire(key).require_propagation().await,
        "remove" => cache.remove(key).require_propagation().await,
        "expire_by_tag" => {
            let (last, tags) = done.tags.split_last().expect("clap wants a tag");
            for tag in tags {
                cache.expire_by_tag(tag).require_propagation().await?;
            }
            cache.expire_by_tag(last).require_propagation().await
        }
        "remove_by_tag" => {
            cache.remove_by_tags(done.tags.iter().cloned()).require_propagation().await
        }
        "clear_hard" => cache.remove_all().require_propagation().await,
        _ => cache.expire_all().require_propagation().await,
    }
}

/// Asks for confirmation on the terminal; without a terminal it fails.
fn confirm(consent: Consent, done: &Done) -> Result<(), Failure> {
    if consent.yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!(
            "nothing was done: {} needs --yes, because there is no terminal to ask on",
            done.change
        )));
    }
    write!(stderr, "{} Type yes to do it: ", done.asked())?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::usage("nothing was done"))
}

impl Done {
    fn what(&self) -> String {
        match (&self.key, &self.tags[..]) {
            (Some(key), _) => format!("key {key:?}"),
            (None, []) => "everything".to_owned(),
            (None, tags) => format!("entries with one of the tags {tags:?}"),
        }
    }

    fn asked(&self) -> String {
        let (change, prefix, address) = (self.change, &self.prefix, &self.address);
        format!("{change}: {} under the prefix {prefix:?} at {address}.", self.what())
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Done", self.asked())?;
        if self.number.is_some() {
            write!(f, " at {}", Number::or_never(self.number.as_ref()))?;
        }
        match self.subscribers {
            Some(nodes) => write!(f, "; listening nodes: {nodes}.")?,
            None => write!(f, ".")?,
        }
        if self.found == Some(false) {
            write!(
                f,
                " There was no record of this key in Redis; the nodes were notified anyway. Is the key right? \
                 `crinkle keys --prefix {}` lists those that are there.",
                self.prefix
            )?;
        }
        Ok(())
    }
}
