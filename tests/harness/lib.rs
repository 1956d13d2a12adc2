//! Shared code of the black-box tests: nodes of one cache in one process, on virtual time or over
//! real servers.

mod loads;
pub mod proxy;
pub mod redis;
mod runtimes;
mod tagged;
mod world;

pub use loads::{
    Boxed, Loads, TestError, gated, go, kind_of, load, long, long_fail_safe, ms, options,
};
pub use runtimes::{current_thread, multi_thread};
pub use tagged::{CHANNEL, has, hold, overheard};
pub use world::{Node, World, both, both_stale, pass, server_of, servers_down, until};
