//! Detects loads that would wait for each other in a circle.
//!
//! A factory may read other keys of the cache, so loads can wait for loads. A load that waits for
//! itself, through other keys, tasks or caches, would never end. The call that would close such a
//! circle gets an error instead.
//!
//! ```text
//!  factory of k1 ──asks──▶ flight of k2        noted while the call waits
//!                            │ run by
//!                            ▼
//!                          factory of k2 ──asks──▶ flight of k1?  its factory waits: refused
//! ```
//!
//! - **N1** One lock covers both the note of what a factory waits for and the search for a circle.
//!   If two calls would close a circle together, the cache refuses one of them.
//! - **N2** A note ends with the wait: a load without waiting callers closes no circle.
//! - **N3** Calls outside of factories note nothing and take no lock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Flight;
use crate::error::{Error, ErrorKind, Subject};

tokio::task_local! {
    /// The factory run that this code is part of. Tasks that the factory spawns are not part of it.
    static RUN: Run;
}

/// One run of a factory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run(u64);

/// A load that a call within a factory waits for.
#[derive(Debug)]
struct Awaited {
    wait: u64,
    flight: Arc<Flight>,
    place: Subject,
}

/// The loads that the calls of each running factory wait for.
static WAITS: Mutex<BTreeMap<Run, Vec<Awaited>>> = Mutex::new(BTreeMap::new());

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Run {
    /// Begins the factory run that completes these flights.
    pub(crate) fn of<'a>(flights: impl IntoIterator<Item = &'a Arc<Flight>>) -> Self {
        let run = Self(NEXT.fetch_add(1, Ordering::Relaxed));
        for flight in flights {
            flight.run.store(run.0, Ordering::Release);
        }
        run
    }

    /// Runs the factory within this run, so that its nested calls are noted.
    pub(crate) fn scope<F: Future>(self, factory: F) -> impl Future<Output = F::Output> {
        RUN.scope(self, factory)
    }

    fn completing(flight: &Flight) -> Option<Self> {
        let run = flight.run.load(Ordering::Acquire);
        (run != 0).then_some(Self(run))
    }
}

/// Wraps code for another thread, so that it stays part of the current factory run.
#[cfg(feature = "blocking")]
pub(crate) fn carried<R>(code: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let run = RUN.try_with(|run| *run).ok();
    move || match run {
        Some(run) => RUN.sync_scope(run, code),
        None => code(),
    }
}

/// The note that a call within a factory waits for a load. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Nested {
    run: Run,
    wait: u64,
}

impl Drop for Nested {
    fn drop(&mut self) {
        let mut waits = WAITS.lock();
        if let Some(awaited) = waits.get_mut(&self.run) {
            awaited.retain(|awaited| awaited.wait != self.wait);
            if awaited.is_empty() {
                waits.remove(&self.run);
            }
        }
    }
}

/// Notes that the current call waits for this load. Does nothing outside of a factory.
///
/// # Errors
///
/// [`ErrorKind::Reentrant`] if the load waits for the factory that the call is part of.
pub(crate) fn wait_for(
    flight: &Arc<Flight>,
    place: impl FnOnce() -> Subject,
) -> Result<Option<Nested>, Error> {
    let Ok(run) = RUN.try_with(|run| *run) else { return Ok(None) };
    let place = place();
    let mut waits = WAITS.lock();
    if let Some(chain) = chain(&waits, flight, &place, run) {
        drop(waits);
        let detail = format!(
            "{}; a factory must load what it needs from the source, or under a key that does not need its own",
            describe(&chain)
        );
        return Err(Error::new(ErrorKind::Reentrant, place, detail));
    }
    let wait = NEXT.fetch_add(1, Ordering::Relaxed);
    waits.entry(run).or_default().push(Awaited { wait, flight: Arc::clone(flight), place });
    Ok(Some(Nested { run, wait }))
}

/// The chain of loads from this one to a load of run `to`, each waiting for the next.
fn chain(
    waits: &BTreeMap<Run, Vec<Awaited>>,
    flight: &Flight,
    place: &Subject,
    to: Run,
) -> Option<Vec<Subject>> {
    let (mut seen, mut open) = (HashSet::new(), vec![(flight, vec![place])]);
    while let Some((flight, path)) = open.pop() {
        let Some(run) = Run::completing(flight) else { continue };
        if run == to {
            return Some(path.into_iter().cloned().collect());
        }
        if seen.insert(run) {
            let next = waits.get(&run).into_iter().flatten();
            open.extend(next.map(|next| {
                let path = path.iter().copied().chain([&next.place]).collect();
                (&*next.flight, path)
            }));
        }
    }
    None
}

/// Formats a chain as `"a" -> "b" -> "a"`.
fn describe(chain: &[Subject]) -> String {
    let home = chain.first().map(|place| &place.cache);
    let named: Vec<_> =
        chain.last().into_iter().chain(chain).map(|place| name(place, home)).collect();
    named.join(" -> ")
}

fn name(place: &Subject, home: Option<&Arc<str>>) -> String {
    let key = place.key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("{key:?}"));
    if home == Some(&place.cache) { key } else { format!("{key} of cache {:?}", place.cache) }
}
