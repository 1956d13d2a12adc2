//! The writer: on each command, it changes the source of truth and then invalidates.
//!
//! It reads `<change> <version>` from its input and answers `<called> <acknowledged>`, in
//! nanoseconds.

use anyhow::{Context, Result, bail, ensure};
use crinkle::Receipt;
use crinkle::redis::{RedisClient, redis};
use crinkle_examples::now;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Node, PRICES, TAG, cache_key, source_key};

/// What a round changes, and how it invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// All prices; `remove_by_tag`.
    Tag,
    /// All prices; the server drops every subscription, then `remove_by_tag`.
    Disconnect,
    /// One price; `remove`.
    Remove(usize),
    /// One price; `set`.
    Set(usize),
}

impl Change {
    /// The prices it changes.
    pub(crate) fn prices(self) -> std::ops::Range<usize> {
        match self {
            Self::Tag | Self::Disconnect => 0..PRICES,
            Self::Remove(price) | Self::Set(price) => price..price + 1,
        }
    }

    pub(crate) fn encode(self) -> String {
        match self {
            Self::Tag => "tag".to_owned(),
            Self::Disconnect => "disconnect".to_owned(),
            Self::Remove(price) => format!("remove {price}"),
            Self::Set(price) => format!("set {price}"),
        }
    }

    fn decode(words: &[&str]) -> Result<Self> {
        Ok(match words {
            ["tag"] => Self::Tag,
            ["disconnect"] => Self::Disconnect,
            ["remove", price] => Self::Remove(price.parse()?),
            ["set", price] => Self::Set(price.parse()?),
            _ => bail!("unknown command for the writer: {words:?}"),
        })
    }
}

pub(crate) async fn run(url: &str) -> Result<()> {
    let mut node = Node::join(url).await?;
    write_source(&mut node.source, Change::Tag, 1).await?;
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        let (version, change) = words.split_last().context("an empty line")?;
        let (change, version) = (Change::decode(change)?, version.parse()?);
        write_source(&mut node.source, change, version).await?;
        if change == Change::Disconnect {
            let mut kill = redis::cmd("CLIENT");
            let _: u64 =
                kill.arg(&["KILL", "TYPE", "pubsub"]).query_async(&mut node.source).await?;
        }
        let called = now().as_nanos();
        let receipt = invalidate(&node, change, version).await?;
        let acknowledged = now().as_nanos();
        ensure!(receipt.is_propagated(), "{change:?} was not propagated: {receipt:?}");
        println!("{called} {acknowledged}");
    }
    node.cache.close().await?;
    Ok(())
}

async fn invalidate(node: &Node, change: Change, version: u64) -> Result<Receipt> {
    let receipt = match change {
        Change::Tag | Change::Disconnect => node.cache.remove_by_tag(TAG).await?,
        Change::Remove(price) => node.cache.remove(cache_key(price)).await?,
        Change::Set(price) => node.cache.set(cache_key(price), version).tags([TAG]).await?,
    };
    Ok(receipt)
}

async fn write_source(source: &mut RedisClient, change: Change, version: u64) -> Result<()> {
    let mut write = redis::cmd("MSET");
    for price in change.prices() {
        write.arg(source_key(price)).arg(version);
    }
    write.query_async(source).await.context("the source of truth")
}
