//! READ: plain commands where they suffice, else a script. Plain commands cost the server a
//! fraction of a script.
//!
//! ```text
//!  PTTL key
//!  GET key                                    without a load lock request
//!  SET key <load lock> NX GET PX <its TTL>    with one: sets the load lock, or returns the record
//! ```
//!
//! Both take one round trip. The script decides where they cannot: a stale record to lock, a load
//! lock to replace, bytes that are not a record, a full server, a server older than Redis 7.0.
//!
//! The pipeline reads the remaining TTL *before* the record. If a write replaces the record in
//! between, the new record is only an instant old. Judged by the older record's TTL, it appears as
//! old as it is or older, never younger. If that TTL exceeds the new record's own, the script
//! decides, since it reads both at one moment.

use bytes::Bytes;
use crinkle_core::l2::{Found, Read, record};
use crinkle_core::protocol::Version;
use crinkle_core::protocol::record::{Head, LoadLock, LoadLockRequest};
use redis::{Cmd, Pipeline, ScriptInvocation};

use crate::ledger::ttl;
use crate::scripts::{self, id, id_or_none};

/// Whether plain commands may serve this request.
pub(crate) fn is_plain(ask: Option<LoadLockRequest>) -> bool {
    ask.is_none_or(|ask| ask.replace.is_none() && ask.hidden.is_none())
}

/// The pipeline that reads one key.
pub(crate) fn one(key: &str, ask: Option<LoadLockRequest>) -> Pipeline {
    let mut pipe = Pipeline::with_capacity(2);
    add(&mut pipe, key, ask);
    pipe
}

/// Adds the commands that read one key.
pub(crate) fn add(pipe: &mut Pipeline, key: &str, ask: Option<LoadLockRequest>) {
    pipe.add_command(remaining_ttl(key));
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

fn remaining_ttl(key: &str) -> Cmd {
    let mut pttl = Cmd::with_capacity(2, 4 + key.len());
    pttl.arg("PTTL").arg(key);
    pttl
}

/// Decodes the two replies; `None` if they do not suffice.
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

/// The script's reply: the record, its remaining TTL, and the holder of its load lock.
pub(crate) type ReadReply = (Option<Bytes>, u64, Option<Vec<u8>>);

/// The script call that reads one key.
pub(crate) fn by_script(key: &str, ask: Option<LoadLockRequest>) -> ScriptInvocation<'static> {
    let mut call = scripts::READ.key(key);
    if let Some(ask) = ask {
        call.arg(id(ask.id.0)).arg(ttl(ask.ttl_ms));
        call.arg(id_or_none(ask.replace.map(|v| v.0)));
        call.arg(id_or_none(ask.hidden.map(|v| v.0)));
    }
    call
}

/// Decodes the script's reply.
pub(crate) fn found(ask: Option<LoadLockRequest>, (bytes, ttl_ms, by): ReadReply) -> Read {
    let by = by.and_then(|by| Some(Version(u64::from_be_bytes(by.try_into().ok()?))));
    let load_lock = match by {
        None => LoadLock::None,
        Some(by) if ask.is_some_and(|ask| ask.id == by) => LoadLock::Granted,
        Some(by) => LoadLock::HeldBy(by),
    };
    Read { found: bytes.map(|bytes| Found { bytes, ttl_ms }), load_lock }
}
