//! Loads that wait for each other.
//!
//! A factory may ask the cache for other keys, so loads wait for loads. If one of them waits for itself, be it
//! over other keys, other tasks or other caches, none of them would end. Whoever would close such a circle gets
//! an error instead.
//!
//! ```text
//!  factory of k1 ──asks──▶ flight of k2        noted while the call waits
//!                            │ run by
//!                            ▼
//!                          factory of k2 ──asks──▶ flight of k1?  run by a factory that waits: refused
//! ```
//!
//! - **N1** What a factory waits for is noted, and whether that closes a circle is looked up, under one lock: of
//!   two calls that would close it together, one is refused.
//! - **N2** A note ends with the wait: a load that nobody waits for any more closes no circle.
//! - **N3** Calls outside of factories note nothing, and take no lock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Flight;
use crate::cache::Inner;
use crate::error::{Error, ErrorKind, Place};

tokio::task_local! {
    /// The run of a factory that this code is part of. What the factory spawns is not.
    static RUN: Run;
}

/// One run of a factory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run(u64);

/// A load that a call of a factory waits for.
#[derive(Debug)]
struct Awaited {
    wait: u64,
    flight: Arc<Flight>,
    place: Place,
}

/// What the calls of each running factory wait for.
static WAITS: Mutex<BTreeMap<Run, Vec<Awaited>>> = Mutex::new(BTreeMap::new());

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Run {
    /// A factory begins that these loads wait for.
    pub(crate) fn of<'a>(flights: impl IntoIterator<Item = &'a Arc<Flight>>) -> Self {
        let run = Self(NEXT.fetch_add(1, Ordering::Relaxed));
        for flight in flights {
            flight.run.store(run.0, Ordering::Release);
        }
        run
    }

    /// The factory, whose calls know that it waits for them.
    pub(crate) fn scope<F: Future>(self, factory: F) -> impl Future<Output = F::Output> {
        RUN.scope(self, factory)
    }

    fn that_ends(flight: &Flight) -> Option<Self> {
        let run = flight.run.load(Ordering::Acquire);
        (run != 0).then_some(Self(run))
    }
}

/// The same code for another thread, as part of the factory that this code is part of.
#[cfg(feature = "blocking")]
pub(crate) fn carried<R>(code: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let run = RUN.try_with(|run| *run).ok();
    move || match run {
        Some(run) => RUN.sync_scope(run, code),
        None => code(),
    }
}

/// A factory's call waits for a load. Ends when dropped.
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

/// A call is about to wait for this load. Outside of a factory that is nothing.
///
/// # Errors
///
/// [`ErrorKind::Reentrant`] if the load waits for the factory that the call is part of.
pub(crate) fn wait_for<C>(inner: &Inner<C>, flight: &Arc<Flight>) -> Result<Option<Nested>, Error> {
    let Ok(run) = RUN.try_with(|run| *run) else { return Ok(None) };
    let place = inner.place(Some(&flight.key));
    let mut waits = WAITS.lock();
    if let Some(chain) = chain(&waits, flight, &place, run) {
        drop(waits);
        let detail = format!(
            "{}; a factory must load what it needs from the source, or under a key that does not need its own",
            in_words(&chain)
        );
        return Err(Error::new(ErrorKind::Reentrant, place, detail));
    }
    let wait = NEXT.fetch_add(1, Ordering::Relaxed);
    waits.entry(run).or_default().push(Awaited { wait, flight: Arc::clone(flight), place });
    Ok(Some(Nested { run, wait }))
}

/// The loads from this one to the one that the factory runs for, each waiting for the next.
fn chain(
    waits: &BTreeMap<Run, Vec<Awaited>>,
    flight: &Flight,
    place: &Place,
    to: Run,
) -> Option<Vec<Place>> {
    let (mut seen, mut open) = (HashSet::new(), vec![(flight, vec![place])]);
    while let Some((flight, way)) = open.pop() {
        let Some(run) = Run::that_ends(flight) else { continue };
        if run == to {
            return Some(way.into_iter().cloned().collect());
        }
        if seen.insert(run) {
            let next = waits.get(&run).into_iter().flatten();
            open.extend(next.map(|next| {
                let way = way.iter().copied().chain([&next.place]).collect();
                (&*next.flight, way)
            }));
        }
    }
    None
}

/// `"a" -> "b" -> "a"`.
fn in_words(chain: &[Place]) -> String {
    let home = chain.first().map(|place| &place.cache);
    let named: Vec<_> =
        chain.last().into_iter().chain(chain).map(|place| name(place, home)).collect();
    named.join(" -> ")
}

fn name(place: &Place, home: Option<&Arc<str>>) -> String {
    let key = place.key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("{key:?}"));
    if home == Some(&place.cache) { key } else { format!("{key} of cache {:?}", place.cache) }
}
