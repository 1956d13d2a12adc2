//! Leased, versioned records: *a fill may overwrite only the exact version that it saw or created;
//! absence never authorises a write* (guarantee S5).
//!
//! The functions decide on a record's [`Head`] alone; stores apply the decision to the bytes. Redis
//! runs the same rules as scripts, the in-memory L2 and the models call these.
//!
//! ```text
//!            READ with ask            PUT version = load lock
//!  absent ─────────────────▶ leased ─────────────────────▶ value ──┐ PUT version = value's
//!     ▲                        │  another READ: HeldBy        │    │ (a refresh)
//!     └── remove, release ◀────┴──────── remove ◀─────────────┴────┘
//! ```
//!
//! A load lock is a version without a value, so `remove` and `set` void it by being there first. It is
//! also the stampede lock between nodes: losing it costs a second load, never staleness. See
//! Nishtala et al., *Scaling Memcache at Facebook*, NSDI 2013, section 3.2.1.

use super::Version;

/// What a stored record says about itself, as far as decisions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// A version without a value: somebody is loading.
    LoadLock(Version),
    /// A value.
    Value {
        /// Its version; another value is another version.
        version: Version,
        /// Marked by `expire`: stale whatever its age.
        expired: bool,
        /// Who refreshes it, if anybody, and until when on the store's clock (ms).
        refresh: Option<(Version, u64)>,
    },
}

impl Head {
    /// The version a fill compares with.
    #[must_use]
    pub fn version(self) -> Version {
        match self {
            Self::LoadLock(version) | Self::Value { version, .. } => version,
        }
    }
}

/// A reader's wish to be the one that loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadLockRequest {
    /// The id of the load lock it would hold.
    pub id: Version,
    /// How long the load lock lives unless renewed, in milliseconds.
    pub ttl_ms: u64,
    /// Another's load lock that this reader has waited out and may replace.
    pub replace: Option<Version>,
    /// A value of exactly this version is of no use to the reader though it looks fresh (a barrier
    /// hides it): load lock it like a stale one.
    pub hidden: Option<Version>,
}

/// Who may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadLock {
    /// Nobody asked, or the value is fresh.
    None,
    /// The asker: its fill will be accepted while the record stays as it is.
    Granted,
    /// Somebody else is loading under this id.
    HeldBy(Version),
}

/// What a store does for a READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadDecision {
    /// The answer about the load lock.
    pub load_lock: LoadLock,
    /// The head to store, if it changes. A new load lock lives `ttl_ms`; a value keeps its life.
    pub write: Option<Head>,
}

/// Decides a READ. `stale` is whether a value's logical life is over; `now_ms` is the store's clock.
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
    /// The record was the one expected; it carries the new value now.
    Stored,
    /// It was absent, or another version: nothing was written.
    Refused,
}

/// Decides a PUT: stored only over exactly `expected`.
#[must_use]
pub fn put(head: Option<Head>, expected: Version) -> Put {
    let fine = sabotaged!(FillOverAnything) || sabotaged!(AbsentIsFine) && head.is_none();
    if fine || head.map(Head::version) == Some(expected) { Put::Stored } else { Put::Refused }
}

/// Decides an EXPIRE: what remains of the record, under the new version. A load lock is voided.
#[must_use]
pub fn expire(head: Option<Head>, version: Version) -> Option<Head> {
    match head {
        Some(Head::Value { .. }) => Some(Head::Value { version, expired: true, refresh: None }),
        Some(Head::LoadLock(_)) | None => None,
    }
}

/// What giving a load lock back does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// The record is not (or no longer) leased under that id.
    Nothing,
    /// Delete the record: it was the load lock.
    Delete,
    /// Store this head: the value without its refresh lock.
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

/// Decides a RENEW of the load lock `id`: the head to store, which lives `ttl_ms` more if it is a load lock.
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
