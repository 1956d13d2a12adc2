//! Telemetry: counters, metrics, spans, last errors.
//!
//! | what | cost without a reader |
//! |---|---|
//! | [`Stats`] | one relaxed add for each thing counted |
//! | [`Event`]s | nothing on a hit in L1, else one relaxed load |
//! | metrics (features `metrics`, `otel`) | nothing on a hit in L1: counters are exported once a second, and the age of one hit in 64 is recorded |
//! | spans (target [`TARGET`]) | one load of a level, and nothing on a hit in L1 |
//!
//! `docs/observability.md` has the tables.

// `stats`, `striped` and `meters` count; `series`, `facade` and `otel` export metrics. `spans` holds
// the spans, `health` the report. `faults` logs lasting faults once.

#[cfg(feature = "metrics")]
mod facade;
mod faults;
mod health;
mod meters;
#[cfg(feature = "otel")]
mod otel;
mod series;
pub(crate) mod spans;
mod stats;
mod striped;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

#[cfg(feature = "metrics")]
pub(crate) use facade::Exported;
pub(crate) use faults::{Fault, Faults};
pub use health::{Health, LastError, RegionHealth};
pub(crate) use meters::{Meters, Op};
#[cfg(feature = "otel")]
pub(crate) use otel::observe;
use series::Series;
pub use series::{BUCKETS, metric_names};
pub use spans::TARGET;
pub use stats::Stats;
pub(crate) use stats::{Counter, Counters};
pub(crate) use striped::Nth;
use striped::Striped;

use crate::clock::{Clock, Moment};
use crate::entry::Meta;
use crate::error::{BackplaneError, L2Error, L2ErrorKind};
use crate::events::{Event, EventBus, EventKey, Notice};
use crate::server::BusId;

/// Receives the telemetry of all parts of a cache.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) cache: Arc<str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events_bus: EventBus,
    pub(crate) meters: Meters,
    pub(crate) l1_hits: Striped,
    pub(crate) evictions: Counter,
    pub(crate) published: Counter,
    pub(crate) trouble: Mutex<Trouble>,
    pub(crate) faults: Faults,
    /// Failed L2 operations, by [`FailureKind`].
    pub(crate) l2_errors: [Counter; FailureKind::ALL],
    /// The addresses of L2 and the backplane, for logs.
    pub(crate) l2_server: Option<Arc<str>>,
    pub(crate) bus_server: Option<Arc<str>>,
    /// Whether L2 has ever answered a poll.
    met: AtomicBool,
    redact: bool,
    #[cfg(feature = "metrics")]
    pub(crate) facade: std::sync::OnceLock<Exported>,
}

/// The last errors of L2 and the backplane, and the coherence state.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) l2: Option<(Arc<str>, Moment)>,
    pub(crate) backplane: Option<(Arc<str>, Moment)>,
    /// Whether the node was coherent at the last check, and since when.
    pub(crate) coherent: (bool, Moment),
}

/// Why an L2 operation failed, as metrics report it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FailureKind {
    Unreachable,
    Timeout,
    Denied,
    Full,
    Other,
}

impl FailureKind {
    const ALL: usize = Self::Other as usize + 1;

    fn of(kind: L2ErrorKind) -> Self {
        match kind {
            L2ErrorKind::Disconnected => Self::Unreachable,
            L2ErrorKind::Timeout => Self::Timeout,
            L2ErrorKind::Denied => Self::Denied,
            L2ErrorKind::Full => Self::Full,
            L2ErrorKind::Foreign | L2ErrorKind::Late | L2ErrorKind::Other => Self::Other,
        }
    }
}

impl Telemetry {
    pub(crate) fn new(cache: Arc<str>, clock: Arc<dyn Clock>, redact: bool) -> Self {
        let coherent = (false, clock.now());
        Self {
            meters: Meters::new(&cache),
            cache,
            clock,
            events_bus: EventBus::default(),
            l1_hits: Striped::default(),
            evictions: Counter::default(),
            published: Counter::default(),
            trouble: Mutex::new(Trouble { l2: None, backplane: None, coherent }),
            faults: Faults::default(),
            l2_errors: Default::default(),
            l2_server: None,
            bus_server: None,
            met: AtomicBool::new(false),
            redact,
            #[cfg(feature = "metrics")]
            facade: std::sync::OnceLock::new(),
        }
    }

    /// Sets the addresses of L2 and the backplane.
    pub(crate) fn at(mut self, l2: Option<&BusId>, bus: Option<&BusId>) -> Self {
        let named = |at: &BusId| at.to_string().into();
        (self.l2_server, self.bus_server) = (l2.map(named), bus.map(named));
        self
    }

    /// Emits an event if there is a subscriber.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        self.events_bus.emit(event);
    }

    /// The key for events; `None` if keys are redacted.
    pub(crate) fn key(&self, key: &str) -> EventKey {
        self.shown(key).map(Into::into)
    }

    /// The key for spans; `None` if keys are redacted.
    pub(crate) fn shown<'a>(&self, key: &'a str) -> Option<&'a str> {
        (!self.redact).then_some(key)
    }

    /// The tags for events; `None` if keys are redacted.
    pub(crate) fn tags(&self, tags: &[String]) -> Option<Arc<[String]>> {
        (!self.redact).then(|| tags.into())
    }

    /// Counts and emits an eviction of L1.
    pub(crate) fn evicted(&self, meta: &Meta) {
        self.evictions.add();
        self.emit(|| Event::Eviction { key: self.key(&meta.key) });
    }

    /// Counts and emits a message published to the other nodes.
    pub(crate) fn published(&self, notice: Notice) {
        self.published.add();
        self.emit(|| Event::Published { notice });
    }

    pub(crate) fn l2_failed(&self, error: &L2Error) {
        self.l2_errors[FailureKind::of(error.kind()) as usize].add();
        self.trouble.lock().l2 = Some((error.to_string().into(), self.clock.now()));
        self.emit(|| Event::L2Failed { error: error.clone() });
    }

    pub(crate) fn backplane_failed(&self, error: &BackplaneError) {
        self.trouble.lock().backplane = Some((error.to_string().into(), self.clock.now()));
    }
}
