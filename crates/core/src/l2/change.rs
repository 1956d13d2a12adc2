//! The ways in which a cache changes a record.

use super::{Deadline, Record};
use crate::events::Notice;
use crate::protocol::Version;
use crate::telemetry::Op;

/// A change of one record.
#[derive(Debug)]
pub(crate) enum Change {
    /// Stores a record over whatever is there, until the deadline.
    Set(Record, Option<Deadline>),
    /// Stores a record over exactly this version.
    Put(Version, Record),
    /// Removes the record.
    Remove,
    /// Makes the record stale, under a new version.
    Expire(Version),
}

impl Change {
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::Set(..) => Op::Set,
            Self::Put(..) => Op::Put,
            Self::Remove => Op::Remove,
            Self::Expire(_) => Op::Expire,
        }
    }

    /// What other nodes receive about it.
    pub(crate) fn notice(&self) -> Notice {
        match self {
            Self::Set(..) | Self::Put(..) => Notice::Written,
            Self::Remove => Notice::Removed,
            Self::Expire(_) => Notice::Expired,
        }
    }
}
