//! Flights and fences of one key on one node, and the law of joining.
//!
//! A *flight* is the one running load of a key. A *fence* is anything that overlaps it: an explicit
//! write under way, a plain read that may insert, or a version that was heard. The rules:
//!
//! - **F1** A caller that came after an invalidation never gets the result of a load that began
//!   before it: it leads, or joins, a young flight.
//! - **F2** At most two flights per key: one fenced, one young. A third caller waits for the older.
//! - **F3** What is inserted into L1 must be the only version heard of since it began; two different
//!   versions poison it (remembering only the last one would let a late echo hide a newer warning).
//! - **F4** Writes that overlap each other poison each other: neither knows which came last.

use super::Version;

/// What a flight or a write has heard of its key since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Heard {
    /// Nothing.
    #[default]
    Nothing,
    /// One version.
    One(Version),
    /// Two different ones: whatever it holds, something else was there too.
    Many,
}

impl Heard {
    /// Hears a version (F3).
    pub fn hear(&mut self, version: Version) {
        *self = match *self {
            Self::Nothing => Self::One(version),
            Self::One(v) if v == version => Self::One(v),
            Self::One(_) | Self::Many if sabotaged!(LastHeardCounts) => Self::One(version),
            Self::One(_) | Self::Many => Self::Many,
        };
    }

    /// Whether a copy of `version` may be inserted.
    #[must_use]
    pub fn allows(self, version: Version) -> bool {
        match self {
            Self::Nothing => true,
            Self::One(heard) => heard == version,
            Self::Many => false,
        }
    }
}

/// Identifies a flight or fence on its node; later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub u64);

/// What an arriving caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
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
    heard: Heard,
    fenced: bool,
    own: Option<Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Write {
    id: FlightId,
    heard: Heard,
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
    pub fn arrive(&mut self, id: FlightId) -> Arrival {
        match (self.young, self.older) {
            (Some(young), _) if !young.fenced => Arrival::Join(young.id),
            (Some(_), Some(older)) => Arrival::Wait(older.id),
            (young, _) => {
                if young.is_some() {
                    self.older = young;
                }
                let mut heard = Heard::default();
                for version in self.writes.iter().filter_map(|w| w.version) {
                    heard.hear(version);
                }
                self.young = Some(Flight { id, heard, fenced: false, own: None });
                Arrival::Lead
            }
        }
    }

    /// A write (with the version it will leave) or a plain read (without) begins.
    pub fn begin(&mut self, id: FlightId, version: Option<Version>) {
        let mut heard = Heard::default();
        for other in self.writes.iter().filter_map(|w| w.version) {
            heard.hear(other);
        }
        if let Some(version) = version {
            self.hear(version);
        }
        self.writes.push(Write { id, heard, version });
    }

    /// A version of the key was heard of: a notification, or a write of this node.
    pub fn hear(&mut self, version: Version) {
        for flight in [&mut self.young, &mut self.older].into_iter().flatten() {
            flight.heard.hear(version);
            flight.fenced |= flight.own != Some(version);
        }
        for write in &mut self.writes {
            if write.version != Some(version) {
                write.heard.hear(version);
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

    /// A flight or fence ends; answers what it has heard. `Many` if it was not there.
    pub fn end(&mut self, id: FlightId) -> Heard {
        for slot in [&mut self.young, &mut self.older] {
            if let Some(flight) = slot.take_if(|f| f.id == id) {
                return flight.heard;
            }
        }
        let Some(at) = self.writes.iter().position(|w| w.id == id) else { return Heard::Many };
        let write = self.writes.swap_remove(at);
        if let Some(version) = write.version.filter(|_| !sabotaged!(WriteEndUnfenced)) {
            // Flights that began while the write was under way may have read what it replaced (F1).
            self.hear(version);
        }
        write.heard
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
