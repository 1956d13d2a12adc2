//! Probes servers whose circuit breaker is open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Access;
use crate::telemetry::Op;

impl Access {
    /// Waits until a server must be probed.
    pub(crate) async fn probe_wanted(&self) {
        while self.breakers.probes().is_empty() {
            self.probe_wanted.notified().await;
        }
    }

    /// Probes each server with an open breaker, or under suspicion, with a key that failed there.
    /// True if this closed a breaker.
    pub(crate) async fn probe(&self, limit: Duration) -> bool {
        let ledger = self.store.server_of(&self.ledger);
        let probes = self.breakers.probes().into_iter();
        // The poll probes the ledger's server.
        let probes = probes.filter(|(name, _)| Some(name) != ledger.as_ref());
        let probes: Vec<_> = probes.map(|(name, key)| self.probe_one(name, key, limit)).collect();
        join_all(probes).await.contains(&true)
    }

    async fn probe_one(&self, name: Arc<str>, key: String, limit: Duration) -> bool {
        let server = Some(name);
        if self.store.server_of(&key) != server {
            // Its keys have moved to other servers, so no call goes there.
            return self.close(&server);
        }
        let call = self.store().read_heads(std::slice::from_ref(&key));
        let answer = self.timed(Op::ReadHeads, limit, call).await;
        self.count(&server, &key, &answer)
    }
}
