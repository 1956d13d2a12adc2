//! One module per command.

pub(crate) mod change;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod stats;
pub(crate) mod tags;
pub(crate) mod watch;
