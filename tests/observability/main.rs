//! Observability: events, metrics, spans, health, and data that must never appear in them.

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
