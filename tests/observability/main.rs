//! What a cache tells of itself: events, metrics, spans, health, and what it must never tell.

mod capture;
mod close;
mod events;
mod events_between_nodes;
mod faults;
mod logs;
mod metrics;
mod otel;
mod pages;
mod spans;
