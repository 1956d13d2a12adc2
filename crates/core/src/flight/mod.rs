//! The in-flight loads of this node: single-flight per key, one table, one short lock per key.
//!
//! The rules (who joins, who waits, what may be inserted) are in
//! [`protocol::flight`](crate::protocol::flight); this module adds a lock and waiters. The lock of
//! a key's shard makes *insert into L1* and *invalidate* mutually atomic. It is never held across
//! an await, and no user code runs under it.
//!
//! | file | holds |
//! |---|---|
//! | here | one flight, and the table of all flights |
//! | `checks` | the running checks of copies that L1 has and must verify |
//! | `driver` | who polls the leader: its caller or a task |
//! | `waiting` | counts the callers that wait |
//! | `outcome` | what a flight ends with |
//! | `nesting` | refuses loads that would wait for each other in a circle |

pub(crate) mod checks;
mod driver;
pub(crate) mod nesting;
mod outcome;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use driver::{Drive, Driver, Leader};
pub(crate) use outcome::{Cause, Completed, Failure, Outcome, Progress, StaleReason, Usability};
pub(crate) use waiting::{Callers, Waiting};

use crate::entry::{ErasedEntry, Stamp};
use crate::events::MissReason;
use crate::protocol::flight::{FlightId, KeyState, Received, Registration};
use crate::protocol::{KeyHash, Version};
use crate::runtime::Place;
use crate::sync::{AtomicU64, DashMap, Entry as Shard};
use crate::watch::Watch;

/// One in-flight load.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: FlightId,
    pub(crate) hash: KeyHash,
    pub(crate) key: Box<str>,
    /// The node's knowledge before the flight began.
    pub(crate) stamp: Stamp,
    /// It asks L2 even if L1 has a fresh value.
    pub(crate) strict: bool,
    /// Its progress, for the waiting callers.
    pub(crate) progress: Watch<Progress>,
    /// Signals that the node received a version of the key: another node may have filled it.
    pub(crate) news: Notify,
    /// Signals that the factory must stop.
    pub(crate) stop: Notify,
    /// The callers that wait for it.
    pub(crate) callers: Callers,
    /// The factory run that completes it; 0 if none has begun.
    run: AtomicU64,
    /// A caller's limit for another node's load has passed.
    hurried: AtomicBool,
    /// The state of its requests to L2.
    l2: Mutex<Asking>,
    /// Signals that a caller gave up on L2.
    gave_up: Notify,
    /// The same signal, for the batch that leads this flight and others.
    batch: OnceLock<Arc<Notify>>,
    /// The key was removed since: no older value may be a fallback.
    pub(crate) removed: AtomicBool,
    /// Whether its caller or a task polls it.
    pub(crate) driver: Driver,
    /// The runtime that it runs on, once known.
    pub(crate) place: OnceLock<Place>,
    /// The miss reason, as far as it is known.
    reason: Mutex<MissReason>,
}

impl Flight {
    /// Whether its runtime is unknown or has ended.
    pub(crate) fn is_left(&self) -> bool {
        self.place.get().is_none_or(Place::is_left)
    }

    /// Sets the miss reason.
    pub(crate) fn because(&self, reason: MissReason) {
        *self.reason.lock() = reason;
    }

    pub(crate) fn reason(&self) -> MissReason {
        *self.reason.lock()
    }

