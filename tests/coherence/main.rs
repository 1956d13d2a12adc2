//! What the nodes of one cache may answer, whatever happens between them.

mod background;
mod backlog;
mod clocks;
mod delivery;
mod failover;
mod fallbacks;
mod far_future;
mod hidden;
mod honesty;
mod internal_names;
mod large_ledger;
mod leaders;
mod ledger_only;
mod order;
mod overtaken;
mod partition;
mod recovery;
mod regions;
mod replicas;
mod shadow;
mod verify;
