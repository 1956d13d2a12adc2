//! Collects the report of [`Cache::health`](crate::Cache::health).

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::l2::access::Access;
use crate::server::ServerHealth;
use crate::telemetry::{Health, LastError};

impl Node {
    pub(crate) fn health(&self) -> Health {
        let node = self;
        let (known, now) = (node.coherence.known(), node.now());
        let heartbeat = node.coherence.ttl.last_heartbeat_at();
        let (l2, backplane, (coherent, since)) = {
            let trouble = node.telemetry.trouble.lock();
            (trouble.l2.clone(), trouble.backplane.clone(), trouble.coherent)
        };
        let is_coherent = node.coherence.is_coherent(now);
        let since = match node.l2 {
            Some(_) if coherent == is_coherent => now.since(since),
            // The state changed since the last poll, which recorded it.
            Some(_) => Duration::ZERO,
            None => now.since(node.built),
        };
        let link = node.link.read();
        let answers = |l2: &Access| link.syncs > 0 && !link.l2_refused && !l2.any_is_open();
        let last = |(what, at)| LastError { what, ago: now.since(at) };
        Health {
            node: Arc::clone(&node.id),
            has_l2: node.l2.is_some(),
            l2_up: node.l2.as_ref().is_some_and(answers),
            l2_servers: node.l2.as_ref().map_or_else(Vec::new, servers),
            l2_replicas: node.l2.as_ref().map_or_else(Vec::new, Access::replicas),
            has_backplane: node.bus.is_some(),
            subscribed: link.subscribed,
            coherent: is_coherent,
            last_heartbeat: (heartbeat.as_nanos() != 0).then(|| now.since(heartbeat)),
            ledger_frontier: known.frontier,
            ledger_size: known.barriers,
            ledger_suspect: known.suspect,
            pending_removals: known.pending,
            recovery_backlog: node.recovery.len(),
            peers: node.notices.peers(),
            in_flight: node.flights.len(),
            entries: node.l1.about_len(),
            coherent_since: is_coherent.then_some(since),
            incoherent_since: (!is_coherent).then_some(since),
            ledger_lag: node
                .l2
                .as_ref()
                .map(|_| now.since(node.coherence.ttl.synced_at().max(node.built))),
            last_l2_error: l2.map(last),
            last_backplane_error: backplane.map(last),
            regions: node.regions.health(),
        }
    }
}

fn servers(l2: &Access) -> Vec<ServerHealth> {
    l2.servers().into_iter().map(|(name, up)| ServerHealth::new(name, up)).collect()
}
