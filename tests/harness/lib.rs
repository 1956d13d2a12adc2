//! Shared code of the black-box tests: nodes of one cache in one process, on virtual time or over
//! real servers.

mod loads;
pub mod proxy;
pub mod redis;
mod world;

pub use loads::{Boxed, Loads, TestError, gated, go, kind_of, load, options};
pub use world::{Node, World, pass, until};
