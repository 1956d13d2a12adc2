use std::fmt;

use crinkle_l2_redis::redis::{InfoDict, cmd};
use crinkle_l2_redis::{LedgerState, LedgerView};
use serde::Serialize;

use super::tags::Barriers;
use crate::args::Global;
use crate::failure::{FOUND, Failure, OK};
use crate::output::{Hex, Number, Out, span};
use crate::server::Server;

#[derive(Debug, Serialize)]
struct Stats {
    prefix: String,
    address: String,
    ledger: Option<Ledger>,
    /// `None` if the user may not ask.
    subscribers: Option<u64>,
    /// `None` if the user may not run `INFO`.
    server: Option<Load>,
}

#[derive(Debug, Serialize)]
struct Ledger {
    epoch: Hex,
    frontier: Option<Number>,
    barriers: u64,
    ids: u64,
    folded: Option<Number>,
    trimmed: Option<Number>,
    clear: Barriers,
    ttl_ms: u64,
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Load {
    version: Option<String>,
    used_memory: Option<u64>,
    maxmemory: Option<u64>,
    connected_clients: Option<u64>,
    evicted_keys: Option<u64>,
}

pub(crate) async fn run(global: &Global, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_needed()?;
    let server = Server::connect(global).await?;
    let ledger = match server.ledger(&prefix).await? {
        LedgerView::Absent => None,
        _ => Some(server.ledger_needed(&prefix).await?),
    };
    let mut usage = cmd("MEMORY");
    usage.arg("USAGE").arg(format!("{prefix}v1:L")).arg("SAMPLES").arg(100);
    let bytes: Option<u64> = server.optional(&usage).await;
    let stats = Stats {
        ledger: ledger.map(|state| Ledger::of(&state, bytes)),
        subscribers: server.subscribers(&prefix).await,
        server: server.optional(&cmd("INFO")).await.map(|info| Load::of(&info)),
        address: server.address,
        prefix,
    };
    out.show(&stats)?;
    Ok(if stats.ledger.is_none() { FOUND } else { OK })
}

impl Ledger {
    fn of(state: &LedgerState, bytes: Option<u64>) -> Self {
        Self {
            epoch: Hex(state.epoch.0),
            frontier: Number::of(state.frontier),
            barriers: state.barriers,
            ids: state.ids,
            folded: Number::of(state.folded),
            trimmed: Number::of(state.trimmed),
            clear: Barriers::of(state.floor),
            ttl_ms: state.ttl_ms,
            bytes,
        }
    }
}

impl Load {
    fn of(info: &InfoDict) -> Self {
        Self {
            version: info.get("redis_version"),
            used_memory: info.get("used_memory"),
            maxmemory: info.get("maxmemory"),
            connected_clients: info.get("connected_clients"),
            evicted_keys: info.get("evicted_keys"),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |it: Option<u64>| it.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        match &self.ledger {
            Some(ledger) => writeln!(f, "{ledger}")?,
            None => writeln!(f, "ledger        none: no cache uses the prefix {:?}", self.prefix)?,
        }
        write!(f, "subscribers   {}", known(self.subscribers))?;
        let Some(server) = &self.server else {
            return write!(f, "\nserver        {}: this user may not run INFO", self.address);
        };
        let version = server.version.as_deref().unwrap_or("unknown");
        write!(f, "\nserver        {}, version {version}", self.address)?;
        let (used, most) = (known(server.used_memory), known(server.maxmemory));
        write!(f, "\nmemory        {used} bytes of {most} (0: no limit)")?;
        let (clients, evicted) = (known(server.connected_clients), known(server.evicted_keys));
        write!(f, "\nclients       {clients}; {evicted} keys evicted since the start")
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
        let number = |it: &Option<Number>| Number::or_never(it.as_ref());
        writeln!(f, "epoch         {}", self.epoch)?;
        writeln!(f, "last number   {}", number(&self.frontier))?;
        writeln!(f, "barriers      {} of tags and registers, {} ids", self.barriers, self.ids)?;
        writeln!(f, "everything    {}", self.clear)?;
        writeln!(f, "folded up to  {}", number(&self.folded))?;
        writeln!(f, "trimmed up to {}", number(&self.trimmed))?;
        writeln!(f, "memory        {bytes} bytes")?;
        write!(f, "ends in       {} unless a node polls it", span(self.ttl_ms))
    }
}
