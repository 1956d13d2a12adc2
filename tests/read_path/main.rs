//! What one call answers, and what it costs, on one node and on two that share L2.

mod batches;
mod bytes_in_l2;
mod conditional;
mod contracts;
mod eager;
mod fail_safe;
mod lookups;
mod options;
mod stampede;
mod timeouts;
mod trouble;
mod warming;
