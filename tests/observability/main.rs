//! What a cache tells of itself: events, metrics, spans, health, and what it must never tell.

mod events;
mod events_between_nodes;
mod metrics;
