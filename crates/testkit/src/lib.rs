//! What the tests of Crinkle stand on, and what an author of a store or a backplane checks his with.
//!
//! | module | |
//! |---|---|
//! | [`ability`] | what the `redis-server` of this run can do |
//! | [`contract`] | conformance suites for [`L2`](crinkle_core::l2::L2) and [`Backplane`](crinkle_core::backplane::Backplane) |
//! | [`chaos`] | a store and a backplane whose every call ends as the test says |
//! | [`clock`] | a clock on Tokio's time, for tests with paused time |
//! | [`cluster`] | three primaries and three replicas that are one cluster |
//! | [`memcached`] | a real `memcached`, killed, stopped and restarted at will |
//! | [`model`] | the protocol of the core, explored state by state |
//! | [`redis`] | a real `redis-server`, killed, stopped and restarted at will |
//! | [`sentinel`] | a primary, a replica and three sentinels |
//! | [`sim`] | clusters in trouble, by seed, under a judge |
//! | [`soak`] | a long run of real processes that must not grow |
//! | [`storm`] | real servers in trouble, under the same judge |

pub mod ability;
pub mod chaos;
#[cfg(feature = "sim")]
mod check;
pub mod clock;
pub mod cluster;
pub mod contract;
#[cfg(feature = "sim")]
mod history;
pub mod memcached;
#[cfg(feature = "sim")]
pub mod model;
mod process;
pub mod redis;
pub mod sentinel;
#[cfg(feature = "sim")]
pub mod sim;
mod skew;
pub mod soak;
#[cfg(feature = "sim")]
pub mod storm;
