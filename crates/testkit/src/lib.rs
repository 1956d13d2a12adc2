//! Test tools of Crinkle, also for authors of a store or a backplane.
//!
//! | module | |
//! |---|---|
//! | [`ability`] | the features of the `redis-server` of this run |
//! | [`contract`] | conformance suites for [`L2`](crinkle_core::l2::L2) and [`Backplane`](crinkle_core::backplane::Backplane) |
//! | [`chaos`] | a store and a backplane with injected faults |
//! | [`clock`] | a clock on Tokio's time, for tests with paused time |
//! | [`cluster`] | a Redis cluster of three primaries and three replicas |
//! | [`memcached`] | a real `memcached`, killed, stopped and restarted at will |
//! | [`model`] | models of the protocol, explored state by state |
//! | [`redis`] | a real `redis-server`, killed, stopped and restarted at will |
//! | [`sentinel`] | a primary, a replica and three sentinels |
//! | [`sim`] | simulated clusters with injected faults, by seed, with a judge |
//! | [`soak`] | a long run of real processes whose resource use must not grow |
//! | [`storm`] | chaos runs against real servers, with the same judge |

#![cfg_attr(docsrs, feature(doc_cfg))]

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
