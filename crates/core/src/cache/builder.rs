use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::inner::OUTSIDE;
use super::regions::{self, Parts, Region};
use super::{Cache, DefaultCodec, Inner, Link, Regions, background};
use crate::backplane::Backplane;
use crate::backplane::publish::{Bus, Fused};
use crate::backplane::receive::PendingNotices;
use crate::clock::{Clock, SystemClock};
use crate::coherence::{CoherenceTtl, Node, Owed, Shadow};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Place};
use crate::flight::Flights;
use crate::l1::L1;
use crate::l2::access::Access;
use crate::l2::{L2, NoCodec, Wire};
use crate::options::{EntryOptions, Eviction, PerKey, Settings};
use crate::protocol::ledger::Authority;
use crate::read::Checks;
use crate::recovery::Recovery;
use crate::runtime::{Home, Owner};
use crate::sweep::{self, Sweeper};
use crate::telemetry::{self, Counters, Observed, Telemetry};
use crate::watch::Watch;
use crate::write::removal::begin_locally;

/// The longest key prefix, in bytes.
const MAX_PREFIX_LEN: usize = 128;

/// Puts a cache together. `build` connects to nothing, blocks on nothing and never panics.
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
    /// An L2 was given, and then another codec.
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
    /// What every key in L2 begins with: 1 to 128 letters, digits and `_ . : -`. Caches that share a
    /// prefix share their entries; give them the same settings. Default: the name and a colon.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// How much L1 holds; see [`Settings::capacity`]. Default: 100,000.
    pub fn capacity(mut self, capacity: u64) -> Self {
        self.settings = self.settings.capacity(capacity);
        self
    }

    /// How much L1 holds, in bytes; see [`Settings::capacity_bytes`]. Default: off.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.settings = self.settings.capacity_bytes(bytes);
        self
    }

    /// Which entries L1 lets go when it is full. Default: [`Eviction::S3Fifo`].
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.settings = self.settings.eviction(eviction);
        self
    }

    /// Everything that is data; replaces what was set before, `capacity` included.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The options of calls that choose none. Default: 30 s, no fail-safe.
    pub fn default_options(mut self, options: EntryOptions) -> Self {
        self.defaults = options;
        self
    }

    /// The default options of each key, before those of the cache; `None` for these. It is called for
    /// every call that brings no options of its own, hits included, so let it be quick.
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

    /// How values become bytes. Default: `MessagePack`. Choose it before [`l2`](Self::l2): an L2 that was
    /// given before is forgotten, since it was given for another codec.
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

    /// The clock. Default: the system's, which counts suspend where it can.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes every random identity follow from a seed, for tests alone, and so only with the feature
    /// `testing`: a node that comes back with the seed it had would give its new records the versions of
    /// its old ones, and versions are compared for equality. Two nodes of one cache must never have the
    /// same seed.
    #[cfg(feature = "testing")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The shared level. Choose the codec before: [`codec`](Self::codec) forgets it.
    pub fn l2(mut self, l2: impl L2) -> Self
    where
        C: Wire,
    {
        self.codec_id = self.codec.id();
        self.l2 = Some(Arc::new(l2));
        self.ledger_only = false;
        self
    }

    /// A shared level for the ledger alone, for values that cannot or need not be encoded: they stay in
    /// L1, and removals by tag, clears, and with a backplane `set`, `remove` and `expire`, reach
    /// every node. Replaces [`l2`](Self::l2).
    pub fn ledger(mut self, l2: impl L2) -> Self {
        self.l2 = Some(Arc::new(l2));
        self.ledger_only = true;
        self
    }

    /// The notifications between nodes.
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.backplane = Some(Arc::new(backplane));
        self
    }

    /// Another region, with an L2 and a backplane of its own for the same cache: what is written and
    /// removed here is removed there, in the background, and waits for a region that does not answer.
    /// A region over the cache's own [`l2`](Self::l2) is left out, so that all nodes can be given the same
    /// list. It is known by its [bus](crate::l2::L2::bus), which is made of the addresses it was given:
    /// write them the same in both places, for one server under two names is two regions. Writes of keys
    /// with `skip_l2_write` are not relayed; [`default_options`](Self::default_options) do not hold in a
    /// region. What a region is told is right there within the poll of its nodes; how long it is on its way
    /// is the network's affair.
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

    /// Builds the cache. With an L2 it must be called within a tokio runtime, on which the
    /// background tasks run, and the loads; connecting happens there, so a server that is down is no error.
    /// Without one, the runtime of the first call is that of the loads. If it ends before the cache
    /// does, they go on on a thread of this process that is started for that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidOptions`] names the setting that is out of range or contradicts another: a
    /// backplane without an L2 or a ledger, a region whose L2 names no bus. [`ErrorKind::NoRuntime`] for an L2
    /// outside a tokio runtime.
    pub fn build(mut self) -> Result<Cache<C>, Error> {
        let place = Place { cache: self.name.as_str().into(), key: None };
        let prefix = self.check(&place)?;
        let distributed = self.l2.is_some();
        let regions = self.open_regions(&prefix, &place)?;
        let cache = Cache::new(Inner { regions, ..self.assemble(&prefix, true) });
        let inner = cache.inner();
        if distributed {
            background::start(inner)?;
        } else {
            begin_locally(inner);
        }
        telemetry::begin(inner)?;
        sweep::ensure(inner);
        Ok(cache)
    }

    /// A cache without entries in each other region.
    fn open_regions(&mut self, prefix: &str, place: &Place) -> Result<Regions, Error> {
        let Some(home) = self.l2.clone() else { return Ok(Regions::default()) };
        let mut regions = Vec::new();
        for (at, parts) in (1..).zip(std::mem::take(&mut self.regions)) {
            parts.check(place)?;
            if parts.is_home(&home) {
                continue;
            }
            let (settings, options) = regions::driven_by(&self.settings, &self.defaults);
            let mut there = CacheBuilder::new(&format!("{}@{}", self.name, parts.name))
                .codec(NoCodec)
                .key_prefix(prefix)
                .settings(settings)
                .default_options(options);
            there.clock = Arc::clone(&self.clock);
            there.seed = self.seed.map(|seed| seed.rotate_left(32) ^ at);
            (there.l2, there.backplane) = (Some(parts.l2), Some(parts.backplane));
            regions.push(Region { name: parts.name.into(), cache: there.build()? });
        }
        Ok(Regions(regions))
    }

    pub(super) fn build_disabled(self) -> Cache<C> {
        Cache::new(self.assemble("disabled:", false))
    }

    /// Parses what was given; the key prefix, if all of it is sound.
    fn check(&self, place: &Place) -> Result<String, Error> {
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
                "the key prefix is {prefix:?}; it must not contain \"v1:\", which begins the \
                 internal part of a key, so that no cache's keys lie within another's"
            )));
        }
        if self.l2_forgotten && self.l2.is_none() {
            return Err(refuse(
                "the codec was chosen after the L2, which was for another; choose it before"
                    .to_owned(),
            ));
        }
        if self.backplane.is_some() && self.l2.is_none() {
            return Err(refuse(
                "a backplane without an L2: the ledger that numbers removals lives in L2; if values \
                 are to stay in L1, give the builder a .ledger(..)"
                    .to_owned(),
            ));
        }
        if !self.regions.is_empty() && self.l2.is_none() {
            return Err(refuse("other regions without an L2 in this one".to_owned()));
        }
        if self.l2.is_some() && tokio::runtime::Handle::try_current().is_err() {
            let what = format!("an L2 needs background tasks; {OUTSIDE}");
            return Err(Error::new(ErrorKind::NoRuntime, place.clone(), what));
        }
        let (ttl, poll) = (self.settings.coherence_ttl, self.settings.poll);
        let answer = self.defaults.l2_hard_timeout;
        if self.l2.is_some() && ttl / 2 < poll.saturating_add(answer) {
            return Err(refuse(format!(
                "coherence_ttl is {ttl:?}, poll {poll:?} and l2_hard_timeout {answer:?}; a poll, \
                 its heartbeat and their answers do not fit (coherence_ttl >= 2 poll + 2 l2_hard_timeout)"
            )));
        }
        Ok(prefix)
    }

    fn assemble(self, prefix: &str, enabled: bool) -> Inner<C> {
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
        let l2 = self.l2.map(|l2| {
            let store = Arc::new(Observed::new(l2, Arc::clone(&telemetry)));
            Access::new(store, prefix, failures, Arc::clone(&telemetry), holds_records)
        });
        if self.settings.trace_hits {
            telemetry.l1_hits.watch();
        }
        Inner {
            home: Home::new(if l2.is_some() { Owner::Tasks } else { Owner::Loads }),
            name,
            id: format!("{:032x}", me.0).into(),
            codec: self.codec,
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
            node: Node::new(ttl),
            flights: Flights::new(),
            l2,
            own_ledger: Mutex::new(Authority::default()),
            bus,
            counters: Counters::default(),
            telemetry,
            tasks: super::Tasks::default(),
            background: Background::default(),
            closing: CancellationToken::new(),
            link: Watch::new(Link::default()),
            notices: PendingNotices::default(),
            owed: Owed::default(),
            unread: crate::read::Unread::default(),
            shadow: Shadow::default(),
            checks: Checks::default(),
            regions: Regions::default(),
        }
    }
}
