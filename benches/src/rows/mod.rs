//! The rows, by group.

mod hit;
mod many;
mod memory;
mod over_redis;
mod propagation;
mod removal;
mod stampede;
mod tagged;

use anyhow::Result;

use crate::board::Board;
use crate::env::Env;

#[cfg(feature = "peers")]
pub(crate) use memory::per_entry;
pub(crate) use propagation::{Ears, Who, hear};
pub(crate) use stampede::crowd;

/// Rows that belong together.
type Group = fn(&Env, &mut Board) -> Result<()>;

const GROUPS: [Group; 8] = [
    hit::rows,
    tagged::rows,
    over_redis::rows,
    many::rows,
    stampede::rows,
    removal::rows,
    propagation::rows,
    memory::rows,
];

/// Every row that was asked for.
pub(crate) fn run(env: &Env, board: &mut Board) -> Result<()> {
    GROUPS.iter().try_for_each(|group| group(env, board))
}
