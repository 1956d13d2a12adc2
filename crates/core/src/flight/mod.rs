//! Flights: the running loads of this node, one table, one short lock per key.
//!
//! The rules (who joins, who waits, what may be inserted) are
//! [`protocol::flight`](crate::protocol::flight); this module gives them a lock and waiters. The
//! lock of a key's shard is what makes *insert into L1* and *invalidate* mutually atomic; it is
//! never held across an await, and no user code runs under it.

mod driver;
mod fence;
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
pub(crate) use fence::Fence;
pub(crate) use outcome::{Cause, Completed, Failure, Outcome, Pause, Progress, Standing};
pub(crate) use waiting::{Callers, Waiting};

use crate::entry::{ErasedEntry, Stamp};
use crate::events::MissReason;
use crate::protocol::flight::{FlightId, KeyState, Received, Registration};
use crate::protocol::{KeyHash, Version};
use crate::runtime::Place;
use crate::sync::{AtomicU64, DashMap, Entry as Shard};
use crate::watch::Watch;

/// One running load.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: FlightId,
    pub(crate) hash: KeyHash,
    pub(crate) key: Box<str>,
    /// What the node knew before it began.
    pub(crate) stamp: Stamp,
    /// It asks L2 whatever L1 has.
    pub(crate) strict: bool,
    /// How far it is.
    pub(crate) progress: Watch<Progress>,
    /// A version of the key was received: another node may have filled it.
    pub(crate) news: Notify,
    /// Nobody who waits wants the factory any more.
    pub(crate) stop: Notify,
    /// Who waits for it.
    pub(crate) callers: Callers,
    /// The run of the factory that ends it; 0 if none has begun.
    run: AtomicU64,
    /// A caller has waited for another node's load for as long as it does.
    hurried: AtomicBool,
    /// What became of asking L2.
    l2: Mutex<Asking>,
    /// A caller has given up on L2.
    gave_up: Notify,
    /// The same, for the batch that leads this flight and others.
    batch: OnceLock<Arc<Notify>>,
    /// The key was removed since: what was there before may not stand in.
    pub(crate) removed: AtomicBool,
    /// Who drives it.
    pub(crate) driver: Driver,
    /// Where, once that is known.
    pub(crate) place: OnceLock<Place>,
    /// Why it is needed, as far as is known.
    reason: Mutex<MissReason>,
}

impl Flight {
    /// Whether it runs where nothing runs any more.
    pub(crate) fn is_left(&self) -> bool {
        self.place.get().is_none_or(Place::is_left)
    }

    /// What was found says why this flight is needed.
    pub(crate) fn because(&self, reason: MissReason) {
        *self.reason.lock() = reason;
    }

    pub(crate) fn reason(&self) -> MissReason {
        *self.reason.lock()
    }

    /// A caller does not wait for another node's load any longer: this node is to load, too.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.news.notify_one();
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Acquire)
    }

    /// Another node is loading; `stale` may be served meanwhile. Callers are woken only by something new.
    pub(crate) fn waits(&self, stale: Option<ErasedEntry>) {
        let of = |erased: &Option<ErasedEntry>| erased.as_ref().map(|erased| erased.meta().version);
        match self.progress.read() {
            Progress::Waiting(seen) if of(&seen) == of(&stale) => {}
            _ => self.progress.write(Progress::Waiting(stale)),
        }
    }

    /// L2 is asked, and gets this long to answer.
    pub(crate) fn asks_l2(&self, limit: Duration) {
        self.l2.lock().asked = Some((Instant::now(), limit));
    }

    /// Since when L2 has been asked; `None` if it is not now.
    pub(crate) fn asked_l2(&self) -> Option<Instant> {
        self.l2.lock().asked.map(|(since, _)| since)
    }

    /// L2 is not asked for a while.
    pub(crate) fn skips_l2(&self) {
        self.l2.lock().asked = None;
    }

    /// This flight, and others, are led by a batch, which is to receive who gives up on L2.
    pub(crate) fn led_by(&self, batch: &Arc<Notify>) {
        let _ = self.batch.set(Arc::clone(batch));
    }

    /// A caller has waited for L2 for as long as it does: whoever leads goes on without.
    pub(crate) fn give_up_l2(&self, limit: Duration) {
        self.l2.lock().given_up.get_or_insert(limit);
        self.gave_up.notify_one();
        if let Some(batch) = self.batch.get() {
            batch.notify_one();
        }
    }

    /// How long the caller had waited that has given up on L2, if one has.
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

    /// L2 has not answered: the load does without.
    pub(crate) fn continues_without_l2(&self) {
        let mut l2 = self.l2.lock();
        // What fails at once would have failed a more patient caller, too.
        let timed_out = l2.asked.filter(|(since, limit)| since.elapsed() >= *limit);
        let timed_out = timed_out.map_or(Duration::MAX, |(_, limit)| limit);
        l2.failed_after = Some(l2.given_up.unwrap_or(timed_out));
    }

    /// How long L2 was waited for, if it has not answered; the longest time if more would not have helped.
    pub(crate) fn without_l2(&self) -> Option<Duration> {
        self.l2.lock().failed_after
    }
}