    /// Makes this node load too, because a caller no longer waits for another node's load.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.news.notify_one();
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Acquire)
    }

    /// Reports that another node is loading and `stale` may be served meanwhile.
    ///
    /// Wakes the callers only if `stale` has changed.
    pub(crate) fn waits(&self, stale: Option<ErasedEntry>) {
        let of = |erased: &Option<ErasedEntry>| erased.as_ref().map(|erased| erased.meta().version);
        match self.progress.read() {
            Progress::Waiting(seen) if of(&seen) == of(&stale) => {}
            _ => self.progress.write(Progress::Waiting(stale)),
        }
    }

    /// Records a request to L2 with this limit.
    pub(crate) fn asks_l2(&self, limit: Duration) {
        self.l2.lock().asked = Some((Instant::now(), limit));
    }

    /// When the running request to L2 started; `None` if there is none.
    pub(crate) fn asked_l2(&self) -> Option<Instant> {
        self.l2.lock().asked.map(|(since, _)| since)
    }

    /// Records that no request to L2 is running.
    pub(crate) fn skips_l2(&self) {
        self.l2.lock().asked = None;
    }

    /// Registers the batch that leads this flight, so that it is notified if a caller gives up on
    /// L2.
    pub(crate) fn led_by(&self, batch: &Arc<Notify>) {
        let _ = self.batch.set(Arc::clone(batch));
    }

    /// Makes the leader continue without L2, because a caller's limit has passed.
    pub(crate) fn give_up_l2(&self, limit: Duration) {
        self.l2.lock().given_up.get_or_insert(limit);
        self.gave_up.notify_one();
        if let Some(batch) = self.batch.get() {
            batch.notify_one();
        }
    }

    /// The limit of the caller that gave up on L2, if one has.
    pub(crate) fn given_up(&self) -> Option<Duration> {
        self.l2.lock().given_up
    }

    /// Waits until a caller gives up on L2.
    pub(crate) async fn l2_given_up(&self) -> Duration {
        loop {
            if let Some(limit) = self.given_up() {
                return limit;
            }
            self.gave_up.notified().await;
        }
    }

    /// Records that the load continues without L2.
    pub(crate) fn continues_without_l2(&self) {
        let mut l2 = self.l2.lock();
        // A request that failed before its limit would also have failed with a longer one.
        let timed_out = l2.asked.filter(|(since, limit)| since.elapsed() >= *limit);
        let timed_out = timed_out.map_or(Duration::MAX, |(_, limit)| limit);
        l2.failed_after = Some(l2.given_up.unwrap_or(timed_out));
    }

    /// How long the load waited before it continued without L2; `None` if it did not.
    ///
    /// The maximum duration if a longer wait would not have helped.
    pub(crate) fn without_l2(&self) -> Option<Duration> {
        self.l2.lock().failed_after
    }
}

/// How long a flight waits for L2, and whether it gave up.
#[derive(Debug, Default)]
struct Asking {
    asked: Option<(Instant, Duration)>,
    given_up: Option<Duration>,
    failed_after: Option<Duration>,
}

/// The role of a caller that registered with a flight.
#[derive(Debug)]
pub(crate) enum Role {
    /// It leads this flight and must run it.
    Lead(Arc<Flight>),
    /// It joins this flight and takes its outcome.
    Join(Arc<Flight>),
    /// It waits for this flight's end and registers again.
    Wait(Arc<Flight>),
}

impl Role {
    /// The flight that the caller waits for.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        let (Self::Lead(flight) | Self::Join(flight) | Self::Wait(flight)) = self;
        flight
    }
}

#[derive(Debug, Default)]
struct Slot {
    state: KeyState,
    flights: Vec<Arc<Flight>>,
    /// The number of strict callers that wait until they may join a load.
    strict: usize,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.state.is_idle() && self.strict == 0
    }
}

/// Lets a strict caller get a load that it may join, after it found one that it may not.
///
/// Until this is dropped, every new load of the key is strict. So the caller waits at most for the
/// loads that already run, even if more callers register.
#[derive(Debug)]
pub(crate) struct StrictTurn<'a> {
    flights: &'a Flights,
    hash: KeyHash,
}

impl Drop for StrictTurn<'_> {
    fn drop(&mut self) {
        if let Shard::Occupied(mut occupied) = self.flights.slots.entry(self.hash) {
            occupied.get_mut().strict -= 1;
            if occupied.get().is_idle() {
                occupied.remove();
            }
        }
    }
}

