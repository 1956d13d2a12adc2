//! The flights and fences of one key on one node, and the rules for joining.
//!
//! A *flight* is an in-flight load of a key. A *fence* is anything that overlaps it: an
//! explicit write, a plain read that may insert, or a version that was received. The rules:
//!
//! - **F1** A caller that came after an invalidation never gets the result of a load that began
//!   before it: it leads, or joins, a young flight.
//! - **F2** At most two flights per key: one fenced, one young. A third caller waits for the older.
//! - **F3** A copy may enter L1 only if no other version was received since its flight or write
//!   began. Two different versions block the insert: keeping only the last would let a late echo
//!   hide a newer warning.
//! - **F4** Overlapping writes block each other's insert: neither knows which one came last.

use super::Version;

/// The versions of its key that a flight or a write has received since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Received {
    /// None.
    #[default]
    Nothing,
    /// One version.
    One(Version),
    /// Two different ones: whichever the copy has, another one exists.
    Many,
}

impl Received {
    /// Records a received version (F3).
    #[inline]
    pub fn receive(&mut self, version: Version) {
        *self = match *self {
            Self::Nothing => Self::One(version),
            Self::One(v) if v == version => Self::One(v),
            Self::One(_) | Self::Many if sabotaged!(LastReceivedCounts) => Self::One(version),
            Self::One(_) | Self::Many => Self::Many,
        };
    }

    /// Whether a copy of `version` may enter L1.
    #[must_use]
    #[inline]
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

/// The role of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registration {
    /// Wait for this young flight and share its result.
    Join(FlightId),
    /// Start the young flight, under the id that the caller proposed.
    Lead,
    /// Two fenced flights are running (F2): wait until this one ends, then register again.
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
    /// Registers a caller; `id` is the flight that it would lead.
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

    /// Starts a write (with the version that it leaves) or a plain read (without one).
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

    /// Records a received version of the key: from a notification, or from a write of this node.
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

    /// Sets the version under which the flight stores its result: receiving it is no fence.
    pub fn own(&mut self, id: FlightId, version: Version) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            if flight.id == id {
                flight.own = Some(version);
            }
        }
    }

    /// Excludes the flight from further joins.
    pub fn fence(&mut self, id: FlightId) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            flight.fenced |= flight.id == id;
        }
    }

    /// Ends a flight or fence and returns what it has received; `Many` if it was not there.
    pub fn end(&mut self, id: FlightId) -> Received {
        for slot in [&mut self.young, &mut self.older] {
            if let Some(flight) = slot.take_if(|f| f.id == id) {
                return flight.received;
            }
        }
        let Some(at) = self.writes.iter().position(|w| w.id == id) else { return Received::Many };
        let write = self.writes.swap_remove(at);
        if let Some(version) = write.version.filter(|_| !sabotaged!(WriteEndUnfenced)) {
            // Flights that began during the write may have read what it replaced (F1).
            self.receive(version);
        }
        write.received
    }

    /// Whether no caller may join the flight any more; its result is then not stored.
    #[must_use]
    #[inline]
    pub fn is_fenced(&self, id: FlightId) -> bool {
        [&self.young, &self.older].into_iter().flatten().any(|f| f.id == id && f.fenced)
    }

    /// Whether no flight, write or read is running.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.young.is_none() && self.older.is_none() && self.writes.is_empty()
    }
}
