use std::fmt;

use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::Levels;
use crinkle_l2_redis::TagBarriers;
use serde::Serialize;

use crate::args::Global;
use crate::failure::{FOUND, Failure, OK};
use crate::output::{Hash, Number, Out};
use crate::server::Server;

/// The last removals, hard and soft.
#[derive(Debug, Serialize)]
pub(crate) struct Barriers {
    hard: Option<Number>,
    soft: Option<Number>,
}

#[derive(Debug, Serialize)]
struct Tag<'a> {
    tag: &'a str,
    hash: Hash,
    /// Removals of this tag alone.
    #[serde(flatten)]
    own: Barriers,
    /// Old removals of tags that share its last 16 bits.
    register: Barriers,
    clear: Barriers,
}

pub(crate) async fn run(global: &Global, tag: &str, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_needed()?;
    let server = Server::connect(global).await?;
    let ledger = server.ledger_needed(&prefix).await?;
    let hash = TagHash::of(tag);
    let found = server.answer(TagBarriers::read(&server.client, &prefix, &[hash])).await?;
    let found = found.first().copied().unwrap_or_default();
    let shown = Tag {
        tag,
        hash: Hash(hash.0),
        own: Barriers::of(found.own),
        register: Barriers::of(found.register),
        clear: Barriers::of(ledger.floor),
    };
    out.show(&shown)?;
    let never = [found.own, found.register] == [Levels::default(); 2];
    Ok(if never { FOUND } else { OK })
}

impl Barriers {
    pub(crate) fn of(levels: Levels) -> Self {
        Self { hard: Number::of(levels.hard), soft: Number::of(levels.soft) }
    }
}

impl fmt::Display for Barriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [hard, soft] = [&self.hard, &self.soft].map(|it| Number::or_never(it.as_ref()));
        write!(f, "removed {hard}, expired {soft}")
    }
}

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tag           {:?} (hash {})", self.tag, self.hash)?;
        writeln!(f, "the tag       {}", self.own)?;
        writeln!(f, "old removals  {}", self.register)?;
        writeln!(f, "everything    {}", self.clear)?;
        write!(
            f,
            "Entries loaded before a removal are hidden; those loaded before an expiry are stale."
        )
    }
}
