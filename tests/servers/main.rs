//! Caches in several processes, and caches whose server is in trouble, over a real Redis.

mod node;
mod trouble;

mod writes;