/// Since when and how long a flight waits for L2, and whether that was in vain.
#[derive(Debug, Default)]
struct Asking {
    asked: Option<(Instant, Duration)>,
    given_up: Option<Duration>,
    failed_after: Option<Duration>,
}

/// What an arriving caller got.
#[derive(Debug)]
pub(crate) enum Role {
    /// It started this flight and must run it.
    Lead(Arc<Flight>),
    /// It waits for this flight's result.
    Join(Arc<Flight>),
    /// It waits for this flight's end and arrives again.
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
    /// How many strict callers wait until they may join a load.
    strict: usize,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.state.is_idle() && self.strict == 0
    }
}

/// A strict caller that has met a load it may not join. Until this is dropped, every load of the key that
/// begins is strict, so that it waits for the running ones at most, however many others come.
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

    /// The id the next flight will have: flights from this one on began after now.
    pub(crate) fn horizon(&self) -> FlightId {
        FlightId(self.next.load(Ordering::Acquire))
    }

    /// All loads that are running.
    pub(crate) fn all(&self) -> Vec<Arc<Flight>> {
        let mut all = Vec::new();
        self.slots.retain(|_, slot| {
            all.extend(slot.flights.iter().map(Arc::clone));
            true
        });
        all
    }

    /// How many keys have a flight or fence.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A caller arrives. `stamp` is asked under the key's lock, so that what it says is older than
    /// anything the flight will see.
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
        // Another key with the same hash: not its value, but its turn.
        if wait || &*flight.key != key { Role::Wait(flight) } else { Role::Join(flight) }
    }

    /// A strict caller waits for a load that it may not join.
    pub(crate) fn strict_turn(&self, hash: KeyHash) -> StrictTurn<'_> {
        self.slots.entry(hash).or_default().strict += 1;
        StrictTurn { flights: self, hash }
    }

    /// A write (with the version it will leave) or a plain read (without) begins; `invalidate` runs
    /// under the key's lock.
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

    /// A version of a key was received of; `invalidate` runs under the key's lock.
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

    /// The key was removed: no running load may answer with what was there before (S9).
    pub(crate) fn removed(&self, hash: KeyHash) {
        if let Some(slot) = self.slots.get(&hash) {
            slot.flights.iter().for_each(|flight| flight.removed.store(true, Ordering::Release));
        }
    }

    /// The flight is about to store under this version.
    pub(crate) fn own(&self, flight: &Flight, version: Version) {
        if let Some(mut slot) = self.slots.get_mut(&flight.hash) {
            slot.state.own(flight.id, version);
        }
    }

    /// Whether an invalidation has overtaken the flight.
    pub(crate) fn is_fenced(&self, flight: &Flight) -> bool {
        self.slots.get(&flight.hash).is_none_or(|slot| slot.state.is_fenced(flight.id))
    }

    /// A flight or fence ends; `settle` runs under the key's lock with what it has received.
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
