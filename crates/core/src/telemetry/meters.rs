//! Histograms, and the recorders they write to. The cache creates the handles once, when it is
//! built, with the recorder installed at that time. Without the features this module does nothing.

use std::time::Duration;

use crate::clock::{Clock, Moment};

/// A label's name and value.
pub(crate) type Label = (&'static str, &'static str);

/// The names of the histograms.
pub(super) const HISTOGRAMS: [&str; 4] = [FACTORY, L2, PUBLISH, AGE];

const FACTORY: &str = "crinkle_factory_seconds";
const L2: &str = "crinkle_l2_seconds";
const PUBLISH: &str = "crinkle_publish_seconds";
const AGE: &str = "crinkle_hit_age_seconds";

/// The operations of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    ReadMany,
    ReadHeads,
    ReadReplica,
    Put,
    Set,
    Remove,
    Expire,
    Release,
    Renew,
    Advance,
    Sync,
}

impl Op {
    const NAMES: [&str; 12] = [
        "read",
        "read_many",
        "read_heads",
        "read_replica",
        "put",
        "set",
        "remove",
        "expire",
        "release",
        "renew",
        "advance",
        "sync",
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The histograms of a cache, in seconds.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) factory_ok: Histogram,
    pub(crate) factory_failed: Histogram,
    pub(crate) l1_age: Histogram,
    pub(crate) l2_age: Histogram,
    pub(crate) publish: Histogram,
    l2: [Histogram; Op::NAMES.len()],
}

impl Meters {
    pub(crate) fn new(cache: &str) -> Self {
        let histogram = |name, label| Histogram::new(cache, name, label);
        Self {
            factory_ok: histogram(FACTORY, Some(("outcome", "ok"))),
            factory_failed: histogram(FACTORY, Some(("outcome", "failed"))),
            l1_age: histogram(AGE, Some(("source", "l1"))),
            l2_age: histogram(AGE, Some(("source", "l2"))),
            publish: histogram(PUBLISH, None),
            l2: Op::NAMES.map(|op| histogram(L2, Some(("op", op)))),
        }
    }

    /// The durations of one L2 operation.
    pub(crate) fn l2(&self, op: Op) -> &Histogram {
        &self.l2[op as usize]
    }
}

/// One series of a histogram.
#[derive(Debug)]
pub(crate) struct Histogram {
    #[cfg(feature = "metrics")]
    facade: super::facade::Histogram,
    #[cfg(feature = "otel")]
    otel: super::otel::Histogram,
}

impl Histogram {
    fn new(cache: &str, name: &'static str, label: Option<Label>) -> Self {
        let _ = (cache, name, label);
        Self {
            #[cfg(feature = "metrics")]
            facade: super::facade::Histogram::new(cache, name, label),
            #[cfg(feature = "otel")]
            otel: super::otel::Histogram::new(cache, name, label),
        }
    }

    pub(crate) fn record(&self, took: Duration) {
        let _ = took;
        #[cfg(feature = "metrics")]
        self.facade.record(took.as_secs_f64());
        #[cfg(feature = "otel")]
        self.otel.record(took.as_secs_f64());
    }

    /// Records the time until the guard is dropped, when its work ends or its caller stops waiting.
    pub(crate) fn time<'a>(&'a self, clock: &'a dyn Clock) -> Timing<'a> {
        Timing { histogram: self, clock, began: MEASURED.then(|| clock.now()) }
    }
}

/// Whether a feature is on that exports durations.
const MEASURED: bool = cfg!(any(feature = "metrics", feature = "otel"));

/// A running time measurement.
#[derive(Debug)]
pub(crate) struct Timing<'a> {
    histogram: &'a Histogram,
    clock: &'a dyn Clock,
    began: Option<Moment>,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            self.histogram.record(self.clock.now().since(began));
        }
    }
}
