//! Versioned records with a load lock: *a fill may overwrite only the exact version that it saw or
//! created; absence never authorises a write* (guarantee S5).
//!
//! The functions decide on a record's [`Head`] alone; stores apply the decision to the bytes. Redis
//! runs the same rules as scripts; the in-memory L2 and the models call these functions.
//!
//! ```text
//!        READ with load_lock       PUT version = load lock's
//!  absent ─────────────────▶ locked ─────────────────────▶ value ──┐ PUT version = value's
//!     ▲                        │  another READ: HeldBy        │    │ (a refresh)
//!     └── remove, release ◀────┴──────── remove ◀─────────────┴────┘
//! ```
//!
//! A load lock is a version without a value, so a `remove` or `set` that comes first voids it. It
//! also prevents a thundering herd between nodes: losing it costs a second load, never staleness.
//! See Nishtala et al., *Scaling Memcache at Facebook*, NSDI 2013, section 3.2.1.

use super::Version;

/// The part of a stored record that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// A load lock: a version without a value, while a caller loads.
    LoadLock(Version),
    /// A value.
    Value {
        /// Its version; another value has another version.
        version: Version,
        /// Marked by `expire`: stale at any age.
        expired: bool,
        /// The load lock of a refresh, if any, and when it expires on the store's clock (ms).
        refresh: Option<(Version, u64)>,
    },
}

impl Head {
    /// The version a fill compares with.
    #[must_use]
    #[inline]
    pub fn version(self) -> Version {
        match self {
            Self::LoadLock(version) | Self::Value { version, .. } => version,
        }
    }
}

/// A reader's request for the load lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadLockRequest {
    /// The id of the load lock.
    pub id: Version,
    /// The TTL of the load lock unless renewed, in milliseconds.
    pub ttl_ms: u64,
    /// Another reader's load lock that this reader has waited for and may replace.
    pub replace: Option<Version>,
    /// The reader cannot use a value of exactly this version, though it looks fresh (a barrier
    /// hides it). Grant the load lock as for a stale value.
    pub hidden: Option<Version>,
}

/// The reader's right to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadLock {
    /// The reader did not request it, or the value is fresh.
    None,
    /// The reader holds it: the store accepts its fill while the record stays as it is.
    Granted,
    /// Another reader loads under this id.
    HeldBy(Version),
}

/// What a store does for a READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadDecision {
    /// The answer to the load lock request.
    pub load_lock: LoadLock,
    /// The head to store, if it changes. A new load lock gets `ttl_ms`; a value keeps its TTL.
    pub write: Option<Head>,
}

/// Decides a READ. `stale`: a value has logically expired; `now_ms`: the store's clock.
#[must_use]
pub fn read(
    head: Option<Head>,
    stale: bool,
    ask: Option<LoadLockRequest>,
    now_ms: u64,
) -> ReadDecision {
    let nothing = ReadDecision { load_lock: LoadLock::None, write: None };
    let Some(ask) = ask else {
        return match head {
            Some(Head::LoadLock(by)) => {
                ReadDecision { load_lock: LoadLock::HeldBy(by), write: None }
            }
            _ => nothing,
        };
    };
    match head {
        None => grant(Head::LoadLock(ask.id)),
        Some(Head::LoadLock(by)) if by == ask.id => {
            ReadDecision { load_lock: LoadLock::Granted, write: None }
        }
        Some(Head::LoadLock(by)) if ask.replace == Some(by) => grant(Head::LoadLock(ask.id)),
        Some(Head::LoadLock(by)) => ReadDecision { load_lock: LoadLock::HeldBy(by), write: None },
        Some(Head::Value { version, expired, refresh }) => {
            if !(stale || expired || ask.hidden == Some(version)) {
                return nothing;
            }
            match refresh {
                Some((by, until)) if until > now_ms && by != ask.id && ask.replace != Some(by) => {
                    ReadDecision { load_lock: LoadLock::HeldBy(by), write: None }
                }
                _ => grant(Head::Value {
                    version,
                    expired,
                    refresh: Some((ask.id, now_ms.saturating_add(ask.ttl_ms))),
                }),
            }
        }
    }
}

fn grant(head: Head) -> ReadDecision {
    ReadDecision { load_lock: LoadLock::Granted, write: Some(head) }
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    /// The record was the expected one; it has the new value now.
    Stored,
    /// The record was absent or had another version: the store wrote nothing.
    Refused,
}

/// Decides a PUT: stored only over exactly `expected`.
#[must_use]
pub fn put(head: Option<Head>, expected: Version) -> Put {
    let fine = sabotaged!(FillOverAnything) || sabotaged!(AbsentIsFine) && head.is_none();
    if fine || head.map(Head::version) == Some(expected) { Put::Stored } else { Put::Refused }
}

/// Decides an EXPIRE: the record that remains, under the new version. Voids a load lock.
#[must_use]
pub fn expire(head: Option<Head>, version: Version) -> Option<Head> {
    match head {
        Some(Head::Value { .. }) => Some(Head::Value { version, expired: true, refresh: None }),
        Some(Head::LoadLock(_)) | None => None,
    }
}

/// The effect of releasing a load lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// The record does not (or no longer) carry this load lock.
    Nothing,
    /// Delete the record: it was the load lock.
    Delete,
    /// Store this head: the value without its refresh load lock.
    Clear(Head),
}

/// Decides a RELEASE of the load lock `id`.
#[must_use]
pub fn release(head: Option<Head>, id: Version) -> Release {
    match head {
        Some(Head::LoadLock(by)) if by == id => Release::Delete,
        Some(Head::Value { version, expired, refresh: Some((by, _)) }) if by == id => {
            Release::Clear(Head::Value { version, expired, refresh: None })
        }
        _ => Release::Nothing,
    }
}

/// Decides a RENEW of the load lock `id`: the head to store. A record that is only a load lock gets
/// `ttl_ms` more.
#[must_use]
pub fn renew(head: Option<Head>, id: Version, until_ms: u64) -> Option<Head> {
    match head {
        Some(Head::LoadLock(by)) if by == id => head,
        Some(Head::Value { version, expired, refresh: Some((by, _)) }) if by == id => {
            Some(Head::Value { version, expired, refresh: Some((id, until_ms)) })
        }
        _ => None,
    }
}
