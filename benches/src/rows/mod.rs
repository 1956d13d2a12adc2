//! The rows, by group.

mod hit;
mod ledger;
mod many;
mod memory;
mod over_redis;
mod propagation;
mod removal;
mod stampede;
mod tagged;
mod trace;
mod work;

use anyhow::Result;

use crate::board::Board;
use crate::env::Env;

pub(crate) use propagation::{Listeners, Sender};
pub(crate) use trace::rows as trace_rows;
pub(crate) use work::work;

/// Rows that are measured together.
type Group = fn(&Env, &mut Board) -> Result<()>;

const GROUPS: [Group; 10] = [
    hit::rows,
    tagged::rows,
    over_redis::rows,
    many::rows,
    stampede::rows,
    removal::rows,
    ledger::rows,
    propagation::rows,
    memory::rows,
    trace::rows,
];

/// Measures every selected row. A failure is reported and does not stop the other rows.
pub(crate) fn run(env: &Env, board: &mut Board) {
    for group in GROUPS {
        if let Err(error) = group(env, board) {
            board.fail(format!("{error:#}"));
        }
    }
}
