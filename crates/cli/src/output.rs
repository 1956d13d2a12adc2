use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Prints results as text or JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn show<T: Serialize + Display>(self, it: &T) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, it)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{it}")?;
        }
        out.flush()
    }
}

/// An identity, as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) u64);

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A 128-bit hash or identity, as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(pub(crate) u128);

impl Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of the ledger, and its time by the server's clock.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Number {
    number: u64,
    at: String,
}

impl Number {
    /// `None` for never.
    pub(crate) fn of(number: u64) -> Option<Self> {
        (number != 0).then(|| Self { number, at: at(number) })
    }

    /// Formats a number, or `never`.
    pub(crate) fn or_never(number: Option<&Self>) -> String {
        number.map_or_else(|| "never".to_owned(), |it| format!("{} (number {})", it.at, it.number))
    }
}

/// Formats a time in microseconds since the Unix epoch.
fn at(micros: u64) -> String {
    // RFC 3339 ends with the year 9999.
    let written = |time| humantime::format_rfc3339_millis(time).to_string();
    let last = Duration::from_secs(253_402_300_799);
    written(UNIX_EPOCH + Duration::from_micros(micros).min(last))
}

/// The current time on this host.
#[expect(clippy::disallowed_methods, reason = "shown to an operator; no decision reads it")]
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Formats a duration in milliseconds.
pub(crate) fn span(ms: u64) -> String {
    let exact = Duration::from_millis(ms);
    let whole = Duration::from_secs(ms / 1000);
    humantime::format_duration(if ms < 10_000 { exact } else { whole }).to_string()
}
