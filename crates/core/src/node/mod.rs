//! The state that the clones of a cache share.
//!
//! | file | holds |
//! |---|---|
//! | here | the parts of one node in one struct, and the checks of arguments |
//! | `coded` | a node together with the codec of one type |
//! | `emit`, `health`, `export` | counts and emits what happens; reports it; exports metrics |
//! | `fence` | guards a write that overlaps loads of its key |
//! | `lost` | fails the flights whose task no longer runs |
//! | `regions` | the nodes that stand for other regions |

mod coded;
mod emit;
mod export;
mod fence;
mod health;
mod lost_flights;
mod regions;
mod resync;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backplane::PendingNotices;
use crate::backplane::publish::Bus;
use crate::clock::{Clock, Moment};
use crate::coherence::{Coherence, Owed, Shadow};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Subject};
use crate::flight::Flights;
use crate::flight::checks::Checks;
use crate::l1::L1;
use crate::l2::access::Access;
use crate::l2::unread::Unread;
use crate::options::{Choices, EntryOptions, PerKey, Settings};
use crate::protocol::Version;
use crate::protocol::ledger::Authority;
use crate::protocol::record::LoadLockRequest;
use crate::recovery::Recovery;
use crate::runtime::{Home, Place as Runtime};
use crate::tasks::{Background, Sweeper, Tasks};
use crate::telemetry::{Counters, Telemetry};
use crate::watch::Watch;

pub(crate) use coded::Coded;
pub(crate) use export::begin_export;
pub(crate) use fence::Fence;
pub(crate) use regions::{Region, Regions, Relayed};

/// The parts of one node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// The publisher id of this node, as text.
    pub(crate) id: Arc<str>,
    pub(crate) codec_id: u8,
    pub(crate) enabled: bool,
    pub(crate) settings: Settings,
    pub(crate) defaults: EntryOptions,
    pub(crate) per_key: Option<PerKey>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) built: Moment,
    pub(crate) entropy: Entropy,
    pub(crate) l1: L1,
    pub(crate) sweeper: Sweeper,
    pub(crate) coherence: Coherence,
    pub(crate) flights: Flights,
    /// The store of the ledger and, unless it is for the ledger only, of the records.
    pub(crate) l2: Option<Access>,
    /// The ledger of a cache without L2.
    pub(crate) own_ledger: Mutex<Authority>,
    pub(crate) bus: Option<Bus>,
    pub(crate) recovery: Recovery,
    pub(crate) counters: Counters,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tasks: Tasks,
    /// The runtime of the tasks.
    pub(crate) home: Home,
    /// The tasks that run as long as the cache is open.
    pub(crate) background: Background,
    pub(crate) closing: CancellationToken,
    pub(crate) link: Watch<Link>,
    pub(crate) notices: PendingNotices,
    pub(crate) owed: Owed,
    pub(crate) shadow: Shadow,
    pub(crate) checks: Checks,
    pub(crate) unread: Unread,
    pub(crate) regions: Regions,
}

/// What to do about [`ErrorKind::NoRuntime`].
pub(crate) const OUTSIDE: &str = "call it from a task of a runtime, or within its `block_on` or \
                                  `enter`; for code that is not async there is `cache.blocking()`";

/// The state of the connections to L2 and the backplane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The number of completed comparisons with the ledger.
    pub(crate) syncs: u64,
    /// The number of failed comparisons with the ledger.
    pub(crate) failures: u64,
    /// Whether a subscription is active.
    pub(crate) subscribed: bool,
    /// Whether the bus has returned a heartbeat, or its time limit has passed.
    pub(crate) spoken: bool,
    /// Whether the bus refuses what this node publishes.
    pub(crate) publish_refused: bool,
    /// Whether the bus refuses the subscription.
    pub(crate) subscribe_refused: bool,
    /// Whether L2 refuses the login, or a command because a permission is missing.
    pub(crate) l2_refused: bool,
}

impl Node {
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Returns the current moment with the precision that a hit needs: it may be a few milliseconds
    /// past.
    #[inline]
    pub(crate) fn recent(&self) -> Moment {
        self.clock.recent()
    }

    /// Returns the cache and key for an error; no key with `redact_keys`.
    pub(crate) fn place(&self, key: Option<&str>) -> Subject {
        let key = key.filter(|_| !self.settings.redact_keys).map(Into::into);
        Subject { cache: Arc::clone(&self.name), key }
    }

    pub(crate) fn error(&self, kind: ErrorKind, key: &str, detail: impl Into<String>) -> Error {
        Error::new(kind, self.place(Some(key)), detail)
    }

    /// Returns the error of a read that requires L2 while L2 does not answer.
    pub(crate) fn l2_required(&self, key: &str) -> Error {
        self.error(ErrorKind::L2, key, "L2 does not answer, and the call has `require_l2`")
    }

