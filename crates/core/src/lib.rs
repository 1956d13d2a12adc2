//! The core of Crinkle.

pub mod backplane;
mod clock;
mod error;
pub mod l2;
pub mod protocol;

pub use clock::{Clock, ManualClock, Moment, SystemClock};
pub use error::{BoxError, Error, ErrorKind};
