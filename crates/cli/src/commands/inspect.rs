use std::fmt;

use crinkle_core::l2::record::{Envelope, head};
use crinkle_core::l2::{Found, L2};
use crinkle_core::protocol::ledger::Levels;
use crinkle_core::protocol::record::{Head, LoadLock};
use crinkle_core::protocol::validity::{EntryState, Knowledge, TagLevels, Verdict, Why, judge};
use crinkle_core::protocol::{KeyHash, TagHash};
use crinkle_l2_redis::{LedgerView, RedisL2, TagBarriers};
use serde::Serialize;

use crate::args::Global;
use crate::failure::{FOUND, Failure, OK};
use crate::output::{Hex, Number, Out, span};
use crate::server::Server;

/// Keys longer than this are stored under their hash; see `docs/redis.md`.
const LONGEST_PLAIN_KEY: usize = 512;

/// What the server holds under a key.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    key: &'a str,
    redis_key: String,
    /// `absent`, `load_lock`, `value`, `unreadable`.
    kind: &'static str,
    /// The holder of the load lock, while there is no value.
    load_lock: Option<Hex>,
    #[serde(flatten)]
    value: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Value {
    /// `fresh`, `stale` or `hidden`, by the rules of a node that knows the ledger.
    verdict: &'static str,
    /// `lifetime`, `expired`, `tag`, `clear`, `epoch`.
    why: Option<&'static str>,
    hidden_by: Vec<Hides>,
    version: Hex,
    expired: bool,
    epoch: Option<Hex>,
    ledger_epoch: Option<Hex>,
    stamp: Option<Number>,
    age_ms: u64,
    logical_ms: u64,
    physical_ms: u64,
    ttl_ms: u64,
    refresh_lock: Option<Hex>,
    tags: Vec<String>,
    codec: u8,
    codec_name: &'static str,
    compression: &'static str,
    schema: String,
    weight: u32,
    etag: Option<String>,
    last_modified: Option<String>,
    factory_us: u64,
    payload_bytes: usize,
    record_bytes: usize,
}

/// A removal that is newer than the record.
#[derive(Debug, Serialize)]
struct Hides {
    /// `tag`, `register`, `clear`.
    by: &'static str,
    tag: Option<String>,
    hard: bool,
    #[serde(flatten)]
    number: Option<Number>,
}

pub(crate) async fn run(global: &Global, key: &str, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_needed()?;
    let server = Server::connect(global).await?;
    let redis_key = redis_key(&prefix, key);
    let store = RedisL2::new(server.client.clone());
    let read = server.answer(store.read(&redis_key, None)).await?;
    let mut shown = Shown { key, redis_key, kind: "absent", load_lock: None, value: None };
    match (read.found, read.load_lock) {
        (None, LoadLock::HeldBy(by)) => {
            (shown.kind, shown.load_lock) = ("load_lock", Some(Hex(by.0)))
        }
        (None, _) => {}
        (Some(found), _) => match Envelope::decode(&found.bytes).filter(|it| it.key == key) {
            Some(record) => {
                shown.kind = "value";
                shown.value = Some(judged(&server, &prefix, &record, &found).await?);
            }
            None => shown.kind = "unreadable",
        },
    }
    out.show(&shown)?;
    Ok(if ["absent", "unreadable"].contains(&shown.kind) { FOUND } else { OK })
}

pub(crate) fn redis_key(prefix: &str, key: &str) -> String {
    if key.len() <= LONGEST_PLAIN_KEY {
        return format!("{prefix}v1:e:{key}");
    }
    format!("{prefix}v1:h:{:032x}", KeyHash::of(key).0)
}

async fn judged(
    server: &Server,
    prefix: &str,
    record: &Envelope<'_>,
    found: &Found,
) -> Result<Value, Failure> {
    let hashes: Vec<_> = record.tags.iter().map(|tag| TagHash::of(tag)).collect();
    let (epoch, floor, barriers) = match server.ledger(prefix).await? {
        LedgerView::Present(state) => {
            let barriers =
                server.answer(TagBarriers::read(&server.client, prefix, &hashes)).await?;
            (Some(state.epoch), state.floor, barriers)
        }
        _ => (None, Levels::default(), Vec::new()),
    };
    let node = Knowledge {
        epoch,
        floor,
        pending: Levels::default(),
        session: 0,
        coherent_until: u64::MAX,
        coherence_ttl: 0,
        suspect: false,
    };
    let levels = barriers.iter().flat_map(|tag| [tag.own, tag.register]);
    let levels = levels.map(|levels| TagLevels { levels, pending: Levels::default() });
    let age_ms = record.physical_ms.saturating_sub(found.ttl_ms);
    let verdict = judge(&state(record), &node, levels, age_ms);
    let (verdict, why) = named(verdict);
    Ok(Value {
        verdict,
        why,
        hidden_by: hides(record, floor, &barriers),
        ledger_epoch: epoch.map(|epoch| Hex(epoch.0)),
        age_ms,
        ttl_ms: found.ttl_ms,
        record_bytes: found.bytes.len(),
        refresh_lock: match head(&found.bytes) {
            Some(Head::Value { refresh: Some((by, _)), .. }) => Some(Hex(by.0)),
            _ => None,
        },
        ..Value::of(record)
    })
}

/// The entry's state, on a clock that starts at the record's creation.
fn state(record: &Envelope<'_>) -> EntryState {
    EntryState {
        epoch: record.epoch,
        stamp: record.stamp,
        origin: 0,
        session: 0,
        verified_at: 0,
        logical: record.logical_ms,
        physical: record.physical_ms,
        expired: record.expired,
    }
}

