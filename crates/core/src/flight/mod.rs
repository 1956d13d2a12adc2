//! Flights: the running loads of this node, one table, one short lock per key.
//!
//! The rules (who joins, who waits, what may be inserted) are
//! [`protocol::flight`](crate::protocol::flight); this module gives them a lock and waiters. The
//! lock of a key's shard is what makes *insert into L1* and *invalidate* mutually atomic; it is
//! never held across an await, and no user code runs under it.

mod fence;
mod helm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use fence::Fence;
pub(crate) use helm::{Drive, Helm, Leader};

use crate::board::Board;
use crate::entry::{Held, Source, Stamp};
use crate::error::Error;
use crate::events::MissReason;
use crate::protocol::flight::{Arrival, FlightId, Heard, KeyState};
use crate::protocol::{KeyHash, Version};
use crate::sync::{AtomicU64, DashMap, Entry as Shard};

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
    pub(crate) progress: Board<Progress>,
    /// A version of the key was heard: another node may have filled it.
    pub(crate) news: Notify,
    /// Somebody wants the factory stopped.
    pub(crate) stop: Notify,
    /// The key was removed since: what was there before may not stand in.
    pub(crate) removed: AtomicBool,
    /// Who drives it.
    pub(crate) helm: Helm,
    /// Why it is needed, as far as is known.
    reason: Mutex<MissReason>,
}

impl Flight {
    /// What was found says why this flight is needed.
    pub(crate) fn because(&self, reason: MissReason) {
        *self.reason.lock() = reason;
    }

    pub(crate) fn reason(&self) -> MissReason {
        *self.reason.lock()
    }
}

/// How far a flight is.
#[derive(Clone)]
pub(crate) enum Progress {
    /// Asking L2, or waiting for another node's load.
    Probing,
    /// The factory runs; this may stand in for it.
    Loading(Option<Held>),
    /// Over.
    Done(Result<Landed, Error>),
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Probing => "Probing",
            Self::Loading(_) => "Loading",
            Self::Done(_) => "Done",
        })
    }
}

/// What a flight brought.
#[derive(Clone)]
pub(crate) struct Landed {
    pub(crate) held: Held,
    pub(crate) source: Source,
    pub(crate) standing: Standing,
}

/// What the node knew of a result when it landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Valid; for everybody.
    Fresh,
    /// Overtaken by an invalidation: for callers that came before it.
    Overtaken,
    /// L2 held something else by then: for the caller that started the load.
    Refused,
    /// A stale value stands in.
    Fallback,
}

/// What an arriving caller got.
#[derive(Debug)]
pub(crate) enum Seat {
    /// It started this flight and must run it.
    Lead(Arc<Flight>),
    /// It waits for this flight's result.
    Join(Arc<Flight>),
    /// It waits for this flight's end and arrives again.
    Wait(Arc<Flight>),
}

#[derive(Debug, Default)]
struct Slot {
    state: KeyState,
    flights: Vec<Arc<Flight>>,
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

    /// How many keys have a flight or fence.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A caller arrives. `stamp` is asked under the key's lock, so that what it says is older than
    /// anything the flight will see.
    pub(crate) fn arrive(
        &self,
        hash: KeyHash,
        key: &str,
        strict: bool,
        stamp: impl FnOnce() -> Stamp,
    ) -> Seat {
        let mut slot = self.slots.entry(hash).or_default();
        let id = self.take_id();
        let (id, wait) = match slot.state.arrive(id) {
            Arrival::Lead => {
                let flight = Arc::new(Flight {
                    id,
                    hash,
                    key: key.into(),
                    stamp: stamp(),
                    strict,
                    progress: Board::new(Progress::Probing),
                    news: Notify::new(),
                    stop: Notify::new(),
                    removed: AtomicBool::new(false),
                    helm: Helm::default(),
                    reason: Mutex::new(MissReason::Absent),
                });
                slot.flights.push(Arc::clone(&flight));
                return Seat::Lead(flight);
            }
            Arrival::Join(id) => (id, false),
            Arrival::Wait(id) => (id, true),
        };
        let found = slot.flights.iter().find(|flight| flight.id == id);
        let flight = Arc::clone(found.expect("the state names only flights of this slot"));
        // Another key with the same hash: not its value, but its turn.
        if wait || &*flight.key != key { Seat::Wait(flight) } else { Seat::Join(flight) }
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

    /// A version of a key was heard of; `invalidate` runs under the key's lock.
    pub(crate) fn hear(&self, hash: KeyHash, version: Version, invalidate: impl FnOnce()) {
        match self.slots.entry(hash) {
            Shard::Occupied(mut slot) => {
                slot.get_mut().state.hear(version);
                for flight in &slot.get().flights {
                    flight.news.notify_one();
                }
                invalidate();
            }
            Shard::Vacant(_lock) => invalidate(),
        }
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

    /// A flight or fence ends; `settle` runs under the key's lock with what it has heard.
    pub(crate) fn end<R>(&self, hash: KeyHash, id: FlightId, settle: impl FnOnce(Heard) -> R) -> R {
        match self.slots.entry(hash) {
            Shard::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                let heard = slot.state.end(id);
                slot.flights.retain(|flight| flight.id != id);
                let idle = slot.state.is_idle();
                if misordered!(SettleUnlocked) {
                    drop(occupied);
                    return settle(heard);
                }
                let result = settle(heard);
                if idle {
                    occupied.remove();
                }
                result
            }
            Shard::Vacant(_lock) => settle(Heard::Many),
        }
    }

    fn take_id(&self) -> FlightId {
        FlightId(self.next.fetch_add(1, Ordering::AcqRel))
    }
}
