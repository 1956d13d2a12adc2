use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::regions::{self, Parts};
use super::{Cache, DefaultCodec};
use crate::background::{self, sweep};
use crate::backplane::publish::{Bus, Fused};
use crate::backplane::{Backplane, PendingNotices};
use crate::clock::{Clock, SystemClock};
use crate::coherence::{Coherence, CoherenceTtl, Owed, Shadow};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Subject};
use crate::flight::Flights;
use crate::flight::checks::Checks;
use crate::l1::L1;
use crate::l2::access::Access;
use crate::l2::unread::Unread;
use crate::l2::{L2, NoCodec, Wire};
use crate::node::{Link, Node, OUTSIDE, Region, Regions, begin_export};
use crate::options::{EntryOptions, Eviction, PerKey, Settings};
use crate::protocol::ledger::Authority;
use crate::recovery::Recovery;
use crate::runtime::{Home, Owner};
use crate::tasks::{Background, Sweeper, Tasks};
use crate::telemetry::{Counters, Telemetry};
use crate::watch::Watch;
use crate::write::removal::begin_locally;

/// The longest key prefix, in bytes.
const MAX_PREFIX_LEN: usize = 128;

/// Configures and builds a [`Cache`]. `build` opens no connection, does not block and never panics.
///
/// ```
/// use crinkle_core::{Cache, backplane::MemoryBackplane, l2::MemoryL2};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop")
///     .key_prefix("shop:v2:")
///     .capacity(10_000)
///     .l2(MemoryL2::new())
///     .backplane(MemoryBackplane::new())
///     .build()?;
/// cache.ready().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder<C = DefaultCodec> {
    name: String,
    prefix: Option<String>,
    codec: C,
    codec_id: u8,
    settings: Settings,
    defaults: EntryOptions,
    per_key: Option<PerKey>,
    clock: Arc<dyn Clock>,
    seed: Option<u64>,
    l2: Option<Arc<dyn L2>>,
    /// The L2 holds the ledger and no values.
    ledger_only: bool,
    /// An L2 was given before another codec, which discarded it.
    l2_forgotten: bool,
    backplane: Option<Arc<dyn Backplane>>,
    regions: Vec<Parts>,
}

impl CacheBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            prefix: None,
            codec: DefaultCodec::default(),
            codec_id: 0,
            settings: Settings::default(),
            defaults: EntryOptions::default(),
            per_key: None,
            clock: Arc::new(SystemClock),
            seed: None,
            l2: None,
            ledger_only: false,
            l2_forgotten: false,
            backplane: None,
            regions: Vec::new(),
        }
    }
}

