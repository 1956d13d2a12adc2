//! Caches in several processes, and caches whose server is in trouble, over a real Redis.

mod cluster;
mod killed;
mod node;
mod paused;
mod replicas;
mod sentinel;
mod stampede;
mod tag_index;
mod trouble;
mod writes;
