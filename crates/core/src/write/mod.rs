//! The pipeline of a write.
//!
//! | file | holds |
//! |---|---|
//! | `key`, `batch` | `set`, `remove` and `expire` of one key; of many |
//! | `removal`, `both` | `remove_by_tag`, `expire_all`: gets the number; keys and tags at once |
//! | `reserve` | a `set` that loses to every invalidation since its value was read |
//! | `send`, `pending` | sends one write of one key; guards it until L2 has answered |
//! | `hidden` | stores a `set` again if an earlier removal hides it |
//! | `encode`, `conclude` | entry to record; what the caller gets |
//! | `outgoing` | announces one write of one key |
//! | `relay` | relays removals to other regions |
//!
//! The operations table of the consistency statement:
//!
//! | | locally, at once | at L2, atomically | on reply |
//! |---|---|---|---|
//! | `set` | fence, drop | announce, store a new version | insert if nothing else was received |
//! | `remove` | fence, drop | announce, delete | fence again |
//! | `expire` | fence, mark | announce, mark at a new version | fence again |
//! | `remove`, `and_tags` | both | both, at the same time | both |
//! | `remove_by_tag`, `expire_all` | pending: hidden | number, store, announce | number replaces it |
//!
//! Invariants:
//!
//! - **W1** An invalidation applies on this node before the call first awaits. It covers the copy
//!   in L1, and the record in L2 until L2 has answered. From then on, the value that a `set`
//!   replaces is not fresh.
//! - **W2** A write that L2 has not confirmed is queued as an invalidation, never as a value.
//! - **W3** A receipt says `Done` only for an acknowledged write (S15), and never for a value that
//!   is hidden from the start (S17).

mod batch;
mod both;
mod conclude;
pub(crate) mod encode;
mod hidden;
mod key;
pub(crate) mod outgoing;
mod pending;
mod relay;
pub(crate) mod removal;
mod reserve;
mod send;

pub(crate) use batch::{BatchRemoval, BatchSet};
pub(crate) use both::invalidate_and_tags;
pub(crate) use key::{invalidate, set};
pub use reserve::Reservation;
pub(crate) use reserve::{reserve, set_reserved};