    /// Fails a read that starts after `close`.
    pub(crate) fn check_open(&self, key: Option<&str>) -> Result<(), Error> {
        if !self.closing.is_cancelled() {
            return Ok(());
        }
        let what =
            "`close` was called; a closed cache receives no notifications, so it serves nothing";
        Err(Error::new(ErrorKind::Closed, self.place(key), what))
    }

    /// Fails the write of a value that only this node would keep, after `close`.
    pub(crate) fn check_kept(&self, key: &str) -> Result<(), Error> {
        if !self.closing.is_cancelled() {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::Closed,
            key,
            "`close` was called, and the value would be stored on this node only",
        ))
    }

    /// Closes the cache: from now on it serves nothing, keeps nothing and starts nothing.
    pub(crate) fn shut(&self) {
        self.closing.cancel();
        self.l1.close();
    }

    /// Spawns a background task of this cache that no caller waits for.
    pub(crate) fn spawn<F>(&self, task: F) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn_behind(Box::pin(task), &self.runtime()?);
        Ok(())
    }

    /// Returns the runtime for tasks of this cache, while it is open.
    pub(crate) fn runtime(&self) -> Result<Runtime, Error> {
        if self.closing.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, self.place(None), ""));
        }
        let none =
            |error| Error::with_source(ErrorKind::NoRuntime, self.place(None), OUTSIDE, error);
        self.home.place().map_err(none)
    }

    /// Fails a call that has to wait and runs outside a runtime.
    pub(crate) fn check_runtime(&self, key: Option<&str>) -> Result<(), Error> {
        match tokio::runtime::Handle::try_current() {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::NoRuntime, self.place(key), OUTSIDE)),
        }
    }

    /// Returns L2, if it stores values.
    pub(crate) fn records(&self) -> Option<&Access> {
        self.l2.as_ref().filter(|l2| l2.holds_records())
    }

    /// Returns the options of a call that chooses none.
    pub(crate) fn options_for(&self, key: &str) -> EntryOptions {
        let chosen = self.per_key.as_ref().and_then(|per_key| per_key.options(key));
        chosen.unwrap_or_else(|| self.defaults.clone())
    }

    /// Whether a call without own options may have to skip L1.
    pub(crate) fn skips_l1(&self, key: &str) -> bool {
        match &self.per_key {
            None => self.defaults.passes_l1(),
            Some(per_key) => per_key.options(key).as_ref().unwrap_or(&self.defaults).passes_l1(),
        }
    }

    /// Whether a fresh value of L1 does not suffice for a call with these choices.
    #[inline]
    pub(crate) fn passes_l1(&self, choices: &Choices, key: &str) -> bool {
        match choices.decide_about_l1() {
            false => self.skips_l1(key),
            true => choices.over(self.options_for(key)).passes_l1(),
        }
    }

    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        let len = key.len();
        if len == 0 || len > Settings::MAX_KEY_LEN {
            let most = Settings::MAX_KEY_LEN;
            let detail = format!("it is {len} bytes long; keys have 1 to {most} bytes");
            return Err(Error::new(ErrorKind::InvalidKey, self.place(None), detail));
        }
        Ok(())
    }

    pub(crate) fn check_tags<S: AsRef<str>>(&self, key: &str, tags: &[S]) -> Result<(), Error> {
        let most = self.settings.max_tags;
        if tags.len() > most {
            let detail = format!("{} tags; an entry carries at most {most}", tags.len());
            return Err(self.error(ErrorKind::InvalidTag, key, detail));
        }
        tags.iter().try_for_each(|tag| self.check_tag(tag.as_ref()))
    }

    pub(crate) fn check_tag(&self, tag: &str) -> Result<(), Error> {
        let (len, most) = (tag.len(), self.settings.max_tag_len);
        if len == 0 || len > most {
            let detail = format!("it is {len} bytes long; tags have 1 to {most} bytes");
            return Err(Error::new(ErrorKind::InvalidTag, self.place(None), detail));
        }
        Ok(())
    }

    /// A request for the load lock of a key; see [`LoadLockRequest`].
    pub(crate) fn load_lock_request(
        &self,
        id: Version,
        hidden: Option<Version>,
    ) -> LoadLockRequest {
        let ttl_ms = crate::clock::millis(self.settings.load_lock_ttl);
        LoadLockRequest { id, ttl_ms, replace: None, hidden }
    }

    /// Returns how long barriers are kept, in milliseconds.
    pub(crate) fn retention_ms(&self) -> u64 {
        crate::clock::millis(self.settings.retention(self.defaults.factory_deadline))
    }

    /// Returns the time limit of L2 operations that no caller's options limit.
    pub(crate) fn l2_limit(&self) -> Duration {
        self.defaults.l2_hard_timeout
    }
}
