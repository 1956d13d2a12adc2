use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use crinkle_core::backplane::message::{Body, KeyOp, Message, decode};
use crinkle_core::protocol::TagHash;
use crinkle_core::protocol::ledger::{Strength, Target};
use crinkle_l2_redis::redis::{Msg, RedisResult};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Serialize;

use crate::args::{Global, Watch};
use crate::failure::{Failure, OK};
use crate::output::{Hash, Hex, Number, Out, now};
use crate::server::Server;

/// How long to wait before the next attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// One message.
#[derive(Debug, Serialize)]
struct Line {
    /// When the message was received, by this host's clock.
    at: String,
    publisher: Option<Hash>,
    seq: Option<u64>,
    #[serde(flatten)]
    event: Event,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event {
    Key {
        op: &'static str,
        key: Hash,
        name: Option<String>,
        version: Hex,
    },
    Removal {
        hard: bool,
        everything: bool,
        targets: Vec<Removed>,
        epoch: Hex,
        number: Option<Number>,
    },
    Heartbeat {
        next: u64,
    },
    Unreadable {
        bytes: usize,
    },
}

/// A tag, or the register of old removals that it belongs to.
#[derive(Debug, Serialize)]
struct Removed {
    tag: Option<Hash>,
    register: Option<u16>,
    name: Option<String>,
}

type Names = HashMap<u128, String>;

pub(crate) async fn run(global: &Global, what: &Watch, out: Out) -> Result<u8, Failure> {
    let prefix = global.prefix_needed()?;
    let channel = format!("{prefix}v1:ch");
    let server = Server::connect(global).await?;
    // Keys and tags use the same hash function.
    let names: Names = what.names.iter().map(|it| (TagHash::of(it).0, it.clone())).collect();
    let mut messages = match subscribed(&server, &channel).await {
        Ok(messages) => messages,
        Err(error) => {
            // A read of the ledger gives a better error if the server does not answer at all.
            server.ledger(&prefix).await?;
            return Err(Failure::refused(&server.address, &error));
        }
    };
    let mut left = what.count;
    note(&format!("listening to {channel} at {}; Ctrl-C ends", server.address));
    while left != Some(0) {
        let Some(message) = messages.next().await else {
            note("the connection is lost; messages until the next connection are missed");
            messages = again(&server, &channel).await;
            note("listening again");
            continue;
        };
        let line = Line::of(message.get_payload_bytes(), &names);
        if what.heartbeats || !matches!(line.event, Event::Heartbeat { .. }) {
            out.show(&line)?;
            left = left.map(|left| left - 1);
        }
    }
    Ok(OK)
}

async fn subscribed(server: &Server, channel: &str) -> RedisResult<BoxStream<'static, Msg>> {
    server.client.subscribe(&[channel.to_owned()]).await
}

async fn again(server: &Server, channel: &str) -> BoxStream<'static, Msg> {
    loop {
        tokio::time::sleep(PAUSE).await;
        if let Ok(messages) = subscribed(server, channel).await {
            return messages;
        }
    }
}

fn note(what: &str) {
    // A closed standard error is no failure.
    drop(writeln!(io::stderr(), "crinkle: {what}"));
}

impl Line {
    fn of(bytes: &[u8], names: &Names) -> Self {
        let message = decode(bytes);
        let (publisher, seq) = message.as_ref().map(|it| (Hash(it.publisher.0), it.seq)).unzip();
        let event =
            message.map_or(Event::Unreadable { bytes: bytes.len() }, |it| Event::of(it, names));
        Self { at: now(), publisher, seq, event }
    }
}

impl Event {
    fn of(message: Message, names: &Names) -> Self {
        match message.body {
            Body::Key { op, version, key } => Self::Key {
                op: match op {
                    KeyOp::Before => "before",
                    KeyOp::Written => "written",
                    KeyOp::Removed => "removed",
                    KeyOp::Expired => "expired",
                    _ => "unknown",
                },
                key: Hash(key.0),
                name: names.get(&key.0).cloned(),
                version: Hex(version.0),
            },
            Body::Removal { epoch, item } => Self::Removal {
                hard: item.removal.strength == Strength::Hard,
                everything: item.removal.targets.contains(&Target::Everything),
                targets: item
                    .removal
                    .targets
                    .iter()
                    .filter_map(|it| Removed::of(it, names))
                    .collect(),
                epoch: Hex(epoch.0),
                number: Number::of(item.seq),
            },
            Body::Heartbeat { next, .. } => Self::Heartbeat { next },
            _ => Self::Unreadable { bytes: 0 },
        }
    }
}

impl Removed {
    fn of(target: &Target, names: &Names) -> Option<Self> {
        match target {
            Target::Everything => None,
            Target::Register(register) => {
                Some(Self { tag: None, register: Some(*register), name: None })
            }
            Target::Tag(tag) => {
                let name = names.get(&tag.0).cloned();
                Some(Self { tag: Some(Hash(tag.0)), register: None, name })
            }
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        if let (Some(publisher), Some(seq)) = (self.publisher, self.seq) {
            // The first 8 digits distinguish nodes.
            write!(f, "{}#{seq:<6} ", &publisher.to_string()[..8])?;
        }
        write!(f, "{}", self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { op, key, name, version } => {
                write!(f, "{op} key {}, version {version}", called(name.as_ref(), key))
            }
            Self::Removal { hard, everything, targets, number, .. } => {
                let verb = if *hard { "removed" } else { "expired" };
                let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
                let what = if *everything { "everything".to_owned() } else { targets.join(", ") };
                write!(f, "{verb} {what} at {}", Number::or_never(number.as_ref()))
            }
            Self::Heartbeat { next } => write!(f, "heartbeat, next message {next}"),
            Self::Unreadable { bytes } => write!(f, "unreadable, {bytes} bytes"),
        }
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tag, self.register) {
            (Some(tag), _) => write!(f, "tag {}", called(self.name.as_ref(), &tag)),
            (None, register) => write!(f, "register {}", register.unwrap_or_default()),
        }
    }
}

fn called(name: Option<&String>, hash: &Hash) -> String {
    name.map_or_else(|| hash.to_string(), |name| format!("{name:?}"))
}
