//! READ: by plain commands, which cost the server a fraction of a script, as far as they go, then by script.
//!
//! ```text
//!  PTTL key
//!  GET key                                   without a wish to load
//!  SET key <load lock> NX GET PX <its life>      with one: makes the load lock, or answers what is there
//! ```
//!
//! One round trip either endpoint. What they cannot decide (a stale record to load lock, a load lock to replace, bytes
//! that are no record, a server that is full or older than Redis 7.0) the script does.
//!
//! The life that is left is asked for *before* the record. If the record is replaced in between, the new
//! one was written this instant: with what was left of the older one it looks as old as it is, or
//! older, never younger. If that is more than the new one was stored with, the script is asked, which
//! sees both at one moment.

use bytes::Bytes;
use crinkle_core::l2::{Found, Read, record};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{Head, LoadLock, LoadLockRequest};
use redis::{Cmd, Pipeline, ScriptInvocation};

use crate::ledger::ttl;
use crate::scripts;
use crate::store::{id, id_or_none};

/// Whether plain commands may answer this.
pub(crate) fn is_plain(ask: Option<LoadLockRequest>) -> bool {
    ask.is_none_or(|ask| ask.replace.is_none() && ask.hidden.is_none())
}

/// What reads one key.
pub(crate) fn one(key: &str, ask: Option<LoadLockRequest>) -> Pipeline {
    let mut pipe = Pipeline::with_capacity(2);
    add(&mut pipe, key, ask);
    pipe
}

/// Adds what reads one key.
pub(crate) fn add(pipe: &mut Pipeline, key: &str, ask: Option<LoadLockRequest>) {
    pipe.add_command(left_of(key));
    let read = match ask {
        None => {
            let mut get = Cmd::with_capacity(2, 3 + key.len());
            get.arg("GET").arg(key);
            get
        }
        Some(ask) => {
            let mut set = Cmd::with_capacity(7, 64 + key.len());
            let load_lock = record::load_lock(ask.id);
            set.arg("SET").arg(key).arg(&load_lock[..]).arg("NX").arg("GET");
            set.arg("PX").arg(ttl(ask.ttl_ms));
            set
        }
    };
    pipe.add_command(read);
}

fn left_of(key: &str) -> Cmd {
    let mut pttl = Cmd::with_capacity(2, 4 + key.len());
    pttl.arg("PTTL").arg(key);
    pttl
}

/// What the two replies say; `None` if they do not decide.
pub(crate) fn decide(
    ask: Option<LoadLockRequest>,
    pttl: i64,
    bytes: Option<Bytes>,
) -> Option<Read> {
    let ttl_ms = u64::try_from(pttl).unwrap_or(0);
    let Some(bytes) = bytes else {
        let load_lock = if ask.is_some() { LoadLock::Granted } else { LoadLock::None };
        return Some(Read { found: None, load_lock });
    };
    match (record::head(&bytes), ask) {
        (Some(Head::LoadLock(by)), Some(ask)) if by == ask.id => {
            Some(Read { found: None, load_lock: LoadLock::Granted })
        }
        (Some(Head::LoadLock(by)), _) => {
            Some(Read { found: None, load_lock: LoadLock::HeldBy(by) })
        }
        (None, Some(_)) => None,
        (Some(Head::Value { .. }), _) if record::is_ageless(&bytes, ttl_ms) => None,
        (Some(Head::Value { expired, .. }), Some(_))
            if expired || record::is_stale(&bytes, ttl_ms) =>
        {
            None
        }
        _ => Some(Read { found: Some(Found { bytes, ttl_ms }), load_lock: LoadLock::None }),
    }
}

/// What the script answers: the record, what is left of its life, and who holds its load lock.
pub(crate) type ReadReply = (Option<Bytes>, u64, Option<Vec<u8>>);

/// What reads one key by script.
pub(crate) fn by_script(key: &str, ask: Option<LoadLockRequest>) -> ScriptInvocation<'static> {
    let mut call = scripts::READ.key(key);
    if let Some(ask) = ask {
        call.arg(id(ask.id.0)).arg(ttl(ask.ttl_ms));
        call.arg(id_or_none(ask.replace.map(|v| v.0)));
        call.arg(id_or_none(ask.hidden.map(|v| v.0)));
    }
    call
}

/// What the script has found.
pub(crate) fn found(ask: Option<LoadLockRequest>, (bytes, ttl_ms, by): ReadReply) -> Read {
    let by = by.and_then(|by| Some(Version(u64::from_be_bytes(by.try_into().ok()?))));
    let load_lock = match by {
        None => LoadLock::None,
        Some(by) if ask.is_some_and(|ask| ask.id == by) => LoadLock::Granted,
        Some(by) => LoadLock::HeldBy(by),
    };
    Read { found: bytes.map(|bytes| Found { bytes, ttl_ms }), load_lock }
}
