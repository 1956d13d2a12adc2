//! The read path: what one call answers and costs, on one node and on two that share L2.

mod abandoned;
mod batch_waits;
mod batches;
mod bytes_in_l2;
mod cached;
mod callers;
mod conditional;
mod contracts;
mod durations;
mod eager;
mod fail_safe;
mod joined;
mod keys;
mod lookups;
mod nested;
mod one_request;
mod options;
mod patience;
mod required;
mod stampede;
mod timeouts;
mod together;
mod trouble;
mod waits;
mod warming;
