//! Flights and fences of one key on one node, and the law of joining.
//!
//! A *flight* is the one running load of a key. A *fence* is anything that overlaps it: an explicit
//! write under way, a plain read that may insert, or a version that was received. The rules:
//!
//! - **F1** A caller that came after an invalidation never gets the result of a load that began
//!   before it: it leads, or joins, a young flight.
//! - **F2** At most two flights per key: one fenced, one young. A third caller waits for the older.
//! - **F3** What is inserted into L1 must be the only version received of since it began; two different
//!   versions poison it (remembering only the last one would let a late echo hide a newer warning).
//! - **F4** Writes that overlap each other poison each other: neither knows which came last.

use super::Version;

/// What a flight or a write has received of its key since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Received {
    /// Nothing.
    #[default]
    Nothing,
    /// One version.
    One(Version),
    /// Two different ones: whatever it holds, something else was there too.
    Many,
}

impl Received {
    /// Hears a version (F3).
    pub fn receive(&mut self, version: Version) {
        *self = match *self {
            Self::Nothing => Self::One(version),
            Self::One(v) if v == version => Self::One(v),
            Self::One(_) | Self::Many if sabotaged!(LastReceivedCounts) => Self::One(version),
            Self::One(_) | Self::Many => Self::Many,
        };
    }

    /// Whether a copy of `version` may be inserted.
    #[must_use]
    pub fn allows(self, version: Version) -> bool {
        match self {
            Self::Nothing => true,
            Self::One(received) => received == version,
            Self::Many => false,
        }
    }
}

/// Identifies a flight or fence on its node; later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub u64);

/// What an arriving caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registration {
    /// Waits for this young flight and takes its result.
    Join(FlightId),
    /// Starts the young flight, under the id it proposed.
    Lead,
    /// Two fenced flights are running (F2): waits until this one has ended, then arrives again.
    Wait(FlightId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    id: FlightId,
    received: Received,
    fenced: bool,
    own: Option<Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Write {
    id: FlightId,
    received: Received,
    version: Option<Version>,
}

/// The flights and fences of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyState {
    young: Option<Flight>,
    older: Option<Flight>,
    writes: Vec<Write>,
}

impl KeyState {
    /// A caller arrives; `id` is the flight it would lead.
    pub fn register(&mut self, id: FlightId) -> Registration {
        match (self.young, self.older) {
            (Some(young), _) if !young.fenced => Registration::Join(young.id),
            (Some(_), Some(older)) => Registration::Wait(older.id),
            (young, _) => {
                if young.is_some() {
                    self.older = young;
                }
                let mut received = Received::default();
                for version in self.writes.iter().filter_map(|w| w.version) {
                    received.receive(version);
                }
                self.young = Some(Flight { id, received, fenced: false, own: None });
                Registration::Lead
            }
        }
    }

    /// A write (with the version it will leave) or a plain read (without) begins.
    pub fn begin(&mut self, id: FlightId, version: Option<Version>) {
        let mut received = Received::default();
        for other in self.writes.iter().filter_map(|w| w.version) {
            received.receive(other);
        }
        if let Some(version) = version {
            self.receive(version);
        }
        self.writes.push(Write { id, received, version });
    }

    /// A version of the key was received of: a notification, or a write of this node.
    pub fn receive(&mut self, version: Version) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            flight.received.receive(version);
            flight.fenced |= flight.own != Some(version);
        }
        for write in &mut self.writes {
            if write.version != Some(version) {
                write.received.receive(version);
            }
        }
    }

    /// The flight is about to store its result under this version: hearing it is no fence.
    pub fn own(&mut self, id: FlightId, version: Version) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            if flight.id == id {
                flight.own = Some(version);
            }
        }
    }

    /// From now on nobody joins this flight.
    pub fn fence(&mut self, id: FlightId) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            flight.fenced |= flight.id == id;
        }
    }

    /// A flight or fence ends; answers what it has received. `Many` if it was not there.
    pub fn end(&mut self, id: FlightId) -> Received {
        for slot in [&mut self.young, &mut self.older] {
            if let Some(flight) = slot.take_if(|f| f.id == id) {
                return flight.received;
            }
        }
        let Some(at) = self.writes.iter().position(|w| w.id == id) else { return Received::Many };
        let write = self.writes.swap_remove(at);
        if let Some(version) = write.version.filter(|_| !sabotaged!(WriteEndUnfenced)) {
            // Flights that began while the write was under way may have read what it replaced (F1).
            self.receive(version);
        }
        write.received
    }

    /// Whether a flight may no longer be joined, and so has nothing to store.
    #[must_use]
    pub fn is_fenced(&self, id: FlightId) -> bool {
        [&self.young, &self.older].into_iter().flatten().any(|f| f.id == id && f.fenced)
    }

    /// Whether nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.young.is_none() && self.older.is_none() && self.writes.is_empty()
    }
}