/// All flights and fences of a node.
#[derive(Debug)]
pub(crate) struct Flights {
    slots: DashMap<KeyHash, Slot, RandomState>,
    next: AtomicU64,
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self { slots: DashMap::default(), next: AtomicU64::new(1) }
    }

    /// The id of the next flight: flights with this id or a later one begin after now.
    pub(crate) fn horizon(&self) -> FlightId {
        FlightId(self.next.load(Ordering::Acquire))
    }

    /// All in-flight loads.
    pub(crate) fn all(&self) -> Vec<Arc<Flight>> {
        let mut all = Vec::new();
        self.slots.retain(|_, slot| {
            all.extend(slot.flights.iter().map(Arc::clone));
            true
        });
        all
    }

    /// The number of keys with a flight or fence.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Registers a caller with the key.
    ///
    /// It calls `stamp` under the key's lock, so that the stamp is older than anything the flight
    /// sees.
    pub(crate) fn register(
        &self,
        hash: KeyHash,
        key: &str,
        strict: bool,
        stamp: impl FnOnce() -> Stamp,
    ) -> Role {
        let mut slot = self.slots.entry(hash).or_default();
        let id = self.take_id();
        let (id, wait) = match slot.state.register(id) {
            Registration::Lead => {
                let flight = Arc::new(Flight {
                    id,
                    hash,
                    key: key.into(),
                    stamp: stamp(),
                    strict: strict || slot.strict > 0,
                    progress: Watch::new(Progress::Probing),
                    news: Notify::new(),
                    stop: Notify::new(),
                    callers: Callers::default(),
                    run: AtomicU64::new(0),
                    hurried: AtomicBool::new(false),
                    l2: Mutex::default(),
                    gave_up: Notify::new(),
                    batch: OnceLock::new(),
                    removed: AtomicBool::new(false),
                    driver: Driver::default(),
                    place: OnceLock::new(),
                    reason: Mutex::new(MissReason::Absent),
                });
                slot.flights.push(Arc::clone(&flight));
                return Role::Lead(flight);
            }
            Registration::Join(id) => (id, false),
            Registration::Wait(id) => (id, true),
        };
        let found = slot.flights.iter().find(|flight| flight.id == id);
        let flight = Arc::clone(found.expect("the state names only flights of this slot"));
        // Another key with the same hash: the caller waits for its end and does not take its value.
        if wait || &*flight.key != key { Role::Wait(flight) } else { Role::Join(flight) }
    }

    /// Makes new loads of the key strict for a caller that waits for a load it may not join.
    pub(crate) fn strict_turn(&self, hash: KeyHash) -> StrictTurn<'_> {
        self.slots.entry(hash).or_default().strict += 1;
        StrictTurn { flights: self, hash }
    }

    /// Begins a write (with the version that it stores) or a plain read (without one).
    ///
    /// `invalidate` runs under the key's lock.
    pub(crate) fn begin(
        &self,
        hash: KeyHash,
        version: Option<Version>,
        invalidate: impl FnOnce(),
    ) -> FlightId {
        let id = self.take_id();
        let mut slot = self.slots.entry(hash).or_default();
        slot.state.begin(id, version);
        invalidate();
        id
    }

    /// Records a received version of a key and runs `invalidate` under the key's lock.
    pub(crate) fn receive(&self, hash: KeyHash, version: Version, invalidate: impl FnOnce()) {
        match self.slots.entry(hash) {
            Shard::Occupied(mut slot) => {
                slot.get_mut().state.receive(version);
                for flight in &slot.get().flights {
                    flight.news.notify_one();
                }
                invalidate();
            }
            Shard::Vacant(_lock) => invalidate(),
        }
    }

    /// Runs `act` under the key's lock.
    pub(crate) fn locked<R>(&self, hash: KeyHash, act: impl FnOnce() -> R) -> R {
        let _lock = self.slots.entry(hash);
        act()
    }

    /// Marks the key's loads after a removal: none may answer with an older value (S9).
    pub(crate) fn removed(&self, hash: KeyHash) {
        if let Some(slot) = self.slots.get(&hash) {
            slot.flights.iter().for_each(|flight| flight.removed.store(true, Ordering::Release));
        }
    }

    /// Records the version that the flight is about to store.
    pub(crate) fn own(&self, flight: &Flight, version: Version) {
        if let Some(mut slot) = self.slots.get_mut(&flight.hash) {
            slot.state.own(flight.id, version);
        }
    }

    /// Whether an invalidation has overtaken the flight.
    pub(crate) fn is_fenced(&self, flight: &Flight) -> bool {
        self.slots.get(&flight.hash).is_none_or(|slot| slot.state.is_fenced(flight.id))
    }

    /// Ends a flight or fence and runs `settle` under the key's lock, with the versions that it
    /// received.
    pub(crate) fn end<R>(
        &self,
        hash: KeyHash,
        id: FlightId,
        settle: impl FnOnce(Received) -> R,
    ) -> R {
        match self.slots.entry(hash) {
            Shard::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                let received = slot.state.end(id);
                slot.flights.retain(|flight| flight.id != id);
                let idle = slot.is_idle();
                if misordered!(SettleUnlocked) {
                    drop(occupied);
                    return settle(received);
                }
                let result = settle(received);
                if idle {
                    occupied.remove();
                }
                result
            }
            Shard::Vacant(_lock) => settle(Received::Many),
        }
    }

    fn take_id(&self) -> FlightId {
        FlightId(self.next.fetch_add(1, Ordering::AcqRel))
    }
}