fn named(verdict: Verdict) -> (&'static str, Option<&'static str>) {
    let (name, why) = match verdict {
        Verdict::Fresh | Verdict::Unverified => return ("fresh", None),
        Verdict::Stale(why) => ("stale", why),
        Verdict::Hidden(why) => ("hidden", why),
    };
    let why = match why {
        Why::Lifetime => "lifetime",
        Why::Expired => "expired",
        Why::Tag => "tag",
        Why::Clear => "clear",
        Why::Epoch => "epoch",
    };
    (name, Some(why))
}

/// All removals that are newer than the record.
fn hides(record: &Envelope<'_>, floor: Levels, barriers: &[TagBarriers]) -> Vec<Hides> {
    let mut all = vec![("clear", None, floor)];
    for (tag, levels) in record.tags.iter().zip(barriers) {
        all.push(("tag", Some(*tag), levels.own));
        all.push(("register", Some(*tag), levels.register));
    }
    let mut found = Vec::new();
    for (by, tag, levels) in all {
        for (hard, number) in [(true, levels.hard), (false, levels.soft)] {
            if record.stamp < number {
                let tag = tag.map(ToOwned::to_owned);
                found.push(Hides { by, tag, hard, number: Number::of(number) });
            }
        }
    }
    found
}

impl Value {
    /// The fields that come from the record itself.
    fn of(record: &Envelope<'_>) -> Self {
        Self {
            verdict: "",
            why: None,
            hidden_by: Vec::new(),
            version: Hex(record.version.0),
            expired: record.expired,
            epoch: record.epoch.map(|epoch| Hex(epoch.0)),
            ledger_epoch: None,
            stamp: Number::of(record.stamp),
            age_ms: 0,
            logical_ms: record.logical_ms,
            physical_ms: record.physical_ms,
            ttl_ms: 0,
            refresh_lock: None,
            tags: record.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            codec: record.codec,
            codec_name: codec(record.codec),
            compression: compression(record.compression),
            schema: format!("{:08x}", record.schema),
            weight: record.weight,
            etag: record.etag.map(ToOwned::to_owned),
            last_modified: record.last_modified.map(ToOwned::to_owned),
            factory_us: record.took_us,
            payload_bytes: record.payload.len(),
            record_bytes: 0,
        }
    }
}

fn codec(id: u8) -> &'static str {
    match id {
        1 => "messagepack",
        2 => "json",
        3 => "raw",
        4 => "postcard",
        5 => "prost",
        _ => "custom",
    }
}

fn compression(id: u8) -> &'static str {
    match id {
        0 => "none",
        1 => "lz4",
        2 => "zstd",
        _ => "unknown",
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key           {:?} at {:?}", self.key, self.redis_key)?;
        match (&self.value, self.load_lock, self.kind) {
            (Some(value), ..) => write!(f, "{value}"),
            (None, Some(load_lock), _) => {
                write!(f, "load lock     {load_lock}: a node is loading it")
            }
            (None, None, "absent") => write!(f, "nothing is there"),
            (None, None, _) => write!(
                f,
                "unreadable: cut off, altered, of another key or of a newer version; a cache treats it as a \
                 miss, and the next load replaces it"
            ),
        }
    }
}

impl fmt::Display for Hides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.hard { "hidden by" } else { "made stale by" };
        let what = match (self.by, &self.tag) {
            ("register", Some(tag)) => {
                format!("an old removal of tag {tag:?}, or of one in its register,")
            }
            (_, Some(tag)) => format!("the removal of tag {tag:?}"),
            (_, None) => "a clear".to_owned(),
        };
        write!(f, "{how} {what} at {}", Number::or_never(self.number.as_ref()))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.why.map_or_else(String::new, |why| format!(" ({why})"));
        writeln!(f, "verdict       {}{why}", self.verdict)?;
        for hides in &self.hidden_by {
            writeln!(f, "              {hides}")?;
        }
        writeln!(f, "version       {}", self.version)?;
        let epoch = |it: Option<Hex>| it.map_or_else(|| "none".to_owned(), |it| it.to_string());
        writeln!(
            f,
            "epoch         {}; the ledger's is {}",
            epoch(self.epoch),
            epoch(self.ledger_epoch)
        )?;
        writeln!(f, "stamp         {}", Number::or_never(self.stamp.as_ref()))?;
        let marked = if self.expired { ", marked as expired" } else { "" };
        writeln!(f, "age           {}{marked}", span(self.age_ms))?;
        let (fresh, kept) = (span(self.logical_ms), span(self.physical_ms));
        writeln!(
            f,
            "TTL           fresh for {fresh}, kept for {kept}, {} left",
            span(self.ttl_ms)
        )?;
        if let Some(load_lock) = self.refresh_lock {
            writeln!(f, "refreshed by  load lock {load_lock}")?;
        }
        writeln!(f, "tags          {:?}", self.tags)?;
        writeln!(f, "codec         {} ({}), schema {}", self.codec_name, self.codec, self.schema)?;
        writeln!(f, "compression   {}", self.compression)?;
        for (name, text) in [("etag", &self.etag), ("modified", &self.last_modified)] {
            if let Some(text) = text {
                writeln!(f, "{name:<14}{text:?}")?;
            }
        }
        let took = match self.factory_us {
            0 => "unknown time".to_owned(),
            us => format!("{us} us"),
        };
        writeln!(f, "loaded in     {took}, weight {}", self.weight)?;
        write!(
            f,
            "size          {} bytes, {} of them the value",
            self.record_bytes, self.payload_bytes
        )
    }
}
