//! Caches in several processes, and caches whose server fails, over a real Redis.

mod apart;
mod breakers;
mod clocks;
mod cluster;
mod intake;
mod killed;
mod lives;
mod node;
mod paused;
mod removals;
mod replicas;
mod runtimes;
mod sentinel;
mod shared;
mod silent;
mod stampede;
mod tag_index;
mod trouble;
mod writes;
