//! Writes: the operations table of the consistency statement.
//!
//! | | locally, at once | at L2, atomically | on the reply |
//! |---|---|---|---|
//! | `set` | fence, drop the old copy | announce, store at a new version | insert if nothing else was received |
//! | `remove` | fence, drop | announce, delete | fence again |
//! | `expire` | fence, mark | announce, mark at a new version | fence again |
//! | `remove`, `and_tags` | both | both, at the same time | both |
//! | `remove_by_tag`, `clear` | pending: hidden here | number, store, announce | the number replaces the pending mark |
//!
//! Invariants:
//!
//! - **W1** What is invalidated is invalid on this node before the call first awaits: the copy in L1, and what L2
//!   holds until it has answered. What a `set` replaces is not fresh from then on.
//! - **W2** A write that L2 has not confirmed is queued as an invalidation, never as a value.
//! - **W3** A receipt says `Done` only for what was acknowledged (S15), and not for what is born hidden (S17).

mod batch;
mod both;
pub(crate) mod encode;
mod hidden;
mod key;
mod pending;
mod receipt;
pub(crate) mod removal;
mod reserve;
mod send;

pub(crate) use batch::{BatchRemoval, BatchSet};
pub(crate) use both::remove_and_tags;
pub(crate) use key::{expire, remove, set};
pub use receipt::{Receipt, Token, WriteStatus};
pub use reserve::Reservation;
pub(crate) use reserve::{reserve, set_reserved};