impl<C: Send + Sync + 'static> CacheBuilder<C> {
    /// Sets the prefix of every key in L2: 1 to 128 letters, digits and `_ . : -`. Caches that
    /// share a prefix share their entries; give them the same settings. Default: the name and a
    /// colon.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Sets the capacity of L1; see [`Settings::capacity`]. Default: 100,000.
    pub fn capacity(mut self, capacity: u64) -> Self {
        self.settings = self.settings.capacity(capacity);
        self
    }

    /// Sets the capacity of L1 in bytes; see [`Settings::capacity_bytes`]. Default: off.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.settings = self.settings.capacity_bytes(bytes);
        self
    }

    /// Sets which entries L1 evicts when it is full. Default: [`Eviction::S3Fifo`].
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.settings = self.settings.eviction(eviction);
        self
    }

    /// Replaces all settings, including those set before, such as `capacity`.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the options of calls that choose none. Default: 30 s, no fail-safe.
    pub fn default_options(mut self, options: EntryOptions) -> Self {
        self.defaults = options;
        self
    }

    /// Sets default options by key, which take precedence over those of the cache. The function
    /// returns `None` for the defaults of the cache. It runs for every call without options of its
    /// own, hits included, so it must be fast.
    ///
    /// ```
    /// # use crinkle_core::{Cache, EntryOptions};
    /// # use std::time::Duration;
    /// let cache = Cache::builder("shop")
    ///     .default_options_for(|key| {
    ///         key.starts_with("price:").then(|| EntryOptions::new(Duration::from_secs(5)))
    ///     })
    ///     .build()?;
    /// # Ok::<(), crinkle_core::Error>(())
    /// ```
    pub fn default_options_for(
        mut self,
        choose: impl Fn(&str) -> Option<EntryOptions> + Send + Sync + 'static,
    ) -> Self {
        self.per_key = Some(PerKey::new(choose));
        self
    }

    /// Sets how values are encoded for L2. Default: `MessagePack`. Call it before [`l2`](Self::l2):
    /// it discards an L2 given for another codec, and `build` then fails.
    pub fn codec<D: Send + Sync + 'static>(self, codec: D) -> CacheBuilder<D> {
        CacheBuilder {
            name: self.name,
            prefix: self.prefix,
            codec,
            codec_id: 0,
            settings: self.settings,
            defaults: self.defaults,
            per_key: self.per_key,
            clock: self.clock,
            seed: self.seed,
            l2_forgotten: self.l2.is_some() && !self.ledger_only,
            l2: if self.ledger_only { self.l2 } else { None },
            ledger_only: self.ledger_only,
            backplane: self.backplane,
            regions: self.regions,
        }
    }

    /// Sets the clock. Default: the system's, which counts suspend where the platform offers it.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Derives every random identity from a seed; only for tests, and only with the feature
    /// `testing`. A node that restarts with the same seed would give new records the versions of
    /// its old ones, and versions are compared for equality. Two nodes of one cache must never have
    /// the same seed.
    #[cfg(feature = "testing")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets L2, the level that all nodes share. Call [`codec`](Self::codec) first: it discards an
    /// L2 given before.
    pub fn l2(mut self, l2: impl L2) -> Self
    where
        C: Wire,
    {
        self.codec_id = self.codec.id();
        self.l2 = Some(Arc::new(l2));
        self.ledger_only = false;
        self
    }

    /// Sets an L2 for the ledger only, for values that cannot or need not be encoded: they stay in
    /// L1. Removals by tag and clears reach every node, and with a backplane also `set`, `remove`
    /// and `expire`. Replaces [`l2`](Self::l2).
    pub fn ledger(mut self, l2: impl L2) -> Self {
        self.l2 = Some(Arc::new(l2));
        self.ledger_only = true;
        self
    }

    /// Sets the backplane, which carries notifications between nodes.
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.backplane = Some(Arc::new(backplane));
        self
    }

    /// Adds another region of the same cache, with its own L2 and backplane. This cache relays its
    /// writes and removals to the region in the background, as removals. They stay queued while the
    /// region does not answer.
    ///
    /// A region over the cache's own [`l2`](Self::l2) is skipped, so that all nodes can have the
    /// same list. Regions are compared by their [bus](crate::l2::L2::bus), which derives from the
    /// configured addresses. Write the addresses the same way in both places: one server under two
    /// names counts as two regions.
    ///
    /// Writes of keys with `skip_l2_write` are not relayed.
    /// [`default_options`](Self::default_options) do not apply in a region. A relayed removal takes
    /// effect in the region within one poll of its nodes after it reaches the region. The time on
    /// the network is not bounded.
    ///
    /// ```
    /// use crinkle_core::{Cache, SystemClock, backplane::MemoryBackplane, l2::MemoryL2};
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let bus = MemoryBackplane::new();
    /// let cache = Cache::builder("shop")
    ///     .l2(MemoryL2::new())
    ///     .backplane(MemoryBackplane::new())
    ///     .region("eu", MemoryL2::announcing(Arc::new(SystemClock), bus.clone()), bus)
    ///     .build()?;
    /// cache.remove("price:42").await?;
    /// println!("{:?}", cache.health().regions);
    /// # Ok(())
    /// # }
    /// ```
    pub fn region(
        mut self,
        name: impl Into<String>,
        l2: impl L2,
        backplane: impl Backplane,
    ) -> Self {
        let (l2, backplane) = (Arc::new(l2), Arc::new(backplane));
        self.regions.push(Parts { name: name.into(), l2, backplane });
        self
    }

    /// Builds the cache. With an L2, call it within a tokio runtime: the background tasks and the
    /// loads run there. Connections open there too, so a server that is down is not an error.
    /// Without an L2, loads run on the runtime of the first call. If the runtime ends before the
    /// cache does, they continue on a thread that the process starts for this purpose.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidOptions`] names a setting that is out of range or contradicts another.
    /// Examples: a backplane without an L2 or a ledger; a region whose L2 names no bus.
    /// [`ErrorKind::NoRuntime`] for an L2 outside a tokio runtime.
    pub fn build(self) -> Result<Cache<C>, Error> {
        let (node, closing, codec) = self.open()?;
        Ok(Cache::new(node, closing, codec))
    }

    /// Builds the node and starts its tasks, which end when the guard is dropped.
    fn open(mut self) -> Result<(Arc<Node>, DropGuard, C), Error> {
        let place = Subject { cache: self.name.as_str().into(), key: None };
        let prefix = self.check(&place)?;
        let distributed = self.l2.is_some();
        let regions = self.open_regions(&prefix, &place)?;
        let (node, codec) = self.assemble(&prefix, true);
        let node = Arc::new(Node { regions, ..node });
        let closing = node.closing.clone().drop_guard();
        if distributed {
            background::start(&node)?;
        } else {
            begin_locally(&node);
        }
        begin_export(&node)?;
        sweep::ensure(&node);
        Ok((node, closing, codec))
    }

    /// Builds a node without entries for each other region.
    fn open_regions(&mut self, prefix: &str, place: &Subject) -> Result<Regions, Error> {
        let Some(home) = self.l2.clone() else { return Ok(Regions::default()) };
        let mut regions = Vec::new();
        for (at, parts) in (1..).zip(std::mem::take(&mut self.regions)) {
            parts.check(place)?;
            if parts.is_home(&home) {
                continue;
            }
            let (settings, options) = regions::region_options(&self.settings, &self.defaults);
            let mut there = CacheBuilder::new(&format!("{}@{}", self.name, parts.name))
                .codec(NoCodec)
                .key_prefix(prefix)
                .settings(settings)
                .default_options(options);
            there.clock = Arc::clone(&self.clock);
            there.seed = self.seed.map(|seed| seed.rotate_left(32) ^ at);
            (there.l2, there.backplane) = (Some(parts.l2), Some(parts.backplane));
            let (node, closing, _) = there.open()?;
            regions.push(Region { name: parts.name.into(), node, _closing: closing });
        }
        Ok(Regions(regions))
    }

    pub(super) fn build_disabled(self) -> Cache<C> {
        let (node, codec) = self.assemble("disabled:", false);
        let closing = node.closing.clone().drop_guard();
        Cache::new(Arc::new(node), closing, codec)
    }

    /// Validates the configuration; returns the key prefix.
    fn check(&self, place: &Subject) -> Result<String, Error> {
        let refuse = |what: String| Error::new(ErrorKind::InvalidOptions, place.clone(), what);
        self.settings.validate(place)?;
        self.defaults.validate(place)?;
        let prefix = self.prefix.clone().unwrap_or_else(|| format!("{}:", self.name));
        let legal = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        if prefix.len() < 2 && self.prefix.is_none()
            || prefix.is_empty()
            || prefix.len() > MAX_PREFIX_LEN
            || !prefix.chars().all(legal)
        {
            return Err(refuse(format!(
                "the key prefix is {prefix:?}; it must be 1 to {MAX_PREFIX_LEN} letters, digits or _.:- \
                 (it defaults to the cache's name and a colon)"
            )));
        }
        if prefix.contains("v1:") {
            return Err(refuse(format!(
                "the key prefix is {prefix:?}; it must not contain \"v1:\", which starts the \
                 internal part of a key; otherwise the keys of two caches could overlap"
            )));
        }
        if self.l2_forgotten && self.l2.is_none() {
            return Err(refuse(
                "`.codec(..)` was called after `.l2(..)`, which was for another codec; call it before"
                    .to_owned(),
            ));
        }
        if self.backplane.is_some() && self.l2.is_none() {
            return Err(refuse(
                "a backplane without an L2: L2 stores the ledger that numbers removals; call \
                 `.l2(..)`, or `.ledger(..)` if the values should stay in L1"
                    .to_owned(),
            ));
        }
        if !self.regions.is_empty() && self.l2.is_none() {
            return Err(refuse(
                "a region without an L2 of the cache itself; call `.l2(..)`".to_owned(),
            ));
        }
        if self.l2.is_some() && tokio::runtime::Handle::try_current().is_err() {
            let what = format!("an L2 needs background tasks; {OUTSIDE}");
            return Err(Error::new(ErrorKind::NoRuntime, place.clone(), what));
        }
        let (ttl, poll) = (self.settings.coherence_ttl, self.settings.poll);
        let answer = self.defaults.l2_hard_timeout;
        if self.l2.is_some() && ttl / 2 < poll.saturating_add(answer) {
            return Err(refuse(format!(
                "coherence_ttl is {ttl:?}, poll {poll:?} and l2_hard_timeout {answer:?}; \
                 coherence_ttl must be at least 2 poll + 2 l2_hard_timeout"
            )));
        }
        Ok(prefix)
    }

    fn assemble(self, prefix: &str, enabled: bool) -> (Node, C) {
        let entropy = Entropy::new(self.seed);
        let me = entropy.publisher();
        let (name, redact): (Arc<str>, _) = (self.name.into(), self.settings.redact_keys);
        let store_bus = self.l2.as_ref().and_then(|l2| l2.bus());
        let bus = self.backplane.as_ref().and_then(|backplane| backplane.bus());
        let telemetry = Telemetry::new(Arc::clone(&name), Arc::clone(&self.clock), redact);
        let telemetry = Arc::new(telemetry.at(store_bus.as_ref(), bus.as_ref()));
        let bus = self.backplane.map(|backplane| {
            let fused = match store_bus.is_some() && store_bus == backplane.bus() {
                true if self.ledger_only => Fused::Removals,
                true => Fused::All,
                false => Fused::Nothing,
            };
            Bus::new(backplane, prefix, me, fused, Arc::clone(&telemetry))
        });
        let ttl = self.l2.as_ref().map(|_| self.settings.coherence_ttl);
        let ttl = ttl.map_or_else(CoherenceTtl::forever, CoherenceTtl::new);
        let failures = self.settings.breaker_failures;
        let holds_records = !self.ledger_only;
        let l2 = self
            .l2
            .map(|l2| Access::new(l2, prefix, failures, Arc::clone(&telemetry), holds_records));
        if self.settings.trace_hits {
            telemetry.l1_hits.watch();
        }
        let node = Node {
            home: Home::new(if l2.is_some() { Owner::Tasks } else { Owner::Loads }),
            name,
            id: format!("{:032x}", me.0).into(),
            codec_id: self.codec_id,
            enabled,
            l1: L1::new(&self.settings, Arc::clone(&telemetry)),
            sweeper: Sweeper::default(),
            recovery: Recovery::new(self.settings.recovery_keys),
            settings: self.settings,
            defaults: self.defaults,
            per_key: self.per_key,
            built: self.clock.now(),
            clock: self.clock,
            entropy,
            coherence: Coherence::new(ttl),
            flights: Flights::new(),
            l2,
            own_ledger: Mutex::new(Authority::default()),
            bus,
            counters: Counters::default(),
            telemetry,
            tasks: Tasks::default(),
            background: Background::default(),
            closing: CancellationToken::new(),
            link: Watch::new(Link::default()),
            notices: PendingNotices::default(),
            owed: Owed::default(),
            unread: Unread::default(),
            shadow: Shadow::default(),
            checks: Checks::default(),
            regions: Regions::default(),
        };
        (node, self.codec)
    }
}
