//! What a cache tells of itself: events, metrics, spans, health, and what it must never tell.

mod capture;
mod events;
mod events_between_nodes;
mod metrics;
mod otel;
mod pages;
mod spans;
