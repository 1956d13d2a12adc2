//! Circuit breakers: calls to a server of L2 that does not answer fail at once.
//!
//! ```text
//!          N outages in a row                a probe succeeds
//!  closed ───────────────────▶ open ─────────────────────────────▶ closed
//!    ▲  any answer resets the count  │ calls fail at once, without waiting
//! ```
//!
//! Each server has its own breaker, so calls to the others continue. The ledger poll probes the
//! server that holds the ledger: it runs every P whatever the breaker's state. Every other open
//! server is probed as often, with a key that failed there. So no caller pays for finding out
//! whether a server answers again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::server::Server;
use crate::sync::Mutex;

/// The breakers of all servers of L2.
#[derive(Debug)]
pub(crate) struct Breakers {
    threshold: u32,
    /// For calls whose server has no name.
    unnamed: Breaker,
    /// Whether `failing` has entries, so that healthy servers cost one load.
    any: AtomicBool,
    /// The named servers that have failed since they last answered.
    failing: Mutex<BTreeMap<Arc<str>, Failing>>,
}

#[derive(Debug)]
struct Failing {
    breaker: Breaker,
    /// The record key to probe the server with.
    key: String,
    /// Whether to probe it although its breaker is closed.
    suspected: bool,
}

impl Breakers {
    pub(crate) fn new(threshold: u32) -> Self {
        Self {
            threshold,
            unnamed: Breaker::new(threshold),
            any: AtomicBool::new(false),
            failing: Mutex::default(),
        }
    }

    /// Whether a server's breaker is open. Calls `server` only if some server has failed.
    pub(crate) fn is_open(&self, server: impl FnOnce() -> Server) -> bool {
        let unnamed = self.unnamed.is_open();
        if !unnamed && !self.any.load(Ordering::Acquire) {
            return false;
        }
        match server() {
            Some(name) => self.failing.lock().get(&name).is_some_and(|f| f.breaker.is_open()),
            None => unnamed,
        }
    }

    /// Whether any breaker is open.
    pub(crate) fn any_is_open(&self) -> bool {
        self.unnamed.is_open() || self.failing.lock().values().any(|f| f.breaker.is_open())
    }

    /// Records an answer of a server, even a refusal. True if its breaker was open.
    pub(crate) fn answered(&self, server: &Server) -> bool {
        let Some(name) = server else { return self.unnamed.answered() };
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut failing = self.failing.lock();
        let was = failing.remove(name);
        self.any.store(!failing.is_empty(), Ordering::Release);
        was.is_some_and(|f| f.breaker.is_open())
    }

    /// Records a missing answer of a server for this record key. True if this opened its breaker.
    pub(crate) fn failed(&self, server: &Server, key: &str) -> bool {
        let Some(name) = server else { return self.unnamed.failed() };
        let mut failing = self.failing.lock();
        let opened = self.entry(&mut failing, name, key).breaker.failed();
        self.any.store(true, Ordering::Release);
        opened
    }

    /// Marks a server to be probed, because one of several did not answer and it is unknown which.
    pub(crate) fn suspect(&self, server: &Server, key: &str) {
        if let Some(name) = server {
            let mut failing = self.failing.lock();
            self.entry(&mut failing, name, key).suspected = true;
            self.any.store(true, Ordering::Release);
        }
    }

    fn entry<'a>(
        &self,
        failing: &'a mut BTreeMap<Arc<str>, Failing>,
        name: &Arc<str>,
        key: &str,
    ) -> &'a mut Failing {
        failing.entry(Arc::clone(name)).or_insert_with(|| {
            let breaker = Breaker::new(self.threshold);
            Failing { breaker, key: key.to_owned(), suspected: false }
        })
    }

    /// The servers to probe, with the record key to use.
    pub(crate) fn probes(&self) -> Vec<(Arc<str>, String)> {
        let failing = self.failing.lock();
        let due = failing.iter().filter(|(_, f)| f.suspected || f.breaker.is_open());
        due.map(|(name, f)| (Arc::clone(name), f.key.clone())).collect()
    }

    /// The named servers whose breakers are open.
    pub(crate) fn open(&self) -> Vec<Arc<str>> {
        let failing = self.failing.lock();
        let open = failing.iter().filter(|(_, f)| f.breaker.is_open());
        open.map(|(name, _)| Arc::clone(name)).collect()
    }
}

/// The breaker of one server.
#[derive(Debug)]
struct Breaker {
    threshold: u32,
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    fn new(threshold: u32) -> Self {
        Self { threshold, failures: AtomicU32::new(0), open: AtomicBool::new(false) }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// True if the breaker was open.
    fn answered(&self) -> bool {
        self.failures.store(0, Ordering::Release);
        self.open.swap(false, Ordering::AcqRel)
    }

    /// True if this opened the breaker.
    fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        failures >= self.threshold && !self.open.swap(true, Ordering::AcqRel)
    }
}
